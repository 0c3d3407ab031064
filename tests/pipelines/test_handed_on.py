"""What a job has read or worked out it hands on: a job asks for each thing once, whichever of its parts needs it."""

import sys
from collections import Counter

import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

import model.checkpoint
import model.world.definition
import pipelines.edit
import pipelines.fuse
import pipelines.outpaint
import pipelines.render  # noqa: F401 - what the commands load later would keep what is patched here
import transforms.panoramas.folder
import transforms.panoramas.overlays
import transforms.render.planner
from pipelines.cli import run
from transforms.applications.invert import load_generator

COUNTED = (
    (model.checkpoint, "load_checkpoint"),
    (transforms.panoramas.folder, "look_for"),
    (transforms.panoramas.folder, "look_up"),
    (transforms.panoramas.folder, "is_complete"),
    (transforms.panoramas.folder, "existing_shards"),
    (transforms.panoramas.folder, "read_record"),
    (transforms.panoramas.overlays, "read_overlay"),
)


@pytest.fixture
def calls(monkeypatch):
    """Counts calls by name, wherever a function has been imported to."""
    counted: Counter[str] = Counter()

    def counting(name, function):
        def wrapper(*arguments, **named):
            counted[name] += 1
            return function(*arguments, **named)

        return wrapper

    ours = [
        module for name, module in sys.modules.items() if name.split(".")[0] in ("model", "transforms", "pipelines")
    ]
    for owner, name in COUNTED:
        function = getattr(owner, name)
        for module in ours:
            if vars(module).get(name) is function:
                monkeypatch.setattr(module, name, counting(name, function))
    definition = model.world.definition.Definition
    monkeypatch.setattr(definition, "__post_init__", counting("Definition", definition.__post_init__))
    plan, listed = transforms.render.planner.Planner.plan, LocalFileSystem.ls
    monkeypatch.setattr(transforms.render.planner.Planner, "plan", counting("plan", plan))
    monkeypatch.setattr(LocalFileSystem, "ls", counting("ls", listed))
    return counted


@pytest.fixture
def start(calls, tiny_checkpoint):
    """Runs a command; returns what it called, and how often."""

    def start(*arguments):
        load_generator.cache_clear()  # another test of this process may have inverted with the same checkpoint
        calls.clear()
        code = run([*map(str, arguments), "--checkpoint", tiny_checkpoint])
        assert code == 0
        return Counter(calls)

    return start


SIZE = ("--width", 300, "--height", 64, "--tile", 64)
NEW = {"plan": 2, "load_checkpoint": 2, "look_for": 1, "look_up": 0, "is_complete": 0}
"""The calls of a job in an empty folder: planner and worker load a checkpoint each. The process that submits the job
plans its first request, and looks for its id, to see whether any can be rendered."""


def of(called, *names):
    return {name: called[name] for name in names}


def test_a_new_job_asks_storage_for_nothing_about_its_panoramas(start, tmp_path):
    called = start("render", *SIZE, "--out", tmp_path / "render")
    assert of(called, *NEW) == NEW
    assert of(called, "existing_shards", "read_record") == {"existing_shards": 0, "read_record": 1}  # by assembly
    assert called["Definition"] == 2
    called = start("fuse", "--styles", "3,8", *SIZE, "--out", tmp_path / "fuse")
    assert of(called, *NEW) == {**NEW, "plan": 3, "look_for": 2}


def test_a_resume_asks_once_for_what_is_left(start, tmp_path):
    flags = ("render", *SIZE, "--out", tmp_path)
    start(*flags)
    called = start(*flags)
    known = {"plan": 2, "look_for": 1, "look_up": 1, "is_complete": 0}
    assert of(called, *known) == known
    assert of(called, "read_record", "existing_shards", "load_checkpoint") == {
        "read_record": 1,
        "existing_shards": 0,
        "load_checkpoint": 1,
    }
    finished_ls = called["ls"]

    next((tmp_path / "panoramas").glob("*.json")).unlink()
    next((tmp_path / "patches").rglob("*.tar")).unlink()
    called = start(*flags)
    known = {"plan": 3, "look_for": 1, "look_up": 2, "is_complete": 1}
    assert of(called, *known) == known
    assert of(called, "read_record", "existing_shards", "load_checkpoint") == {
        "read_record": 3,  # to submit the job, to begin the panorama, and to assemble it, minutes later
        "existing_shards": 1,
        "load_checkpoint": 2,
    }
    assert finished_ls < called["ls"]


def test_what_is_done_is_asked_for_by_one_listing(start, tmp_path):
    requests = tmp_path / "requests.csv"
    requests.write_text("id,seed,width_px,height_px\n" + "".join(f"p{n},{n},64,64\n" for n in range(5)))
    flags = ("render", "--requests", requests, "--tile", 64, "--out", tmp_path / "out")
    first = start(*flags)
    assert of(first, "plan", "look_for", "is_complete", "load_checkpoint") == {
        "plan": 6,
        "look_for": 1,
        "is_complete": 0,
        "load_checkpoint": 2,
    }
    again = start(*flags)
    assert of(again, "is_complete", "look_up", "read_record") == {"is_complete": 0, "look_up": 1, "read_record": 1}


def test_an_edit_reads_its_checkpoint_once_to_plan(start, tmp_path):
    start("render", *SIZE, "--out", tmp_path)
    (record,) = (tmp_path / "panoramas").glob("*.json")
    called = start("edit", record, "--box", "100,-20,40,40", "--seed", 5)
    expected = {"plan": 4, "load_checkpoint": 2, "look_for": 2, "look_up": 3, "is_complete": 1}
    assert of(called, *expected) == expected
    assert called["Definition"] <= 4  # as it is, as it becomes, as a worker reads it, as it was when it was computed


def test_outpainting_reads_its_checkpoint_once_to_plan(start, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(levels).resize((256, 192)).save(tmp_path / "p.png")
    flags = ("outpaint", tmp_path / "p.png", "--left", 100, "--size", "64x48", "--steps", 1, "--tile", 64)
    called = start(*flags, "--out", tmp_path / "out")
    # Planned without the photograph first, so that what cannot be is said before it is inverted.
    assert of(called, *NEW) == {**NEW, "plan": 4, "look_for": 3, "load_checkpoint": 3}
    assert called["read_overlay"] == 2
