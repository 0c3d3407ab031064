import threading
import time

import pytest

from transforms.panoramas.handled import Handled
from transforms.panoramas.manifest import read_manifest, refused_row
from transforms.panoramas.requests import RequestFile
from transforms.render import record
from transforms.render.look import Arrived
from transforms.render.record import Closed, Record, close

FILE = Arrived(RequestFile("/in/a.jsonl"), b"a" * 16)


class State:
    """A state of a step, of any kind."""

    def __init__(self):
        self.values = []

    def add(self, value):
        self.values.append(value)

    def write(self, value):
        self.values = [value]

    def clear(self):
        self.values = []


class Bag(State):
    def read(self):
        return list(self.values)


class Value(State):
    def read(self):
        return self.values[0] if self.values else None


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Returns a function that gives an input to the step, some seconds later; it returns what is written by then."""
    step, states, now_s = Record(str(tmp_path)), (Bag(), Value(), Value()), time.time()

    def recorded(item, later_s=0.0):
        nonlocal now_s
        now_s += later_s
        monkeypatch.setattr(record.time, "time", lambda: now_s)
        step.process(("", item), *states)
        rows = [row["id"] for row in read_manifest(str(tmp_path))] if (tmp_path / "manifest.parquet").exists() else []
        handled = Handled(str(tmp_path))
        handled.refresh()
        return rows, handled.digests, (tmp_path / "index.html").exists()

    return recorded


def test_a_window_that_ends_is_recorded_at_once(recorded):
    item = close(("", [refused_row("b", "why"), FILE, refused_row("a", "why")]))[1]
    assert recorded(item) == (["a", "b"], {FILE.digest}, False)
    assert recorded(None, 1) == (["a", "b"], {FILE.digest}, True)


def test_a_row_is_shown_before_its_window_ends_but_its_file_is_not_noted(recorded):
    assert recorded(refused_row("a", "why")) == ([], set(), False)
    assert recorded(None, 5) == ([], set(), False)
    assert recorded(refused_row("b", "why")) == ([], set(), False)
    assert recorded(None, 6) == (["a", "b"], set(), False)
    assert recorded(None, 1) == (["a", "b"], set(), True)


def test_files_without_requests_are_noted(recorded):
    assert recorded(Closed({}, {FILE.digest: FILE.file.url})) == ([], {FILE.digest}, False)
    assert recorded(None, 60) == ([], {FILE.digest}, False)


def test_an_idle_clock_writes_nothing(recorded):
    for _ in range(3):
        assert recorded(None, 60) == ([], set(), False)


def test_one_thread_handles_the_manifest_whatever_threads_run_the_step(tmp_path, monkeypatch):
    """Arrow keeps memory for each thread that handles tables, and a worker has dozens of threads."""
    threads = set()
    monkeypatch.setattr(record, "write_manifest", lambda *_: threads.add(threading.get_ident()))
    monkeypatch.setattr(record, "write_index", lambda *_: threads.add(threading.get_ident()))

    def work():
        step = Record(str(tmp_path))
        step.write({"a": refused_row("a", "why")}, {})
        step.write_page()

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(threads) == 1
