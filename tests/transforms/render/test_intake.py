"""Rows of requests: each becomes work, or is refused; ids are independent of each other."""

import json
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.panoramas.folder import Known
from transforms.panoramas.requests import RequestFile, Row
from transforms.render import intake as intakes
from transforms.render.intake import ROWS, Batch, Intake, TakeIn
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner

FILE = RequestFile("/somewhere/r.jsonl")


def values(name, seed=7, **others):
    return {"id": name, "seed": seed, "width_px": 64, "height_px": 64, **others}


def numbered(*rows):
    return [Row(number, row) for number, row in enumerate(rows, start=1)]


@pytest.fixture
def intake(tiny_checkpoint, tmp_path):
    return Intake(RenderOptions((), str(tmp_path / "out"), tiny_checkpoint, 64, 1), Planner())


def unknown(request_id):
    return None


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["good", "narrow", "laid", "nameless"])),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=60)
def test_the_first_row_of_an_id_that_can_be_rendered_is(tiny_checkpoint, tmp_path_factory, drawn):
    """A row may be refused as it is read, or as it is planned; only a row that is rendered takes an id."""
    kinds = {
        "good": lambda name, seed: values(name, seed),
        "narrow": lambda name, seed: values(name, seed, width_px=0),
        "laid": lambda name, seed: values(name, seed, overlays=["/none.overlay"]),
        "nameless": lambda name, seed: values(None, seed),
    }
    rows = numbered(*(kinds[kind](name, seed) for seed, (name, kind) in enumerate(drawn)))
    options = RenderOptions((), str(tmp_path_factory.mktemp("out")), tiny_checkpoint, 64)
    taken = Intake(options, Planner(), begins=False).take(FILE, rows, unknown)
    first = {}
    for number, (name, kind) in enumerate(drawn, start=1):
        if kind == "good":
            first.setdefault(name, number)
    assert {work.plan.request.id: number for number, work in taken.work.items()} == first
    assert all(work.plan.request.seed == number - 1 for number, work in taken.work.items())
    assert len(taken.work) + len(taken.refused) == len(drawn)
    names = [name for name, _ in taken.refused.values()]
    assert len(set(names)) == len(names)
    for number, (request_id, reason) in taken.refused.items():
        name, kind = drawn[number - 1]
        assert request_id == f"r.jsonl, request {number}" or (request_id == name and name not in first)
        assert kind == "nameless" or request_id == name or name in first or name in names
        said = {"good": "occurs twice", "narrow": "width_px is 0", "laid": "", "nameless": "id is missing"}[kind]
        assert said in reason


def test_taking_rows_in_again_gives_the_same(intake):
    rows = numbered(values("a"), values("b"), values("a", 8))
    first = intake.take(FILE, rows, unknown)
    again = intake.take(FILE, rows, lambda request_id: Known())
    assert first.work == again.work
    assert again.refused == {3: ("r.jsonl, request 3", "request id a occurs twice; each panorama needs its own")}


def test_batches_of_a_stream_share_only_the_folder(tiny_checkpoint, tmp_path):
    """A row of a later batch whose id has another plan is refused; the same row again is the same work."""
    options = RenderOptions((), str(tmp_path / "out"), tiny_checkpoint, 64, 1)
    batches = [numbered(values("a"), values("b")), numbered(values("a", 8), values("b"), values("c", width_px=0))]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        taken = (
            pipeline
            | beam.Create([Batch(FILE, tuple(rows)) for rows in batches])
            | beam.ParDo(TakeIn(options)).with_outputs(ROWS, main="work")
        )
        seeds = taken.work | beam.Map(lambda work: (work.plan.request.id, work.plan.request.seed))
        assert_that(seeds, equal_to([("a", 7), ("b", 7), ("b", 7)]), "work")
        states = taken[ROWS] | beam.Map(lambda row: (row["id"], row["state"]))
        rows = [("a", "failed"), ("b", "failed"), ("b", "failed"), ("r.jsonl, request 1", "refused"), ("c", "refused")]
        assert_that(states, equal_to(rows), "rows")
    (plan,) = (tmp_path / "out" / "patches" / "a").glob("*/plan.json")
    assert json.loads(plan.read_text())["request"]["seed"] == 7


def test_a_checkpoint_that_comes_late_is_found_by_a_job_without_end(tiny_checkpoint, tmp_path, monkeypatch):
    late = tmp_path / "late.safetensors"
    step = TakeIn(RenderOptions((), str(tmp_path / "out"), str(late)))

    def state(name):
        step.start_bundle()
        outputs = list(step.process(Batch(FILE, tuple(numbered(values(name))))))
        return outputs[0].value["state"]

    step.setup()
    assert state("a") == "refused"
    late.write_bytes(Path(tiny_checkpoint).read_bytes())
    assert state("b") == "refused"
    monkeypatch.setattr(intakes, "CHECKPOINTS_KEPT_S", 0)
    assert state("c") == "failed"  # not finished
