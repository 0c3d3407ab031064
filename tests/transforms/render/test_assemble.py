import io
import json
import tracemalloc

import apache_beam as beam
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image

import transforms.formats.layout
import transforms.formats.tiff
import transforms.panoramas.seams
import transforms.render.assemble
from model.errors import InputError
from transforms.formats.registry import FORMATS
from transforms.panoramas.folder import read_record
from transforms.panoramas.manifest import MANIFEST_SCHEMA, manifest_row, read_manifest, write_manifest
from transforms.panoramas.patch_shards import write_patch_shard
from transforms.panoramas.plan import Failure, plan_from_json
from transforms.render.assemble import AssembleRest, assemble_panorama
from transforms.render.work import missing_shards


def store(out, plan, painted, lost=()):
    """Stores a plan's shards, except for the lost ones."""
    for number, shard in enumerate(missing_shards(plan, [], 4)):
        if number not in lost:
            write_patch_shard(str(out), shard, painted.samples(shard))


@pytest.fixture
def plan(plan_of):
    return plan_of(150, 70, origin_x_px=-40, formats=("tif", "png"))


def test_a_panorama_is_its_patches_side_by_side(plan, painted, tmp_path):
    store(tmp_path, plan, painted)
    row = assemble_panorama(str(tmp_path), plan, [], "1.2")
    assert (row["state"], row["reason"], row["seam_max_difference"]) == ("done", None, 0)
    with Image.open(tmp_path / "panoramas" / "p.png") as image:
        np.testing.assert_array_equal(np.asarray(image), painted.levels(plan))
        assert image.info["Software"] == "infinitygan 1.2"
    record = json.loads((tmp_path / "panoramas" / "p.json").read_text())
    assert record["version"] == "1.2"
    assert record["request"] == plan.to_json()["request"]
    assert list(record["files"]) == ["png", "tif"]
    assert record["seam_audit"] == {"borders": 38, "max_difference": 0, "differing_share": 0.0}


def test_the_checksum_does_not_depend_on_the_format(plan_of, painted, tmp_path):
    checksums = set()
    for name in ("png", "tif"):
        plan = plan_of(150, 70, id=name, formats=(name,))
        store(tmp_path, plan, painted)
        checksums.add(assemble_panorama(str(tmp_path), plan, [], "1")["pixel_sha256"])
    assert len(checksums) == 1


@pytest.mark.parametrize("name", ["png", "tif"])
def test_memory_does_not_grow_with_the_panorama(name, plan_of, painted, tmp_path, monkeypatch):
    """This is promise 4, from patches to the panorama: five times the width adds only the file's own tables."""
    monkeypatch.setattr(transforms.formats.layout, "MEMORY_BYTES", 1 << 16)
    monkeypatch.setattr(transforms.formats.layout, "BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(transforms.panoramas.seams, "MEMORY_BYTES", 1 << 12)
    monkeypatch.setattr(transforms.formats.tiff, "OVERVIEW_BYTES", 1 << 12)
    peaks_bytes = []
    for columns in (16, 16, 80):  # the first includes one-time allocations
        plan = plan_of(64 * columns, 128, 64, id=f"p{len(peaks_bytes)}", formats=(name,))
        tracemalloc.start()
        store(tmp_path, plan, painted)
        assert assemble_panorama(str(tmp_path), plan, [], "1")["state"] == "done"
        peaks_bytes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    more_pixels_bytes = 3 * 64 * 72 * 128
    assert peaks_bytes[2] < peaks_bytes[1] + more_pixels_bytes / 3, peaks_bytes


def test_a_missing_patch_is_reported_with_what_is_known_of_it(plan, painted, tmp_path):
    store(tmp_path, plan, painted, lost=(1, 3))
    failures = [Failure("p", "04-07.tar", "cannot\nbe written"), Failure("p", "04-07.tar", "cannot\nbe written")]
    row = assemble_panorama(str(tmp_path), plan, failures, "1")
    assert (row["state"], row["files"], row["pixel_sha256"]) == ("failed", [], None)
    assert row["reason"] == "8 of 24 patches are missing; 04-07.tar: cannot be written"
    assert not (tmp_path / "panoramas").exists()


def test_a_failure_that_a_retry_made_good_is_no_failure(plan, painted, tmp_path):
    store(tmp_path, plan, painted)
    assert assemble_panorama(str(tmp_path), plan, [Failure("p", "00-03.tar", "503")], "1")["state"] == "done"


def test_the_record_is_written_last(plan, painted, tmp_path, monkeypatch):
    store(tmp_path, plan, painted)
    monkeypatch.setattr(transforms.render.assemble, "write_json", lambda *arguments: 1 / 0)
    row = assemble_panorama(str(tmp_path), plan, [], "1")
    assert (row["state"], row["reason"]) == ("failed", "division by zero")
    assert sorted(path.name for path in (tmp_path / "panoramas").iterdir()) == ["p.png", "p.tif"]


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"null", b'{"plan": "x", "files": []}', b"\xff"])
def test_a_damaged_record_is_made_again(record, plan, painted, tmp_path):
    store(tmp_path, plan, painted)
    assemble_panorama(str(tmp_path), plan, [], "1")
    path = tmp_path / "panoramas" / "p.json"
    whole = path.read_bytes()
    path.write_bytes(record)
    assert assemble_panorama(str(tmp_path), plan, [], "1")["state"] == "done"
    assert path.read_bytes() == whole


def test_the_transform_makes_each_panorama_from_its_own(plan, plan_of, painted, tmp_path):
    other, broken, made = plan_of(40, 40, id="q"), plan_of(90, 90, id="r"), plan_of(40, 40, id="s")
    for each in (plan, other):
        store(tmp_path, each, painted)
    store(tmp_path, broken, painted, lost=(0,))
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        plans = pipeline | "plans" >> beam.Create([plan, other, broken, made])
        written = pipeline | "rows" >> beam.Create([manifest_row(made, "done", None, {})])
        failures = pipeline | "failures" >> beam.Create([Failure("r", "00-03.tar", "lost")])
        rows = (plans, written, failures) | AssembleRest(str(tmp_path), True, "1")
        reasons = rows | beam.Map(lambda row: (row["id"], row["state"], row["reason"]))
        expected = [
            ("p", "done", None),
            ("q", "done", None),
            ("r", "failed", "4 of 12 patches are missing; 00-03.tar: lost"),
            ("s", "done", None),
        ]
        assert_that(reasons, equal_to(expected))
    assert sorted(path.name for path in (tmp_path / "panoramas").iterdir()) == [
        "p.json",
        "p.png",
        "p.tif",
        "q.json",
        "q.png",
    ]


def row(name, **others):
    values = {"id": name, "state": "done", "plan": "0" * 12, "seed": 2**64 - 1, "width_px": 5, "height_px": 4}
    return {**dict.fromkeys(MANIFEST_SCHEMA.names), **values, "files": [f"panoramas/{name}.png"], **others}


@pytest.mark.parametrize("out", ["memory://manifests/a", ""])
def test_the_manifest_keeps_earlier_rows(out, tmp_path):
    out = out or str(tmp_path / "out")
    write_manifest(out, [row("b"), row("a")])
    assert read_manifest(out) == [row("a"), row("b")]
    write_manifest(out, [row("b", state="failed", reason="?"), row("c")])
    assert [(r["id"], r["state"]) for r in read_manifest(out)] == [("a", "done"), ("b", "failed"), ("c", "done")]


def test_a_file_that_is_no_manifest_is_named():
    fs = fsspec.filesystem("memory")
    foreign, whole = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"id": ["a"]}), foreign)
    pq.write_table(pa.Table.from_pylist([row("a")], schema=MANIFEST_SCHEMA), whole)
    for content in (b"", b"PAR1", foreign.getvalue(), whole.getvalue()[:-20], whole.getvalue()[20:]):
        fs.pipe("/foreign/manifest.parquet", content)
        with pytest.raises(
            InputError, match=r"manifest\.parquet is damaged, or is not the manifest of render; remove it"
        ) as caught:
            read_manifest("memory://foreign")
        assert "\n" not in str(caught.value)


def test_no_secret_of_a_url_goes_into_a_panorama(plan_of, painted, tmp_path, contents):
    secret = "https://alice:S3CRET@host/c.safetensors?token=T0KEN"
    plan = plan_of(90, 90, formats=tuple(FORMATS), checkpoint=secret)
    plain = plan_of(90, 90, formats=tuple(FORMATS), checkpoint="https://host/c.safetensors")
    assert plan.digest == plain.digest
    store(tmp_path, plan, painted)
    assert assemble_panorama(str(tmp_path), plan, [], "1")["state"] == "done"
    for name, content in contents(tmp_path).items():
        assert b"S3CRET" not in content, name
        assert b"T0KEN" not in content, name
    record = read_record(str(tmp_path), "p")
    assert record["checkpoint_sha256"] == plan.checkpoint_sha256
    assert record["request"]["checkpoint"] is None
    assert record["checkpoint"].startswith("https://host/c.safetensors?token=redacted")
    assert plan_from_json(record, "", "p.json").digest == plan.digest
    assert plain.provenance() == plain.to_json()
