"""Two runs of one job at the same time, each stopped at any point: the result is that of one."""

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from model.errors import InputError
from pipelines.ingest import ingest
from pipelines.render import render
from pipelines.terminal.failures import JobFailedError
from transforms.ingest.options import IngestOptions
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.storage import files
from transforms.storage.fence import Fenced

PHOTOGRAPHS = tuple(map(str, sorted((Path(__file__).parents[2] / "samples").glob("*.jpg"))[:3]))
WAIT_S = 60


class Gates:
    """Stops runs where they begin to write or remove a file.

    Attributes:
        passed: how often each run has come to a gate, by its id.
        stops: what each run waits for, by the place of the run and the number of the gate.
        reached: set when a run is about to wait there.
    """

    def __init__(self):
        self.passed, self.stops, self.reached = Counter(), {}, {}
        self._lock, self._filesystem = threading.Lock(), files.filesystem

    def filesystem(self, url):
        """Stands in for the function that every access to a file begins with."""
        if isinstance(url, Fenced):
            with self._lock:
                self.passed[url.fence] += 1
                here = (list(self.passed).index(url.fence), self.passed[url.fence])
            if here in self.stops:
                self.reached[here].set()
                assert self.stops[here].wait(WAIT_S)
        return self._filesystem(url)

    def stop(self, run, number):
        """Returns two events: the run has come to the gate, and it may go on."""
        self.reached[run, number], self.stops[run, number] = threading.Event(), threading.Event()
        return self.reached[run, number], self.stops[run, number]


@pytest.fixture
def gates(monkeypatch):
    gates = Gates()
    monkeypatch.setattr(files, "filesystem", gates.filesystem)
    return gates


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Returns the folder of an undisturbed run, and the number of gates on its way."""
    out = tmp_path_factory.mktemp("alone") / "set"
    with pytest.MonkeyPatch.context() as patch:
        gates = Gates()
        patch.setattr(files, "filesystem", gates.filesystem)
        ingest(IngestOptions(PHOTOGRAPHS, str(out)))
    return out, gates.passed.total()


@pytest.mark.parametrize("seed", range(5))
def test_two_ingests_end_with_the_bytes_of_one(seed, alone, gates, contents, tmp_path):
    """The first run stops somewhere; the second takes over and stops somewhere, while the first one goes on."""
    draw, (expected, number) = random.Random(seed), alone
    options, failed = IngestOptions(PHOTOGRAPHS, str(tmp_path / "set")), []
    first_stops, first_goes_on = gates.stop(0, draw.randrange(1, number // 2))
    second_stops, second_goes_on = gates.stop(1, draw.randrange(2, number // 2))

    def first():
        try:
            ingest(options)
        except (InputError, OSError, JobFailedError) as error:
            failed.append(error)

    def go_on():
        if second_stops.wait(WAIT_S):
            first_goes_on.set()
            older.join(WAIT_S)
            second_goes_on.set()

    older, switch = threading.Thread(target=first), threading.Thread(target=go_on)
    older.start()
    assert first_stops.wait(WAIT_S)
    switch.start()
    ingest(options)
    first_goes_on.set()
    older.join(WAIT_S)
    switch.join(WAIT_S)
    assert len(failed) == 1
    assert "was replaced by run" in str(failed[0]) or "has ended" in str(failed[0])
    assert contents(tmp_path / "set") == contents(expected)


def panorama(out, checkpoint, seed):
    request = RenderRequest(id="p", seed=seed, width_px=200, height_px=64, formats=("png", "dzi"))
    return RenderOptions((request,), str(out), checkpoint, 64, 1, replace=True)


@pytest.fixture(scope="module")
def rendered(tiny_checkpoint, tmp_path_factory):
    """Returns the contents of the folder of an undisturbed job, and the number of gates on its way."""
    out = tmp_path_factory.mktemp("rendered") / "out"
    with pytest.MonkeyPatch.context() as patch:
        gates = Gates()
        patch.setattr(files, "filesystem", gates.filesystem)
        render(panorama(out, tiny_checkpoint, 8))
    return out, gates.passed.total()


@pytest.mark.parametrize("seed", range(4))
def test_a_panorama_that_was_replaced_stays_so(seed, rendered, gates, contents, tiny_checkpoint, tmp_path):
    """The first job stops somewhere; the second replaces its panorama; then the first one goes on."""
    draw, (expected, number), out = random.Random(seed), rendered, tmp_path / "out"
    stopped, goes_on = gates.stop(0, draw.randrange(1, number))
    older = threading.Thread(target=render, args=(panorama(out, tiny_checkpoint, 7),))
    older.start()
    assert stopped.wait(WAIT_S)
    render(panorama(out, tiny_checkpoint, 8))
    goes_on.set()
    older.join(WAIT_S)
    assert contents(out) == contents(expected)
