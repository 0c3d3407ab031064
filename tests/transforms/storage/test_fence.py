"""Whatever a run does after a newer one has begun, or after its own end, changes nothing."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import time

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InputError
from transforms.storage import files
from transforms.storage.fence import RUN, Fenced, RunFence, StaleRunError, alone_in
from transforms.storage.files import join, open_atomic, read_bytes, remove, write_bytes, write_json

LARGE = files.SINGLE_CALL_BYTES + 1


def begin(folder, run):
    """Makes a run the current one; returns the folder behind its fence."""
    folder = str(folder)
    mark = join(folder, ".mark.json")
    with alone_in(folder):
        write_json(mark, {RUN: run})
    return Fenced(folder, RunFence(folder, mark, run))


def end(out):
    with alone_in(out):
        remove(out.fence.mark)


@pytest.fixture(params=["disk", "memory", "gs", "s3"])
def folder(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path)
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    return f"{request.getfixturevalue(request.param)}/{tmp_path.name}"


def test_the_fence_goes_where_the_url_goes(tmp_path):
    out = begin(tmp_path, "a")
    file = pickle.loads(pickle.dumps(join(out, "x", "y")))
    assert (file, file.fence) == (str(tmp_path / "x" / "y"), out.fence)
    assert type(str(file)) is str


@pytest.mark.parametrize("size_bytes", [3, LARGE])
def test_only_the_current_run_writes_and_removes(folder, size_bytes):
    old = begin(folder, "old")
    write_bytes(join(old, "file"), b"o" * size_bytes)
    write_bytes(join(old, "file"), b"p" * size_bytes)
    new = begin(folder, "new")
    for change in (lambda: write_bytes(join(old, "file"), b"x" * size_bytes), lambda: remove(join(old, "file"))):
        with pytest.raises(StaleRunError, match=r"run old .* was replaced by run new"):
            change()
    assert read_bytes(join(folder, "file"))[:1] == b"p"
    write_bytes(join(new, "file"), b"n" * size_bytes)
    end(new)
    with pytest.raises(StaleRunError, match=r"run new .* has ended"):
        write_bytes(join(new, "other"), b"x")
    assert read_bytes(join(folder, "file")) == b"n" * size_bytes
    assert not files.exists(join(folder, "other"))


@pytest.mark.parametrize("was_there", [False, True])
def test_a_write_that_is_late_by_a_hair_changes_nothing(folder, was_there, monkeypatch):
    """The older run's worker is frozen between its last look at the mark and the write itself.

    For uploads in parts, the stores on this machine ignore the condition that the real ones heed.
    """
    if not folder.startswith(("gs", "s3")):
        pytest.skip("on disk a lock makes this impossible")
    old = begin(folder, "old")
    if was_there:
        write_bytes(join(folder, "file"), b"before")
    look, looks = files.check_current, []

    def look_and_freeze(url, fs):
        look(url, fs)
        looks.append(url)
        if len(looks) == 1:  # just before the write
            write_bytes(join(begin(folder, "new"), "file"), b"new")

    monkeypatch.setattr(files, "check_current", look_and_freeze)
    with pytest.raises(StaleRunError), open_atomic(join(old, "file")) as file:
        file.write(b"old")
    assert read_bytes(join(folder, "file")) == b"new"


def hold(folder, held):
    """Stops within a write of a run, as a frozen worker does."""
    replace = os.replace

    def freeze(*paths):
        held.set()
        os.kill(os.getpid(), signal.SIGSTOP)
        replace(*paths)

    os.replace = freeze
    fence = RunFence(folder, join(folder, ".mark.json"), "old")
    write_bytes(join(Fenced(folder, fence), "file"), b"old")


def test_a_worker_frozen_in_a_write_holds_a_new_run_up(tmp_path, monkeypatch):
    begin(tmp_path, "old")
    forks = multiprocessing.get_context("fork")
    held = forks.Event()
    worker = forks.Process(target=hold, args=(str(tmp_path), held))
    worker.start()
    assert held.wait(30)
    time.sleep(0.1)
    monkeypatch.setattr("transforms.storage.fence.STUCK_S", 0.3)
    with pytest.raises(InputError, match="locked by a worker of an older run"):
        begin(tmp_path, "new")
    os.kill(worker.pid, signal.SIGCONT)
    worker.join(30)
    begin(tmp_path, "new")
    assert (tmp_path / "file").read_bytes() == b"old"


STEPS = ("begin", "write a", "write b", "remove b", "end")
"""What a run does, in this order; each run writes other bytes."""


@settings(max_examples=60)
@given(order=st.lists(st.booleans(), min_size=2 * len(STEPS), max_size=2 * len(STEPS)))
def test_two_runs_in_any_order_end_with_the_bytes_of_one(order, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("runs"))
    outs, at, completed = {}, {"1": 0, "2": 0}, []

    def step(run):
        what, out = STEPS[at[run]], outs.get(run)
        at[run] += 1
        if what == "begin":
            outs[run] = begin(folder, run)
        elif what.startswith("write"):
            write_bytes(join(out, what[-1]), run.encode())
        elif what.startswith("remove"):
            remove(join(out, what[-1]))
        else:
            files.check_current(out, fsspec.filesystem("file"))
            end(out)
            completed.append(run)

    for first in [*order, *[True] * len(STEPS), *[False] * len(STEPS)]:
        run = "1" if first else "2"
        if at[run] < len(STEPS):
            with contextlib.suppress(StaleRunError):
                step(run)
    there = {name: read_bytes(join(folder, name)).decode() for name in files.list_files(folder)}
    last = completed[-1]
    assert there == {"a": last}, (completed, there)


def test_a_folder_without_a_fence_is_as_before(tmp_path):
    write_bytes(join(str(tmp_path), "file"), b"x")
    assert (tmp_path / "file").read_bytes() == b"x"
