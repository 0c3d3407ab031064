import json
import os
import signal
import threading
import time
from contextlib import contextmanager

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from forks import Fork
from waiting import until

import pipelines.render_watch
from pipelines import cli
from pipelines.render import render
from pipelines.render_watch import render_arrivals, take_turns
from pipelines.terminal import jobs
from transforms.panoramas.handled import Handled
from transforms.panoramas.manifest import MANIFEST, read_manifest
from transforms.panoramas.requests import list_requests
from transforms.render import arrived, record
from transforms.render.arrived import StoreMessages
from transforms.render.look import Watched, begin_watch, watched_at
from transforms.render.options import RenderOptions
from transforms.storage import arrivals


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(arrivals, "EVERY_S", 0.05)


def request(name, seed=1, **fields):
    return {"id": name, "seed": seed, "width_px": 64, "height_px": 64, **fields}


def write(folder, name, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{name}").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f".{name}").rename(folder / name)


def states(out):
    return {row["id"]: row["state"] for row in read_manifest(str(out))} if (out / MANIFEST).exists() else {}


def notes(out):
    return sum(len(path.read_text().splitlines()) for path in (out / "watched").glob("*.txt"))


@pytest.fixture
def options(tiny_checkpoint, tmp_path):
    return RenderOptions((), str(tmp_path / "out"), tiny_checkpoint, tiles_per_shard=1)


@contextmanager
def watching(options, place, **fields):
    """Watches in another thread while the block runs."""
    stop, errors = threading.Event(), []

    def work():
        try:
            render_arrivals(options, Watched(str(place), options.out, **fields), stop)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    assert not errors


def at_once(options, out, *files):
    """Renders the requests of files by one run; returns the folder."""
    rows = [row for file in files for row in list_requests(str(file))]
    render(RenderOptions(tuple(rows), str(out), options.checkpoint, tiles_per_shard=1))
    return out


def test_what_arrives_is_rendered_as_one_run_would(options, tmp_path, contents):
    inside, out = tmp_path / "in", tmp_path / "out"
    with watching(options, inside):
        write(inside, "one.jsonl", request("a"), request("b", 2, width_px=128))
        until(lambda: states(out) == {"a": "done", "b": "done"})
        write(inside / "day", "two.jsonl", request("c", 3), request("a"))
        until(lambda: notes(out) == 2)
    assert states(out) == {"a": "done", "b": "done", "c": "done"}
    assert "c.png" in (out / "index.html").read_text()
    expected = at_once(options, tmp_path / "at-once", inside / "one.jsonl", inside / "day" / "two.jsonl")
    for part in ("panoramas", "patches", "thumbnails"):
        assert contents(out / part) == contents(expected / part)


def test_bad_rows_and_files_are_refused_with_their_reasons_and_others_go_on(options, tmp_path):
    inside, out = tmp_path / "in", tmp_path / "out"
    with watching(options, inside):
        write(inside, "1.jsonl", request("a"), request("narrow", width_px=0), request("a", 2), 7)
        until(lambda: notes(out) == 1)
        (inside / "bad.parquet").write_text("no table")
        (inside / "none.csv").write_text("id,seed\n")
        write(inside, "2.jsonl", request("a", 3), request("b"))
        until(lambda: notes(out) == 4)
    reasons = {row["id"]: row["reason"] for row in read_manifest(str(out)) if row["state"] == "refused"}
    assert states(out)["a"] == states(out)["b"] == "done"
    assert set(reasons) == {
        *("narrow", "1.jsonl, request 3", "1.jsonl, request 4"),
        *("2.jsonl, request 1", "bad.parquet", "none.csv"),
    }
    assert "occurs twice" in reasons["1.jsonl, request 3"]
    assert "another plan" in reasons["2.jsonl, request 1"]
    assert "--requests" not in "".join(reasons.values())


@pytest.mark.parametrize("keep_patches", [True, False])
def test_two_files_at_once_cannot_give_an_id_two_plans(tiny_checkpoint, tmp_path, keep_patches):
    inside, out = tmp_path / "in", tmp_path / "out"
    for number in range(4):
        write(inside, f"{number}.jsonl", request("a", number))
    with watching(RenderOptions((), str(out), tiny_checkpoint, keep_patches=keep_patches), inside):
        until(lambda: notes(out) == 4)
    assert sorted(states(out).values()) == ["done", *["refused"] * 3]
    assert not keep_patches or len(list((out / "patches" / "a").iterdir())) == 1


def test_defaults_and_relative_paths_are_those_of_the_command(options, tmp_path):
    inside, out = tmp_path / "in", tmp_path / "out"
    (inside).mkdir()
    (inside / "a.csv").write_text(f"id,seed,checkpoint\na,1,{options.checkpoint.rpartition('/')[2]}\n")
    defaults = {"width_px": 48, "height_px": 32}
    with watching(options, inside, defaults=defaults, folder=options.checkpoint.rpartition("/")[0]):
        until(lambda: states(out) == {"a": "done"})
    (row,) = read_manifest(str(out))
    assert (row["width_px"], row["height_px"]) == (48, 32)


def test_the_next_watch_reads_only_what_is_new(options, tmp_path, monkeypatch):
    inside, out = tmp_path / "in", tmp_path / "out"
    original, read = arrived.parse_rows, []
    monkeypatch.setattr(arrived, "parse_rows", lambda url, path: read.append(url) or original(url, path))
    write(inside, "one.jsonl", request("a"))
    with watching(options, inside):
        until(lambda: notes(out) == 1)
    read.clear()
    with watching(options, inside):
        write(inside, "two.jsonl", request("b"))
        until(lambda: notes(out) == 2)
    assert [name.rpartition("/")[2] for name in read] == ["two.jsonl"]


@pytest.mark.parametrize("name", ["a b\n*?[1].jsonl", os.fsdecode(b"\xff.jsonl"), "{a}#%20::\\.JSONL"])
def test_files_may_have_any_name(options, tmp_path, name):
    with watching(options, tmp_path / "in"):
        write(tmp_path / "in", name, request("a"), request("narrow", width_px=0), 7)
        until(lambda: len(states(tmp_path / "out")) == 3)
    assert sorted(states(tmp_path / "out").values()) == ["done", "refused", "refused"]


def test_a_job_is_tried_again_when_storage_fails(options, tmp_path, monkeypatch, capsys):
    failures = [OSError("the store is away")] * 2
    original = record.write_manifest
    monkeypatch.setattr(record, "write_manifest", lambda *how: fail_once(failures) or original(*how))
    monkeypatch.setattr(jobs, "WAITS_S", (0.1, 0.1))
    write(tmp_path / "in", "one.jsonl", request("a"))
    with watching(options, tmp_path / "in"):
        until(lambda: states(tmp_path / "out") == {"a": "done"})
    assert capsys.readouterr().err.count("the job is tried again: the store is away") == 2


def fail_once(failures):
    if failures:
        raise failures.pop()


def test_a_note_is_written_only_when_the_manifest_is(options, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "WAITS_S", ())

    def fail(*_):
        raise OSError("the store is gone")

    write(tmp_path / "in", "one.jsonl", request("a"))
    monkeypatch.setattr(record, "write_manifest", fail)
    with pytest.raises(OSError, match="the store is gone"):
        render_arrivals(options, Watched(str(tmp_path / "in"), options.out), threading.Event())
    handled = Handled(options.out)
    handled.refresh()
    assert not handled.digests
    assert (tmp_path / "out" / "panoramas" / "a.png").exists()
    monkeypatch.undo()
    with watching(options, tmp_path / "in"):
        until(lambda: states(tmp_path / "out") == {"a": "done"})


def test_requests_arrive_in_a_bucket(tiny_checkpoint, bucket):
    """The stores are those of `bucket`, which shows them one after the other."""
    out, place = f"{bucket}/out", f"{bucket}/in"
    arrivals.filesystem(place)[0].pipe_file(
        f"{arrivals.filesystem(place)[1]}/a.jsonl", json.dumps(request("a")).encode()
    )
    with watching(RenderOptions((), out, tiny_checkpoint), place):
        until(lambda: arrivals.filesystem(out)[0].exists(f"{out}/manifest.parquet"))
    assert [row["state"] for row in read_manifest(out)] == ["done"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--requests=r.jsonl"], "--requests"),
        (["--slice=1/2"], "--slice"),
        (["--repair"], "--repair"),
        (["--dry-run"], "--dry-run"),
    ],
)
def test_flags_that_a_watch_cannot_heed_are_refused(tmp_path, capsys, flags, reason):
    assert cli.run(["render", "--watch", str(tmp_path), "--out", str(tmp_path / "out"), *flags]) == 2
    assert f"cannot be combined with {reason}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--watch", "--requests"])
def test_an_empty_path_is_refused(tmp_path, capsys, flag):
    """As a variable gives it that is not set."""
    assert cli.run(["render", f"{flag}=", "--out", str(tmp_path / "out")]) == 2
    assert "is empty; give a value" in capsys.readouterr().err


def test_the_folder_of_the_job_cannot_be_watched(tmp_path, capsys):
    assert cli.run(["render", "--watch", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "the folder of --out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["nonsense://a", "ftp://example.org/requests"])
def test_places_that_cannot_be_listed_are_refused(tmp_path, capsys, place):
    assert cli.run(["render", "--watch", place, "--out", str(tmp_path / "out")]) == 2
    assert place.partition(":")[0] in capsys.readouterr().err


def test_messages_become_requests(options, tmp_path):
    """As they do on Dataflow, which alone receives them."""
    watched = watched_at("pubsub://my-project/requests", options.out, {}, "")
    messages = [json.dumps(request("a"), indent=2).encode(), b"nonsense", json.dumps(request("b")).encode()]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = pipeline | beam.Create(messages) | beam.ParDo(StoreMessages(watched.place))
    stop = threading.Event()
    thread = threading.Thread(target=take_turns, args=(options, watched, stop, None))
    begin_watch(watched)
    thread.start()
    until(lambda: len(states(tmp_path / "out")) == 3)
    stop.set()
    thread.join(60)
    assert sorted(states(tmp_path / "out").values()) == ["done", "done", "refused"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["pubsub://my-project/requests"], "only Dataflow"),
        (["pubsub://my-project"], "give pubsub://PROJECT/SUBSCRIPTION"),
        (["pubsub://my-project/requests", "--runner=prism"], "only Dataflow"),
    ],
)
def test_messages_that_cannot_be_received_are_refused(tmp_path, capsys, words, reason):
    assert cli.run(["render", "--watch", *words, "--out", str(tmp_path / "out")]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


WATCH = """
from pipelines.cli import main
from transforms.storage import arrivals

arrivals.EVERY_S = 0.05
main()
"""


def test_a_watch_that_is_killed_again_and_again_renders_everything_once(options, tmp_path, contents):
    inside, out = tmp_path / "in", tmp_path / "out"
    words = ("render", "--watch", inside, "--out", out, "--checkpoint", options.checkpoint, "--tiles-per-shard=1")
    for kill in range(4):
        process = Fork(WATCH, *words, "--quiet")
        for file in range(3):
            rows = [request(f"{kill}-{file}-{row}", row, width_px=64 + 32 * row) for row in range(3)]
            write(inside, f"{kill}-{file}.jsonl", *rows)
            time.sleep(0.3)
        until(lambda kill=kill: len(list((out / "panoramas").glob("*.json"))) >= 4 * kill)
        process.send(signal.SIGKILL)
        process.end(30)
    process = Fork(WATCH, *words)
    until(lambda: notes(out) >= 12)
    process.send(signal.SIGTERM)
    code, said = process.end(30)
    assert code == 0
    assert "Traceback" not in said
    assert len(states(out)) == 36
    assert set(states(out).values()) == {"done"}
    for unfinished in out.rglob("*.tmp-*"):  # a later run removes them, when they are old enough
        unfinished.unlink()
    expected = at_once(options, tmp_path / "at-once", *sorted(inside.glob("*.jsonl")))
    for part in ("panoramas", "patches", "thumbnails"):
        assert contents(out / part) == contents(expected / part)


def test_a_stream_looks_at_the_folder_and_records_what_becomes_of_it(options, tmp_path, monkeypatch):
    """The steps of a job on a cluster, as they are submitted."""
    submitted = []
    monkeypatch.setattr("pipelines.terminal.jobs.run_elsewhere", lambda pipeline, *_: submitted.append(pipeline))
    flags = PipelineOptions(["--runner=PortableRunner", "--job_endpoint=localhost:1"])
    render_arrivals(options, Watched(str(tmp_path), options.out), threading.Event(), flags)
    graph = submitted[0].to_runner_api()
    steps = {step.unique_name.split("/")[0] for step in graph.components.transforms.values()}
    assert {"Clock", "LookAgain", "TakeIn", "SynthesizePatches", "PublishShards", "Gather closed", "Record"} <= steps
    unbounded = [each for each in graph.components.pcollections.values() if each.is_bounded == 1]
    assert len(unbounded) > 20
    assert pipelines.render_watch.WINDOW_S >= 1
