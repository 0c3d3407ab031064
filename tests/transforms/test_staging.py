import json
import os
import socket
import subprocess

import pytest

from model.errors import InputError
from transforms import staging


def mark(out, host, process):
    """Leaves what a run of that process leaves."""
    (out / ".staging").mkdir(exist_ok=True)
    (out / ".staging" / "run.json").write_text(json.dumps({"host": host, "process": process}))
    (out / "train-000000.tar").write_bytes(b"x")


def dead_process():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_a_killed_run_left_is_cleared_away_and_nothing_else(tmp_path):
    gone = ["train-000000.tar", "val-000001.tar.tmp-0123456789ab-01234567", "index.parquet", ".staging/a.jpg"]
    kept = ["mine.tar", "train-1.tar", "photo.jpg", "index.parquet.bak"]
    (tmp_path / ".staging").mkdir()
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"x")
    staging.check_out(str(tmp_path))
    staging.begin(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted([".staging", *kept])
    assert os.listdir(tmp_path / ".staging") == ["run.json"]
    staging.finish(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    staging.begin(str(tmp_path))
    staging.check_out(str(tmp_path))
    sleeper = subprocess.Popen(["sleep", "60"])
    run = f'{{"host": "{socket.gethostname()}", "process": {sleeper.pid}}}'
    (tmp_path / ".staging" / "run.json").write_text(run)
    try:
        for refuse in (staging.check_out, staging.begin):
            with pytest.raises(
                InputError, match=f"is being written by process {sleeper.pid} of {socket.gethostname()}"
            ):
                refuse(str(tmp_path))
    finally:
        sleeper.kill()
        sleeper.wait()
    staging.check_out(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"), [("dataset.json", "already holds a data set"), ("train-000000.tar", "shards without")]
)
def test_a_folder_with_what_is_not_ours_to_remove_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        staging.check_out(str(tmp_path))
    with pytest.raises(InputError, match="is a file"):
        staging.check_out(str(tmp_path / name))


def test_a_run_on_another_host_is_refused_with_the_cure_and_not_discarded(tmp_path):
    mark(tmp_path, "far-away", dead_process())
    for refuse in (staging.check_out, staging.begin):
        with pytest.raises(
            InputError, match=r"is being written by process \d+ of far-away; wait for it or, if"
        ) as caught:
            refuse(str(tmp_path))
        assert "\n" not in str(caught.value)
        assert (tmp_path / "train-000000.tar").exists()
    cure = str(caught.value).split("remove ")[1]
    os.remove(cure)
    staging.begin(str(tmp_path))
    assert os.listdir(tmp_path) == [".staging"]


def test_a_process_of_another_user_is_alive(tmp_path, monkeypatch):
    mark(tmp_path, socket.gethostname(), 12345)

    def refuse(process, signal):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(staging.os, "kill", refuse)
    with pytest.raises(InputError, match="is being written by process 12345"):
        staging.begin(str(tmp_path))
    assert (tmp_path / "train-000000.tar").exists()


def test_a_mark_that_cannot_be_read_is_no_leave_to_discard(tmp_path, monkeypatch):
    mark(tmp_path, "far-away", 1)

    def refuse(url):
        raise PermissionError(13, "Permission denied", url)

    monkeypatch.setattr(staging, "read_json", refuse)
    with pytest.raises(PermissionError):
        staging.begin(str(tmp_path))
    assert (tmp_path / "train-000000.tar").exists()


@pytest.mark.parametrize("process", [None, 10**30])
def test_a_dead_run_of_this_host_is_cleared_away(tmp_path, process):
    mark(tmp_path, socket.gethostname(), process or dead_process())
    staging.begin(str(tmp_path))
    assert os.listdir(tmp_path) == [".staging"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"host": "here"}'])
def test_a_mark_that_no_run_makes_does_not_keep_the_folder(tmp_path, content):
    mark(tmp_path, "here", 1)
    (tmp_path / ".staging" / "run.json").write_text(content)
    staging.begin(str(tmp_path))
    assert os.listdir(tmp_path) == [".staging"]
