import json
import os
import socket
import subprocess

import pytest
from finding import write_plan

from model.errors import InputError
from transforms.ingest import batches, run_mark, staging
from transforms.ingest.plan import is_planned, read_plan, read_share
from transforms.photographs.prepare import Preparation, prepare_photograph
from transforms.training_set.records import Photograph, Reject

CONFIGURATION = {"full_height_px": 197}


def check_out(out):
    staging.check_out(str(out), CONFIGURATION)


def begin(out, *photographs):
    fenced = staging.begin(str(out), CONFIGURATION)
    if not is_planned(fenced):
        write_plan(fenced, photographs)


def mark(out, host, process):
    """Writes the mark that a run of that process leaves."""
    (out / ".staging").mkdir(exist_ok=True)
    (out / ".staging" / "run.json").write_text(json.dumps({"host": host, "process": process}))
    (out / "train-000000.tar").write_bytes(b"x")


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_a_killed_run_left_is_cleared_away_and_nothing_else(tmp_path):
    gone = ["train-000000.tar", "val-000001.tar.tmp-0123456789ab-01234567", "index.parquet", ".staging/a.tar"]
    kept = ["mine.tar", "train-1.tar", "photo.jpg", "index.parquet.bak"]
    (tmp_path / ".staging").mkdir()
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"x")
    check_out(tmp_path)
    begin(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([".staging", *kept])
    assert sorted(os.listdir(tmp_path / ".staging")) == [
        "base.json",
        "plan.json",
        "provenance.json",
        "run.json",
    ]
    staging.finish(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    begin(tmp_path)
    check_out(tmp_path)
    sleeper = subprocess.Popen(["sleep", "60"])
    run = f'{{"host": "{socket.gethostname()}", "process": {sleeper.pid}}}'
    (tmp_path / ".staging" / "run.json").write_text(run)
    try:
        for refuse in (check_out, begin):
            with pytest.raises(
                InputError, match=f"is being written by process {sleeper.pid} of {socket.gethostname()}"
            ):
                refuse(tmp_path)
    finally:
        sleeper.kill()
        sleeper.wait()
    check_out(tmp_path)


def test_a_folder_with_what_is_not_ours_to_remove_is_refused(tmp_path):
    (tmp_path / "train-000000.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="shards without"):
        check_out(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        check_out(tmp_path / "train-000000.tar")


def test_an_unfinished_run_is_gone_on_with_but_not_by_other_options(tmp_path):
    begin(tmp_path, Photograph("a.jpg", "CC0-1.0"))
    assert is_planned(str(tmp_path))
    begin(tmp_path)
    assert list(read_share(str(tmp_path), 0)) == [Photograph("a.jpg", "CC0-1.0")]
    with pytest.raises(InputError, match=r"other options \(full_height_px 197, not 389\): give the same, or remove"):
        staging.check_out(str(tmp_path), {"full_height_px": 389})


def test_what_was_staged_is_read_back_and_half_a_stage_is_none(tmp_path, monkeypatch):
    out = str(tmp_path)
    gone = Photograph("https://x/gone.jpg", "CC0-1.0", "Å", "t").reject("fetch", "not_found", "404", 2)
    with open("samples/alpine-meadow.jpg", "rb") as file:
        good = prepare_photograph(Photograph("good.jpg"), file.read(), 1, Preparation())
    batches.stage(out, 3, [good, gone])
    (staged,) = batches.read_staged(out, 3)
    assert (staged.sources, staged.rejects) == ({"good.jpg", gone.source}, [gone])
    ((image, row),) = batches.read_samples(out, staged.records)
    assert (image, row.sample) == (good.image, json.loads(json.dumps(good.sample.to_json())))
    assert batches.keys_of(staged.records) == [good.sample.key]
    assert batches.read_hashes(out, staged.records) == bytes.fromhex(good.sample.perceptual_hash) + good.crop_hashes
    batches.stage(out, 3, [good])  # by another attempt
    assert sum(len(staged.records) for staged in batches.read_staged(out, 3)) == 1
    monkeypatch.setattr(batches, "write_lines", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batches.stage(out, 4, [Reject("other.jpg", "read", "unreadable", "x")])
    assert list(batches.read_staged(out, 4)) == []


def test_a_run_on_another_host_is_refused_with_the_cure_and_not_discarded(tmp_path):
    mark(tmp_path, "far-away", dead_process())
    for refuse in (check_out, begin):
        with pytest.raises(
            InputError, match=r"is being written by process \d+ of far-away; wait for it or, if"
        ) as caught:
            refuse(tmp_path)
        assert "\n" not in str(caught.value)
        assert (tmp_path / "train-000000.tar").exists()
    cure = str(caught.value).split("remove ")[1]
    os.remove(cure)
    begin(tmp_path)
    assert os.listdir(tmp_path) == [".staging"]


def test_a_process_of_another_user_is_alive(tmp_path, monkeypatch):
    mark(tmp_path, socket.gethostname(), 12345)

    def refuse(process, signal):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(run_mark.os, "kill", refuse)
    with pytest.raises(InputError, match="is being written by process 12345"):
        begin(tmp_path)
    assert (tmp_path / "train-000000.tar").exists()


def test_a_mark_that_cannot_be_read_is_no_leave_to_discard(tmp_path, monkeypatch):
    mark(tmp_path, "far-away", 1)

    def refuse(url):
        raise PermissionError(13, "Permission denied", url)

    monkeypatch.setattr(run_mark, "read_json", refuse)
    with pytest.raises(PermissionError):
        begin(tmp_path)
    assert (tmp_path / "train-000000.tar").exists()


@pytest.mark.parametrize("process", [None, 10**30])
def test_a_dead_run_of_this_host_is_cleared_away(tmp_path, process):
    mark(tmp_path, socket.gethostname(), process or dead_process())
    begin(tmp_path)
    assert os.listdir(tmp_path) == [".staging"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"host": "here"}'])
def test_a_mark_that_no_run_makes_does_not_keep_the_folder(tmp_path, content):
    mark(tmp_path, "here", 1)
    (tmp_path / ".staging" / "run.json").write_text(content)
    begin(tmp_path)
    assert os.listdir(tmp_path) == [".staging"]


GOOD_LINE = {"source": "a", "sha256": "0" * 64, "pixels": 1, "offset": 0, "image_bytes": 1, "row_bytes": 1}
GOOD_PIECE = {"url": "/a.tar", "offset_bytes": 0, "size_bytes": 9}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"reject": {"source": "a"}}',
        b'{"reject": 7}',
        b'{"source": 5, "piece": null}',
        b'{"source": "a", "secret_url": 5, "piece": null}',
        json.dumps({"source": "a", "piece": GOOD_PIECE | {"size_bytes": -1}}).encode(),
        json.dumps({"source": "a", "piece": GOOD_PIECE | {"offset_bytes": "x"}}).encode(),
        json.dumps(GOOD_LINE | {"sha256": "x"}).encode(),
        json.dumps(GOOD_LINE | {"source": ["a"]}).encode(),
        json.dumps(GOOD_LINE | {"offset": -1}).encode(),
    ],
)
@pytest.mark.parametrize("read", [lambda out: list(read_share(out, 0)), lambda out: list(batches.read_staged(out, 0))])
def test_notes_of_an_unfinished_run_that_are_damaged_are_refused_in_one_line(tmp_path, read, line):
    for name in ("plan/000000/000000.jsonl", "staged/000000/0000000000000000.jsonl"):
        path = tmp_path / ".staging" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\n" + line + b"\n")
    with pytest.raises(InputError, match=rf"jsonl is damaged at line 2 .*remove {tmp_path}/\.staging to start again"):
        read(str(tmp_path))


@pytest.mark.parametrize("plan", [7, [], {}, {"photographs": -1}])
def test_a_damaged_plan_is_refused_in_one_line(tmp_path, plan):
    (tmp_path / ".staging").mkdir()
    (tmp_path / ".staging" / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match=rf"plan\.json is damaged .*remove {tmp_path}/\.staging to start again"):
        read_plan(str(tmp_path))


@pytest.mark.parametrize("base", [7, [], {}, {"format_version": 1, "shards": {}}])
def test_notes_of_the_set_that_was_there_are_checked_as_a_set_is(tmp_path, base):
    (tmp_path / ".staging").mkdir()
    (tmp_path / ".staging" / "base.json").write_text(json.dumps(base))
    with pytest.raises(InputError, match=r"base\.json"):
        staging.read_base(str(tmp_path))


@pytest.mark.parametrize("configuration", [7, "x", ["a"]])
def test_options_that_no_run_has_keep_no_run_from_going_on(tmp_path, configuration):
    begin(tmp_path)
    run = json.loads((tmp_path / ".staging" / "run.json").read_text())
    (tmp_path / ".staging" / "run.json").write_text(json.dumps(run | {"configuration": configuration}))
    check_out(tmp_path)
