"""A run folder belongs to one run at a time, and is free again when that run is dead."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest

from model.errors import InputError
from transforms.training import run_lock
from transforms.training.run_lock import LOCK, Lease, locked

REPOSITORY = Path(__file__).parents[3]
HOLDER = """
import sys, time
from transforms.training.run_lock import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch):
    """Sets leases to last a second."""
    for name, seconds in (("BEAT_S", 0.1), ("DEAD_S", 1.5), ("SETTLE_S", 0.3)):
        monkeypatch.setattr(run_lock, name, seconds)


@pytest.fixture
def store():
    """Returns a folder in a store without locks."""
    return f"memory://{uuid.uuid4().hex}/run"


def names(url):
    """Returns the files in a folder of a store."""
    fs, path = fsspec.core.url_to_fs(url)
    return fs.ls(path, detail=False) if fs.exists(path) else []


def test_a_folder_is_one_runs_while_it_runs(tmp_path):
    url = str(tmp_path / "run")
    with locked(url) as check:
        check()
        with (
            pytest.raises(InputError, match=rf"run is in use by another run: process '{os.getpid()}' on "),
            locked(url),
        ):
            pass
        check()
    assert not list((tmp_path / "run").iterdir())
    with locked(url):
        pass


def test_a_lock_that_its_owner_removes_while_it_is_opened_is_made_again(tmp_path, monkeypatch):
    def flock(descriptor, how):
        if not removed:
            removed.append(os.remove(tmp_path / LOCK))
        real(descriptor, how)

    real, removed = fcntl.flock, []
    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(str(tmp_path)) as check:
        check()
        with pytest.raises(InputError, match="in use by another run"), locked(str(tmp_path)):
            pass
    assert removed


def test_of_two_runs_that_lease_a_store_at_the_same_moment_the_later_one_has_it(store, monkeypatch):
    earlier, later = Lease(store), Lease(store)
    monkeypatch.setattr(time, "sleep", lambda _: later.write())  # while the earlier run waits for the result
    with pytest.raises(InputError, match="in use by another run"):
        earlier.take()
    assert later.is_mine()


def test_an_error_frees_the_folder(tmp_path):
    with pytest.raises(KeyError), locked(str(tmp_path)):
        raise KeyError
    with locked(str(tmp_path)):
        pass


def test_a_killed_run_leaves_its_folder_free(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(InputError, match=f"in use by another run: process '{process.pid}'"), locked(str(tmp_path)):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / LOCK).exists()
    with locked(str(tmp_path)) as check:
        check()


def test_a_run_whose_lock_was_removed_finds_out(tmp_path):
    with locked(str(tmp_path)) as check:
        (tmp_path / LOCK).unlink()
        with locked(str(tmp_path)) as other:
            other()
            with pytest.raises(InputError, match="is no longer locked by this run"):
                check()
        assert not (tmp_path / LOCK).exists()


def test_a_store_is_one_runs_while_it_runs(quick, store, capsys):
    with locked(store) as check:
        for _ in range(2):
            with pytest.raises(InputError, match="is in use by another run"), locked(store):
                pass
        time.sleep(2)
        check()
    assert "to see whether it is alive" in capsys.readouterr().err
    assert names(store) == []


def test_a_store_whose_run_is_dead_is_taken_over(quick, store):
    Lease(store).take()  # and never renewed
    begin = time.monotonic()
    with locked(store) as check:
        check()
    assert time.monotonic() - begin < 5
    assert names(store) == []


def test_a_run_that_was_held_up_finds_out_that_its_folder_was_taken(quick, store):
    lease = Lease(store)
    lease.take()
    with locked(store) as check:
        with pytest.raises(InputError, match="is no longer locked by this run"):
            lease.check()
        lease.keep(threading.Event())  # returns at once
        lease.give_back()
        check()


def test_of_runs_that_come_at_the_same_moment_one_has_the_store(quick, store):
    results, barrier = [], threading.Barrier(5)

    def come():
        barrier.wait()
        try:
            with locked(store):
                results.append("had")
                time.sleep(1)
        except InputError:
            results.append("refused")

    threads = [threading.Thread(target=come) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["had", *4 * ["refused"]]


def test_a_store_that_fails_now_and_then_costs_no_run_its_folder(quick, store, monkeypatch, capsys):
    write = run_lock.write_json
    answers = iter([None, OSError("busy"), OSError("busy")])

    def fail_sometimes(*arguments):
        error = next(answers, None)
        if error:
            raise error
        write(*arguments)

    monkeypatch.setattr(run_lock, "write_json", fail_sometimes)
    with locked(store) as check:
        time.sleep(0.5)
        check()
    assert capsys.readouterr().err.count("cannot be renewed now: busy") == 2


@pytest.mark.parametrize("content", [b"\xff", b"[]", b"[" * 100_000])
def test_a_lock_that_cannot_be_read_is_a_dead_runs(quick, store, content):
    fsspec.filesystem("memory").pipe(f"{store}/{LOCK}", content)
    with locked(store) as check:
        check()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_mounted_file_system_without_locks_is_used_as_a_store(quick, tmp_path, monkeypatch, number):
    def flock(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(str(tmp_path)) as check:
        check()
        with pytest.raises(InputError, match="is in use by another run"), locked(str(tmp_path)):
            pass
    assert not list(tmp_path.iterdir())
