"""Requests are found, read and planned by workers; the job's graph does not depend on them."""

import json

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

import transforms.panoramas.folder
import transforms.panoramas.requests
import transforms.render.find_work
import transforms.render.planner
from model.errors import InputError
from pipelines.render import RenderPanoramas, render
from pipelines.terminal.beam_flags import beam_options
from transforms.panoramas.manifest import read_manifest
from transforms.panoramas.requests import RenderRequest, RequestFile
from transforms.render.find_work import NEIGHBOURS, FindWork, TakeRequests, almost_in_order
from transforms.render.job_folder import JobFolder
from transforms.render.options import RenderOptions
from transforms.workers.packs import BUCKETS, bucket_of, pack, unpack

SIZE = {"width_px": 32, "height_px": 32}


def write(path, count, start=0):
    path.write_text("".join(json.dumps({"id": f"p{n:06d}", "seed": n, **SIZE}) + "\n" for n in range(start, count)))
    return RequestFile(str(path))


@pytest.fixture
def graph(tiny_checkpoint, tmp_path):
    """Returns a function that returns the size of the graph of a job."""

    def graph(requests):
        pipeline = beam.Pipeline(options=beam_options([]))
        _ = pipeline | RenderPanoramas(RenderOptions(requests, str(tmp_path / "out"), tiny_checkpoint, 64))
        return pipeline.to_runner_api().ByteSize()

    return graph


def test_the_graph_has_one_size_for_any_number_of_requests(graph, tmp_path):
    few, many = (graph(write(tmp_path / f"{count:06d}.jsonl", count)) for count in (10, 100_000))
    assert abs(many - few) < 0.01 * few
    few, many = (
        graph(tuple(RenderRequest(id=f"p{n:04d}", seed=n, **SIZE) for n in range(count))) for count in (10, 2000)
    )
    assert abs(many - few) < 0.01 * few


@pytest.mark.parametrize("runner", ["FnApiRunner", "BundleBasedDirectRunner"])
def test_work_comes_about_in_the_order_of_the_requests_once_all_are_listed(runner, tiny_checkpoint, tmp_path):
    count, out = 100, str(tmp_path / "out")
    take = TakeRequests(
        RenderOptions((), out, tiny_checkpoint, 64), write(tmp_path / "r.jsonl", count), JobFolder(f"{out}/job")
    )
    seen = tmp_path / "seen"

    def look(work):
        states = {row["id"]: row["state"] for row in read_manifest(out)}
        with seen.open("a") as file:
            file.write(f"{work.plan.request.seed} {len(states)} {states[work.plan.request.id]}\n")
        return work.plan.request.seed

    with beam.Pipeline(runner=runner) as pipeline:
        assert_that(pipeline | FindWork(take) | beam.Map(look), equal_to(list(range(count))))
    lines = [line.split() for line in seen.read_text().splitlines()]
    assert {tuple(line[1:]) for line in lines} == {(str(count), "failed")}
    if runner == "FnApiRunner":
        order = [(int(line[0]) + 1) // NEIGHBOURS for line in lines]
        assert order == sorted(order)


def test_neighbours_are_worked_on_in_any_order():
    assert sorted(almost_in_order((0, [None, (2, "b"), (1, "a")]), ()), key=str) == ["a", "b"]


def test_lines_of_a_name_come_to_one_bucket_as_they_are():
    names = [f"{number % 1000}" for number in range(100_000)] + ["\udc80é\u2028"]
    packs = list(pack((name, f"{name}:{place}") for place, name in enumerate(names)))
    found = {}
    for bucket, packed in packs:
        for line in unpack(packed):
            name, place = line.rsplit(":", 1)
            assert bucket_of(name) == bucket < BUCKETS
            found[int(place)] = name
    assert [found[place] for place in range(len(names))] == names
    assert len(packs) < len(names) / 50


def test_what_is_done_is_found_without_a_call_for_each(tiny_checkpoint, tmp_path, monkeypatch):
    file, out = write(tmp_path / "r.jsonl", 12), str(tmp_path / "out")
    options = RenderOptions(file, out, tiny_checkpoint, 64)
    assert {row["state"] for row in render(options)} == {"done"}
    looked = []
    for module, name in ((transforms.render.planner, "look_up"), (transforms.panoramas.folder, "read_record")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *words, call=original: looked.append(words) or call(*words))
    before = (tmp_path / "out" / "manifest.parquet").stat().st_mtime_ns
    assert {row["state"] for row in render(options)} == {"done"}
    assert len(looked) <= 2, "only by the process that submits the job, for one request"
    assert (tmp_path / "out" / "manifest.parquet").stat().st_mtime_ns == before
    (tmp_path / "out" / "panoramas" / "p000003.png").unlink()
    looked.clear()
    assert {row["state"] for row in render(options)} == {"done"}
    assert {words[1] if isinstance(words[1], str) else words[1].request.id for words in looked} <= {
        "p000000",
        "p000003",
    }
    assert (tmp_path / "out" / "panoramas" / "p000003.png").exists()
    assert [name for name in (tmp_path / "out").iterdir() if ".tmp-" in name.name] == []


def test_a_file_that_is_damaged_behind_its_first_rows_is_one_line(tiny_checkpoint, tmp_path, monkeypatch):
    file = write(tmp_path / "r.jsonl", 50)
    monkeypatch.setattr(transforms.panoramas.requests, "MOST_REQUESTS", 40)
    with pytest.raises(InputError, match="lists more than 40 requests"):
        render(RenderOptions(file, str(tmp_path / "out"), tiny_checkpoint, 64))
    assert not (tmp_path / "out").exists()


def test_secrets_in_requests_are_stored_nowhere(tmp_path):
    secret = "s3://key:password@bucket/x.overlay"
    request = RenderRequest(id="p", seed=1, overlays=(secret,), checkpoint="https://u:pw@h/c?token=abc", **SIZE)
    file = JobFolder(str(tmp_path)).store((request,), copies=False)
    stored = (tmp_path / "requests.jsonl").read_text()
    assert "password" not in stored
    assert "abc" not in stored
    assert [file.parse(row.values) for row in file.rows()] == [request]
