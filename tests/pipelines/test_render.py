import dataclasses
import functools
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import apache_beam as beam
import forks
import fsspec
import numpy as np
import pytest
import tifffile
import torch
from apache_beam.runners.portability.fn_api_runner import execution
from PIL import Image

import transforms.formats.registry
import transforms.panoramas.patch_shards
import transforms.render.assemble
import transforms.render.follow
import transforms.render.publish
import transforms.render.synthesize
import transforms.render.work
from model.checkpoint import load_checkpoint
from model.errors import InputError
from model.quantise import quantise
from model.world.world import World
from pipelines.render import build, render
from pipelines.terminal.beam_flags import beam_options
from pipelines.verify import verify
from transforms.panoramas.manifest import read_manifest
from transforms.panoramas.patches import pixel_checksum
from transforms.panoramas.requests import RenderRequest, RequestFile
from transforms.render.job_folder import JobFolder
from transforms.render.options import RenderOptions
from transforms.render.synthesize import PATCHES_DONE, PatchModelHandler, SynthesizePatches, Synthesizer
from transforms.render.work import Work
from transforms.storage.files import remove

REPOSITORY = Path(__file__).parents[2]
REQUEST = RenderRequest(id="p", seed=7, width_px=300, height_px=200, origin_x_px=-40, formats=("png", "tif"))
TILES = 24
FLAGS = ["--seed=7", "--width=300", "--height=200", "--origin=-40,-100", "--format=png", "--format=tif", "--tile=64"]


def options_for(out, checkpoint, *requests, **others):
    return RenderOptions(
        **{"requests": requests or (REQUEST,), "out": str(out), "checkpoint": checkpoint, "tile_px": 64, **others}
    )


def read_png(path):
    with Image.open(path) as image:
        return np.asarray(image)


def results(files):
    """Returns a folder's contents without the patches, which may be cut into other shards."""
    return {name: content for name, content in files.items() if not name.startswith("patches")}


@pytest.fixture
def make(tiny_checkpoint, tmp_path):
    """Returns a function that renders to a separate folder."""

    def make(*requests, flags=(), out=tmp_path / "out", checkpoint=tiny_checkpoint, **others):
        return render(options_for(out, checkpoint, *requests, **others), beam_options(list(flags)))

    return make


@pytest.fixture(scope="module")
def rendered(tiny_checkpoint, tmp_path_factory):
    """Renders a panorama in which every tile is a shard; tests must not change it."""
    out = tmp_path_factory.mktemp("rendered")
    (row,) = render(options_for(out, tiny_checkpoint, tiles_per_shard=1))
    assert row["state"] == "done"
    return out


@pytest.fixture(scope="module")
def pixels(rendered):
    return read_png(rendered / "panoramas" / "p.png")


@pytest.fixture
def copy(rendered, tmp_path):
    """Returns a copy of the panorama, which may be changed."""
    subprocess.run(["cp", "-r", str(rendered), str(tmp_path / "out")], check=True)
    return tmp_path / "out"


def assert_promise_2(one, other):
    """Checks that values differ by at most one level, and fewer than 1 in 1000 differ at all."""
    difference = np.abs(one.astype(int) - other)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) < max(difference.size / 1000, 1)


def test_the_files_hold_the_worlds_pixels(rendered, pixels, tiny_checkpoint):
    world = World(load_checkpoint(Path(tiny_checkpoint).read_bytes(), "tiny").generator, 7)
    whole = quantise(world.render(REQUEST.rows, REQUEST.columns)).permute(1, 2, 0).numpy()
    assert pixels.shape == (200, 300, 3)
    assert len(np.unique(pixels)) > 100
    assert_promise_2(pixels, whole)
    np.testing.assert_array_equal(tifffile.imread(rendered / "panoramas" / "p.tif"), pixels)


def test_the_record_and_the_manifest_say_what_there_is(rendered, pixels):
    record = json.loads((rendered / "panoramas" / "p.json").read_text())
    (row,) = read_manifest(str(rendered))
    assert record["files"] == {"png": "p.png", "tif": "p.tif"}
    assert record["pixel_sha256"] == row["pixel_sha256"] == pixel_checksum(pixels)
    assert record["seam_audit"]["borders"] == 38
    assert record["seam_audit"]["max_difference"] == row["seam_max_difference"] <= 1
    assert record["seam_audit"]["differing_share"] < 1e-3
    assert RenderRequest.from_json(record["request"]) == REQUEST
    assert (row["state"], row["reason"], row["files"]) == ("done", None, ["panoramas/p.png", "panoramas/p.tif"])
    assert row["plan"] == record["plan"]
    assert (rendered / "patches" / "p" / record["plan"] / "plan.json").exists()
    assert len(list((rendered / "patches" / "p" / record["plan"]).glob("*.tar"))) == TILES
    with Image.open(rendered / "panoramas" / "p.png") as image:
        provenance = json.loads(image.info["InfinityGAN"])
    assert provenance["checkpoint_sha256"] == row["checkpoint_sha256"]


def test_two_workers_make_the_same_bytes(make, rendered, contents, tmp_path):
    workers = ["--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    make(tiles_per_shard=5, flags=workers)
    assert results(contents(tmp_path / "out")) == results(contents(rendered))


@pytest.mark.parametrize("tiles_per_shard", [5, 100])
def test_shard_sizes_change_no_byte_of_the_results(tiles_per_shard, make, rendered, contents, tmp_path):
    make(tiles_per_shard=tiles_per_shard)
    assert PATCHES_DONE.count == TILES
    assert results(contents(tmp_path / "out")) == results(contents(rendered))


def test_the_order_of_tiles_and_shards_changes_no_byte(make, rendered, contents, tmp_path, monkeypatch):
    in_order, shards = Synthesizer.samples, Work.shards
    computed = []

    def last_first(self, shard):
        halves = [dataclasses.replace(shard, first=i, last=i) for i in reversed(shard.indices)]
        computed.extend(half.first for half in halves)
        return list(reversed([in_order(self, half)[0] for half in halves]))

    monkeypatch.setattr(Synthesizer, "samples", last_first)
    monkeypatch.setattr(Work, "shards", lambda self: reversed(list(shards(self))))
    make(tiles_per_shard=5)
    assert sorted(computed) == list(range(TILES))
    assert computed != sorted(computed)
    assert results(contents(tmp_path / "out")) == results(contents(rendered))


@pytest.mark.parametrize("flags", [[], ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]])
@pytest.mark.parametrize("copies", [1, 2])
def test_networks_that_workers_share_change_no_byte(copies, flags, make, rendered, contents, tmp_path, monkeypatch):
    original, loaded = PatchModelHandler.load_model, []
    monkeypatch.setattr(PatchModelHandler, "load_model", lambda self: loaded.append(1) or original(self))
    make(tiles_per_shard=1, model_copies=copies, accelerator="type:nvidia-l4;count:1", flags=flags)
    assert len(loaded) == copies
    assert contents(tmp_path / "out") == contents(rendered)


def test_the_steps_that_hold_pixels_want_the_accelerator_and_no_other(tiny_checkpoint, tmp_path, accelerators):
    """They request the same kind of worker; otherwise a runner would cut the pipeline between them."""
    hint = "type:nvidia-l4;count:1;install-nvidia-driver"
    options = options_for(tmp_path / "out", tiny_checkpoint, accelerator=hint)
    pipeline = beam.Pipeline(options=beam_options([]))
    build(pipeline, options, RequestFile("requests.jsonl"), JobFolder(str(tmp_path)))
    wanted = accelerators(pipeline.to_runner_api())
    held = {name for name in wanted if name.split("/")[0] in ("SkipStored", "SynthesizePatches", "PublishShards")}
    assert any("BeamML_RunInference" in name for name in held)
    assert {name for name, accelerator in wanted.items() if accelerator} == held
    assert {wanted[name] for name in held} == {hint}


def failing_once(function, mark):
    """Does its work, but fails before returning, the first time."""

    @functools.wraps(function)
    def wrapper(*arguments):
        result = list(function(*arguments))
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return result
        raise RuntimeError("a worker was lost after its work was done")

    return wrapper


def test_another_runner_and_its_retries_change_no_byte(make, rendered, contents, tmp_path, monkeypatch):
    writer, work = transforms.render.publish._Publish, transforms.render.work
    marks = [tmp_path / f"mark-{number}" for number in range(3)]
    for mark, owner, name in zip(
        marks, (writer, writer, work), ("process", "finish_bundle", "shuffled_shards"), strict=True
    ):
        monkeypatch.setattr(owner, name, failing_once(getattr(owner, name), str(mark)))
    make(tiles_per_shard=1, flags=["--runner=BundleBasedDirectRunner"])
    assert all(mark.exists() for mark in marks)
    assert contents(tmp_path / "out") == contents(rendered)


def test_several_threads_change_no_byte(make, rendered, contents, tmp_path):
    torch.set_num_threads(2)
    try:
        make(tiles_per_shard=1, flags=["--direct_running_mode=multi_threading", "--direct_num_workers=2"])
    finally:
        torch.set_num_threads(1)
    assert contents(tmp_path / "out") == contents(rendered)


def test_a_second_run_does_nothing(make, rendered, copy, contents):
    told = ("manifest.parquet", "index.html")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.name not in told}
    (row,) = make(tiles_per_shard=7)
    assert PATCHES_DONE.count == 0
    assert row["state"] == "done"
    assert {path: path.stat().st_mtime_ns for path in before if not path.is_dir()} == {
        path: time_ns for path, time_ns in before.items() if not path.is_dir()
    }
    assert contents(copy) == contents(rendered)


@pytest.mark.parametrize(
    ("lost", "tiles"),
    [
        (("*-0[0-9].tar", "p.json"), 10),
        (("*.tar", "p.tif"), TILES),
        (("*-1[0-9].tar", "p.png", "manifest.parquet"), 10),
        (("p.json",), 0),
        (("p.tif", "plan.json"), 0),
        (("*-00.tar", "*-23.tar", "p.png", "p.tif", "p.json", "manifest.parquet"), 2),
    ],
)
def test_only_what_is_lost_is_made_again(lost, tiles, make, rendered, copy, contents):
    for path in [path for name in lost for path in copy.rglob(name)]:
        path.unlink()
    make(tiles_per_shard=1)
    assert PATCHES_DONE.count == tiles
    assert contents(copy) == contents(rendered)


def test_the_patches_of_a_finished_panorama_may_go(make, copy, rendered, contents):
    shutil.rmtree(copy / "patches")
    assert make(tiles_per_shard=1)[0]["state"] == "done"
    assert PATCHES_DONE.count == 0
    assert contents(copy / "panoramas") == contents(rendered / "panoramas")


def test_another_format_is_added_from_the_patches(make, copy, rendered, contents):
    (copy / "panoramas" / "p.tif").unlink()
    make(dataclasses.replace(REQUEST, formats=("png",)))
    make(dataclasses.replace(REQUEST, formats=("tif",)))
    assert PATCHES_DONE.count == 0
    made = contents(copy / "panoramas")
    assert made["p.png"] == contents(rendered / "panoramas")["p.png"]
    np.testing.assert_array_equal(
        tifffile.imread(copy / "panoramas" / "p.tif"), read_png(rendered / "panoramas" / "p.png")
    )
    assert json.loads(made["p.json"])["files"] == {"png": "p.png", "tif": "p.tif"}


def test_another_plan_under_a_known_id_is_refused_and_replaced_if_asked(make, copy, contents, other_checkpoint):
    before = contents(copy)
    others = [
        ((dataclasses.replace(REQUEST, seed=8),), {}),
        ((dataclasses.replace(REQUEST, width_px=301),), {}),
        ((), {"tile_px": 32}),
        ((), {"checkpoint": other_checkpoint}),
    ]
    for requests, changed in others:
        with pytest.raises(InputError, match=r"already holds panorama p with another plan .* add --replace"):
            make(*requests, **changed)
    assert contents(copy) == before
    (row,) = make(dataclasses.replace(REQUEST, formats=("png",)), checkpoint=other_checkpoint, replace=True)
    assert (row["state"], PATCHES_DONE.count) == ("done", TILES)
    after = contents(copy)
    assert row["plan"] == json.loads(after["panoramas/p.json"])["plan"]
    assert after["panoramas/p.png"] != before["panoramas/p.png"]
    assert "panoramas/p.tif" not in after
    assert {name.split("/")[2] for name in after if name.startswith("patches")} == {row["plan"]}


def test_a_taller_panorama_contains_a_shorter_one(make, pixels, tmp_path):
    taller = dataclasses.replace(REQUEST, id="tall", height_px=330, width_px=250, origin_x_px=10, origin_y_px=None)
    shorter = dataclasses.replace(taller, id="short", height_px=90, origin_y_px=None)
    rows = make(dataclasses.replace(taller, origin_y_px=-165), dataclasses.replace(shorter, origin_y_px=-45))
    assert [row["state"] for row in rows] == ["done", "done"]
    tall, short = (read_png(tmp_path / "out" / "panoramas" / f"{name}.png") for name in ("tall", "short"))
    np.testing.assert_array_equal(tall[120:210], short)
    np.testing.assert_array_equal(tall[65:265], pixels[:, 50:300])


@pytest.mark.parametrize("tile_px", [32, 80, 256, None, (64, 128), (224, 96)])
def test_another_tile_size_changes_next_to_nothing(tile_px, make, pixels, tmp_path):
    make(tile_px=tile_px, tiles_per_shard=50)
    assert_promise_2(read_png(tmp_path / "out" / "panoramas" / "p.png"), pixels)


def test_a_panorama_begun_with_square_tiles_is_finished_with_them(make, copy, contents, rendered):
    """This is how patches and panoramas of earlier versions, which knew squares only, are resumed."""
    (row,) = make(out=copy, tile_px=None)
    assert (row["state"], PATCHES_DONE.count) == ("done", 0)
    shard = min((copy / "patches" / "p").glob("*/*.tar"))
    tiles = 1 + int(shard.stem.split("-")[1]) - int(shard.stem.split("-")[0])
    shard.unlink()
    for file in (copy / "panoramas").iterdir():
        file.unlink()
    (row,) = make(out=copy, tile_px=None)
    assert (row["state"], PATCHES_DONE.count) == ("done", tiles)
    assert contents(copy / "panoramas") == contents(rendered / "panoramas")
    shutil.rmtree(copy / "patches")
    (row,) = make(out=copy, tile_px=None)
    assert (row["state"], PATCHES_DONE.count) == ("done", 0)


def test_tiles_follow_the_panorama(make, tmp_path):
    make(tile_px=None)
    plan = json.loads((tmp_path / "out" / "panoramas" / "p.json").read_text())
    assert plan["tile_px"] == [256, 512]
    assert PATCHES_DONE.count == 1
    make(dataclasses.replace(REQUEST, id="wide", width_px=1700), tile_px=(64, 128))
    assert PATCHES_DONE.count == 4 * 14


def test_many_requests_give_what_each_gives_alone(make, rendered, contents, tmp_path, other_checkpoint):
    others = [RenderRequest(id=f"q{i}", seed=i, width_px=20 + i, height_px=10) for i in range(3)]
    foreign = RenderRequest(id="r", seed=7, width_px=30, height_px=20, checkpoint=other_checkpoint)
    rows = make(*others, REQUEST, foreign)
    assert [row["id"] for row in rows] == ["p", "q0", "q1", "q2", "r"]
    assert {row["state"] for row in rows} == {"done"}
    assert len({row["checkpoint_sha256"] for row in rows}) == 2
    made = contents(tmp_path / "out" / "panoramas")
    assert all(made[name] == content for name, content in contents(rendered / "panoramas").items())
    (row,) = make(others[0])
    assert row["id"] == "q0"
    assert len(read_manifest(str(tmp_path / "out"))) == 5


@pytest.mark.parametrize("out", ["memory://render/a b", "with spaces, [brackets] and ümlauts"])
def test_any_folder_will_do(out, make, rendered, contents, tmp_path):
    make(out=out if "://" in out else tmp_path / out, tiles_per_shard=1)
    if "://" in out:
        store = fsspec.filesystem("memory")
        made = {path.removeprefix("/render/a b/"): store.cat_file(path) for path in store.find("/render/a b")}
    else:
        made = contents(tmp_path / out)
    assert made == contents(rendered)


@pytest.fixture
def crossing(monkeypatch):
    """Counts the bytes that Beam's in-process runner holds between two stages, which a shuffle would carry."""
    counted = [0]
    for buffer in (execution.ListBuffer, execution.GroupingBuffer):

        def append(self, content, original=buffer.append):
            counted[0] += len(content)
            original(self, content)

        monkeypatch.setattr(buffer, "append", append)
    return counted


@pytest.mark.parametrize("accelerator", [None, "type:nvidia-l4;count:1"])
def test_pixels_never_cross_a_shuffle(accelerator, make, crossing, tmp_path, monkeypatch):
    """This is promise 5: sixteen times the pixels add not a byte between the stages."""
    square = {"id": "p", "seed": 7, "origin_y_px": 0, "formats": ("png",)}
    counts = []
    for tile_px in (32, 128):
        crossing[0] = 0
        request = RenderRequest(width_px=4 * tile_px, height_px=4 * tile_px, **square)
        make(request, out=tmp_path / f"{tile_px}", tile_px=tile_px, tiles_per_shard=2, accelerator=accelerator)
        assert PATCHES_DONE.count == 16
        counts.append(crossing[0])
    assert 2_000 < counts[0] < 200_000
    assert abs(counts[1] - counts[0]) < 0.02 * counts[0]
    original = SynthesizePatches.expand

    def with_a_shuffle(self, shards):
        pairs, failures = original(self, shards)
        return pairs | "Break the promise" >> beam.Reshuffle(), failures

    monkeypatch.setattr(SynthesizePatches, "expand", with_a_shuffle)
    crossing[0] = 0
    make(request, out=tmp_path / "broken", tile_px=128, tiles_per_shard=2)
    assert crossing[0] > 512 * 512


def test_a_full_disk_costs_one_shard_and_the_next_run_makes_it(make, rendered, contents, tmp_path, monkeypatch):
    original = transforms.panoramas.patch_shards.open_atomic

    def open_atomic(url):
        if url.endswith("/07-07.tar"):
            raise OSError(28, "No space left on device")
        return original(url)

    other = RenderRequest(id="q", seed=7, width_px=30, height_px=20)
    monkeypatch.setattr(transforms.panoramas.patch_shards, "open_atomic", open_atomic)
    failed, done = make(REQUEST, other, tiles_per_shard=1)
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert failed["reason"] == (
        "1 of 24 patches are missing; 07-07.tar: cannot be written: [Errno 28] No space left on device"
    )
    assert sorted(contents(tmp_path / "out" / "panoramas")) == ["q.json", "q.png"]
    assert len(list((tmp_path / "out" / "patches" / "p").rglob("*.tar"))) == TILES - 1
    monkeypatch.undo()
    (row,) = make(tiles_per_shard=1)
    assert (row["state"], PATCHES_DONE.count) == ("done", 1)
    made = contents(tmp_path / "out" / "panoramas")
    assert all(made[name] == content for name, content in contents(rendered / "panoramas").items())


def test_a_disk_that_takes_only_small_files_keeps_them_and_no_halves(make, contents, tmp_path):
    """The operating system itself interrupts writes in the middle of a file."""
    make(tiles_per_shard=10, out=tmp_path / "undisturbed")
    expected = contents(tmp_path / "undisturbed")
    small, large, _ = sorted(len(content) for name, content in expected.items() if name.endswith(".tar"))
    assert small < large
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (small, before[1]))
    try:
        (row,) = make(tiles_per_shard=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert row["state"] == "failed"
    assert "20 of 24 patches are missing; 00-09.tar: cannot be written: [Errno 27] File too large" in row["reason"]
    made = contents(tmp_path / "out")
    assert sorted(name.rsplit("/")[-1] for name in made if name.startswith("patches")) == ["20-23.tar", "plan.json"]
    assert all(made[name] == expected[name] for name in made.keys() - {"manifest.parquet", "index.html"})
    (row,) = make(tiles_per_shard=10)
    assert (row["state"], PATCHES_DONE.count) == ("done", 20)
    assert contents(tmp_path / "out") == expected


def test_a_network_that_fails_costs_one_tile(make, rendered, contents, tmp_path, monkeypatch):
    original = transforms.render.synthesize.compute_tile

    def compute_tile(world, plan, index):
        if index == 9:
            raise MemoryError("out of memory")
        return original(world, plan, index)

    monkeypatch.setattr(transforms.render.synthesize, "compute_tile", compute_tile)
    (row,) = make(tiles_per_shard=4)
    assert row["state"] == "failed"
    assert row["reason"] == "1 of 24 patches are missing; tile 9: out of memory"
    assert not (tmp_path / "out" / "panoramas").exists()
    monkeypatch.undo()
    make(tiles_per_shard=4)
    assert PATCHES_DONE.count == 1
    assert results(contents(tmp_path / "out")) == results(contents(rendered))


def test_a_network_that_fails_once_costs_nothing(make, rendered, contents, tmp_path, monkeypatch):
    original, failed = transforms.render.synthesize.compute_tile, []

    def compute_tile(world, plan, index):
        if index == 9 and not failed:
            failed.append(1)
            raise MemoryError("out of memory")
        return original(world, plan, index)

    monkeypatch.setattr(transforms.render.synthesize, "compute_tile", compute_tile)
    (row,) = make(tiles_per_shard=1)
    assert (row["state"], failed) == ("done", [1])
    assert contents(tmp_path / "out") == contents(rendered)


def test_a_panorama_that_cannot_be_written_is_reported(make, rendered, contents, tmp_path, monkeypatch):
    original = transforms.formats.registry.open_atomic

    def open_atomic(url):
        if url.endswith("p.tif"):
            raise OSError(28, "No space left on device")
        return original(url)

    monkeypatch.setattr(transforms.formats.registry, "open_atomic", open_atomic)
    (row,) = make(tiles_per_shard=1)
    assert (row["state"], row["reason"]) == ("failed", "[Errno 28] No space left on device")
    assert sorted(contents(tmp_path / "out" / "panoramas")) == ["p.png"]
    monkeypatch.undo()
    make(tiles_per_shard=1)
    assert PATCHES_DONE.count == 0
    assert contents(tmp_path / "out") == contents(rendered)


def test_a_damaged_shard_gives_no_wrong_picture(make, copy, rendered, contents):
    for path in (copy / "panoramas").iterdir():
        path.unlink()
    shard = next(copy.rglob("05-05.tar"))
    whole = shard.read_bytes()
    start = whole.index(b"IDAT", whole.index(b"0_5.png")) + 60
    for damaged in (whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :], whole[:3000]):
        shard.write_bytes(damaged)
        (row,) = make(tiles_per_shard=1)
        assert row["state"] == "failed"
        assert str(shard) in row["reason"]
        assert "is damaged" in row["reason"]
        assert "remove it" in row["reason"]
        assert list((copy / "panoramas").iterdir()) == []
    shard.unlink()
    make(tiles_per_shard=1)
    assert PATCHES_DONE.count == 1
    assert contents(copy) == contents(rendered)


def test_two_processes_at_once_make_one_panorama(tiny_checkpoint, rendered, contents, tmp_path):
    """One by the command, one by the job's module."""
    flags = [*FLAGS, "--tiles-per-shard=1", f"--checkpoint={tiny_checkpoint}", f"--out={tmp_path / 'out'}"]
    by_command = forks.Fork("from pipelines.cli import main; main(sys.argv[1:])", "render", *flags)
    by_module = forks.Fork("import runpy; runpy.run_module('pipelines.render', run_name='__main__')", *flags)
    for process in (by_command, by_module):
        code, said = process.end(200)
        assert code == 0, said
    made, expected = contents(tmp_path / "out"), contents(rendered)
    name = "seed-7_300x200_at_-40_-100"
    assert {path.replace(name, "p") for path in made} == set(expected)
    for path, content in made.items():
        if path.endswith(".tar"):
            assert content == expected[path.replace(name, "p")]
    np.testing.assert_array_equal(
        read_png(tmp_path / "out" / "panoramas" / f"{name}.png"), read_png(rendered / "panoramas" / "p.png")
    )


def test_a_killed_run_is_completed_by_the_next(make, tiny_checkpoint, rendered, contents, tmp_path):
    program = (
        "import os, sys, transforms.panoramas.patch_shards as shards\n"
        "original, seen = shards.wds.TarWriter.write, []\n"
        "def write(tar, sample):\n"
        "    seen.append(1)\n"
        "    if len(seen) == 10:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return original(tar, sample)\n"
        "shards.SHARDS_ON_THEIR_WAY, shards.wds.TarWriter.write = 1, write\n"
        "from pipelines.render import render\n"
        "from transforms.render.options import RenderOptions, RenderRequest\n"
        f"request = RenderRequest.from_json({REQUEST.to_json()!r})\n"
        f"render(RenderOptions((request,), {str(tmp_path / 'out')!r}, {tiny_checkpoint!r}, 64, 1))\n"
    )
    code, said = forks.run(program)
    assert code == -signal.SIGKILL, said
    files = {name: content for name, content in contents(tmp_path / "out").items() if name[:12] != ".tmp-render-"}
    (job,) = (tmp_path / "out").glob(".tmp-render-*")
    leftovers = [name for name in files if ".tmp-" in name]
    assert len(leftovers) == 1
    (row,) = read_manifest(str(tmp_path / "out"))
    assert (row["state"], row["reason"], row["files"]) == ("failed", "not finished", [])
    whole = {name: files[name] for name in files if name not in (*leftovers, "manifest.parquet")}
    assert whole.items() <= contents(rendered).items()
    assert sum(name.endswith(".tar") for name in files) == 9
    make(tiles_per_shard=1)
    assert PATCHES_DONE.count == TILES - 9
    assert job.exists()  # nor is it known that the other run has ended
    job.rename(job.with_name(f".tmp-render-{time.time_ns() - 8 * 24 * 3600 * 10**9:020d}-01234567"))
    make(tiles_per_shard=1)
    made = contents(tmp_path / "out")
    assert made.pop(leftovers[0]) is not None  # it might belong to another run that is still at work
    assert made == contents(rendered)
    hours_ago = time.time() - 2 * 3600
    os.utime(tmp_path / "out" / leftovers[0], (hours_ago, hours_ago))
    make(tiles_per_shard=1)
    assert (tmp_path / "out" / leftovers[0]).exists()  # a run that finds everything done does not search the folder
    (tmp_path / "out" / "panoramas" / "p.png").unlink()
    make(tiles_per_shard=1)
    assert contents(tmp_path / "out") == contents(rendered)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tile_px": 0}, "--tile 0: give a multiple of 16, the network's cell, up to 4096"),
        ({"tile_px": 100}, "--tile 100: give a multiple of 16"),
        ({"tile_px": 4112, "tiles_per_shard": 1}, "--tile 4112: give a multiple of 16"),
        ({"tile_px": 4096, "tiles_per_shard": 17}, "--tiles-per-shard 17 of --tile 4096: a shard"),
        ({"tiles_per_shard": 0}, "--tiles-per-shard 0: give 1 to 256"),
        ({"tiles_per_shard": 257}, "--tiles-per-shard 257: give 1 to 256"),
        ({"checkpoint": "/none/x.safetensors"}, "checkpoint /none/x.safetensors: there is no such file"),
        ({"checkpoint": "/tmp"}, "checkpoint /tmp is a folder; give a .safetensors file"),
        ({"checkpoint": __file__}, "is not an InfinityGAN checkpoint; give a .safetensors file that train wrote"),
        ({"accelerator": "nvidia-l4"}, "--accelerator 'nvidia-l4': give type:NAME;count:N, perhaps with ;machine_type"),
        ({"accelerator": "type:nvidia-l4;count:0"}, "--accelerator 'type:nvidia-l4;count:0': give"),
        ({"accelerator": ""}, "--accelerator '': give"),
        ({"model_copies": 0}, "--model-copies 0: give 1 to 64"),
        ({"model_copies": 65}, "--model-copies 65: give 1 to 64"),
        ({"out": __file__}, "is a file; give a folder or URL"),
        ({"out": ""}, "--out is empty; give a folder or URL"),
    ],
)
def test_wrong_options_are_named_before_anything_is_written(changed, said, make, tmp_path):
    with pytest.raises(InputError) as caught:
        make(**changed)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_manifest_that_is_none_is_refused(make, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.parquet").write_bytes(b"once upon a time")
    with pytest.raises(InputError, match=r"manifest\.parquet is damaged, or is not the manifest of render; "):
        make()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.parquet"]


def test_rows_are_in_the_order_of_their_ids(make, tmp_path):
    requests = [RenderRequest(id=name, seed=1, width_px=5, height_px=5) for name in ("b", "C", "a", "10", "9")]
    assert [row["id"] for row in make(*requests)] == sorted(request.id for request in requests)
    assert list(itertools.chain.from_iterable(row["files"] for row in read_manifest(str(tmp_path / "out")))) == [
        f"panoramas/{name}.png" for name in sorted(request.id for request in requests)
    ]


def test_patches_that_are_not_kept_are_not_needed(make, rendered, contents, tmp_path, tiny_checkpoint):
    """Panoramas of one shard and of several are the same, and a second run, a check and an edit do without patches."""
    small = dataclasses.replace(REQUEST, id="small", width_px=60, height_px=40)
    make(REQUEST, small, keep_patches=False, tiles_per_shard=4)
    made = contents(tmp_path / "out")
    assert not [name for name in made if name.startswith("patches")]
    assert made["panoramas/p.png"] == contents(rendered)["panoramas/p.png"]
    rows = make(REQUEST, small, keep_patches=False, tiles_per_shard=4)
    assert ([row["state"] for row in rows], PATCHES_DONE.count) == (["done", "done"], 0)
    out = str(tmp_path / "out")
    assert [verdict.state for verdict in verify(out, 30, 0, tiny_checkpoint)] == ["equal", "equal"]
    record = tmp_path / "out" / "panoramas" / "small.json"
    record.write_text(record.read_text().replace('"pixel_sha256": "', '"pixel_sha256": "0'))
    verdicts = verify(out, 30, 0, tiny_checkpoint)
    assert [(verdict.request_id, verdict.state) for verdict in verdicts] == [("p", "equal"), ("small", "different")]
    assert "its patches were not kept" in verdicts[1].reason


@pytest.mark.parametrize("killed", [True, False])
def test_patches_that_a_fault_has_left_go(killed, make, contents, tmp_path, monkeypatch):
    """A job is killed between a panorama's record and the removal of its patches, or the removal fails once."""
    faults = [PermissionError(13, "denied")]

    def remove_or_not(url):
        if killed:
            return
        if faults:
            raise faults.pop()
        remove(url)

    with monkeypatch.context() as patch:
        patch.setattr(transforms.render.assemble, "remove", remove_or_not)
        make(REQUEST, keep_patches=False, tiles_per_shard=4)
    left = [name for name in contents(tmp_path / "out") if name.startswith("patches")]
    assert bool(left) == killed
    make(REQUEST, keep_patches=False, tiles_per_shard=4)
    assert not [name for name in contents(tmp_path / "out") if name.startswith("patches")]


def test_the_manifest_and_the_page_grow_with_the_job(make, tmp_path, monkeypatch):
    """The second panorama waits until the manifest lists the first as done."""
    monkeypatch.setattr(transforms.render.follow, "EVERY_S", 0.05)
    original, out = transforms.render.synthesize.compute_tile, tmp_path / "out"
    page = out / "index.html"
    seen = []

    def compute_tile(world, plan, index):
        late = time.monotonic() + 20
        while seen and seen[0] != plan.request.id and time.monotonic() < late:
            states = {row["id"]: row["state"] for row in read_manifest(str(out))}
            if states[seen[0]] == "done" and page.exists() and f"{seen[0]}.png" in page.read_text():
                assert states[plan.request.id] == "failed"
                break
            time.sleep(0.02)
        else:
            assert time.monotonic() < late
        seen.append(plan.request.id)
        return original(world, plan, index)

    monkeypatch.setattr(transforms.render.synthesize, "compute_tile", compute_tile)
    make(*(RenderRequest(id=name, seed=7, width_px=50, height_px=40) for name in ("a", "b")), tile_px=None)
    assert sorted(seen) == ["a", "b"]


def test_an_error_of_an_update_is_said_and_ends_nothing(make, monkeypatch, capsys):
    def list_files(url):
        raise OSError("the store is away")

    monkeypatch.setattr(transforms.render.follow, "EVERY_S", 0.01)
    monkeypatch.setattr(transforms.render.follow, "list_files", list_files)
    assert [row["state"] for row in make()] == ["done"]
    assert "cannot be updated while the job runs: the store is away" in capsys.readouterr().err
