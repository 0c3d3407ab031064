import dataclasses
import json
import math
import threading

import apache_beam as beam
import numpy as np
import pytest
import torch
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

import transforms.render.synthesize
from model.checkpoint import load_checkpoint, sha256
from model.errors import InputError
from model.quantise import quantise
from model.world.world import World
from transforms.panoramas.patches import Patch, decode
from transforms.panoramas.plan import Failure, PatchShard, Plan
from transforms.panoramas.requests import RenderRequest
from transforms.render.synthesize import PATCHES_DONE, SynthesizePatches, Synthesizer, patch
from transforms.render.work import missing_shards
from transforms.storage.tensor_files import read_tensors


@pytest.fixture(scope="module")
def plan(tiny_checkpoint):
    request = RenderRequest(id="p", seed=7, width_px=150, height_px=100, origin_x_px=-40)
    return Plan(request, tiny_checkpoint, sha256(read_tensors(tiny_checkpoint)), 64)


@pytest.fixture(scope="module")
def patches(plan):
    return synthesize(plan, 0, plan.tiles - 1)


def synthesize(plan, first, last):
    """Returns the patches of a shard, as they will be read."""
    shard = PatchShard(plan, first, last)
    samples = Synthesizer().samples(shard)
    assert [sample["__key__"] for sample in samples] == [plan.member(index) for index in shard.indices]
    about = [json.loads(sample["json"]) for sample in samples]
    return [
        Patch(index, text["world_x_px"], text["world_y_px"], decode(sample["png"]), decode(sample["edge.png"]))
        for index, sample, text in zip(shard.indices, samples, about, strict=True)
    ]


def assert_same(one, other):
    assert one.index == other.index
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.edges, other.edges)


def test_patches_are_the_worlds_pixels(plan, patches, tiny_checkpoint):
    """This is promise 2: in tiles and in one piece, a world is equal to one level, and in all but 1 of 1000 values."""
    world = World(load_checkpoint(read_tensors(tiny_checkpoint), "tiny").generator, 7)
    (top, bottom), (left, right) = plan.request.rows, plan.request.columns
    whole = quantise(world.render((top, bottom), (left, right))).permute(1, 2, 0).numpy()
    differing = 0
    for patch_ in patches:
        rows, columns = plan.cropped(patch_.index)
        part = whole[rows[0] - top : rows[1] - top + 1, columns[0] - left : columns[1] - left + 1]
        difference = np.abs(patch_.pixels.astype(int) - part)
        assert difference.max() <= 1
        differing += np.count_nonzero(difference)
    assert differing < whole.size / 1000
    assert len(np.unique(whole)) > 100


def test_neither_order_nor_company_changes_a_patch(plan, patches):
    world = World(load_checkpoint(read_tensors(plan.checkpoint_url), "tiny").generator, 7)
    for index in torch.randperm(plan.tiles, generator=torch.Generator().manual_seed(0)).tolist():
        assert_same(patch(world, plan, index), patches[index])
    for index in (0, 5, plan.tiles - 1):
        assert_same(synthesize(plan, index, index)[0], patches[index])


def test_one_thread_and_two_give_the_same_bits(plan, patches):
    torch.set_num_threads(2)
    try:
        again = synthesize(plan, 0, plan.tiles - 1)
    finally:
        torch.set_num_threads(1)
    for one, other in zip(patches, again, strict=True):
        assert_same(one, other)


def test_a_panorama_moved_by_a_few_pixels_has_the_same_pixels(plan, patches):
    """Only the cut moves, because tiles lie on the world's grid."""
    request = dataclasses.replace(plan.request, origin_x_px=-39, origin_y_px=-60, width_px=140)
    moved = dataclasses.replace(plan, request=request)
    for other in synthesize(moved, 0, moved.tiles - 1):
        one = patches[[plan.computed(i) for i in range(plan.tiles)].index(moved.computed(other.index))]
        windows = [p.cropped(i) for p, i in ((plan, one.index), (moved, other.index))]
        y, x = (max(a[0], b[0]) for a, b in zip(*windows, strict=True))
        bottom, right = (min(a[1], b[1]) for a, b in zip(*windows, strict=True))
        parts = [
            p.pixels[y - rows[0] : bottom - rows[0] + 1, x - columns[0] : right - columns[0] + 1]
            for p, (rows, columns) in zip((one, other), windows, strict=True)
        ]
        np.testing.assert_array_equal(*parts)


@settings(max_examples=12)
@given(
    size=st.tuples(*[st.sampled_from([32, 64, 96, 128])] * 2) | st.sampled_from([64, 96]),
    height_px=st.integers(1, 200),
    y_px=st.integers(-200, 200),
    starts=st.tuples(*[st.integers(-200, 200)] * 2),
    width_px=st.integers(1, 500),
)
def test_what_two_panoramas_share(plan, size, height_px, y_px, starts, width_px):
    """With the same rows and tiles, whole tiles in common are equal to the bit, and all else by promise 2."""

    def panorama(x_px):
        size_px = {"height_px": height_px, "width_px": width_px, "origin_x_px": x_px, "origin_y_px": y_px}
        other = dataclasses.replace(plan, request=dataclasses.replace(plan.request, **size_px), tile_px=size)
        row, tiles = np.zeros((height_px, width_px, 3), np.uint8), {}
        for each in synthesize(other, 0, other.tiles - 1):
            rows, columns = other.cropped(each.index)
            row[rows[0] - y_px : rows[1] + 1 - y_px, columns[0] - x_px : columns[1] + 1 - x_px] = each.pixels
            tiles[other.computed(each.index)] = each.pixels
        return row, tiles

    (one, tiles), (other, others) = map(panorama, starts)
    for window in tiles.keys() & others.keys():
        low, high = max(starts), min(starts) + width_px
        if low <= window[1][0] <= window[1][1] < high:
            np.testing.assert_array_equal(tiles[window], others[window])
    first = max(starts)
    shared = max(0, min(starts) + width_px - first)
    parts = (picture[:, first - x_px :][:, :shared] for picture, x_px in zip((one, other), starts, strict=True))
    apart = np.abs(np.subtract(*(part.astype(int) for part in parts)))
    assert apart.max(initial=0) <= 1
    assert np.count_nonzero(apart) <= max(1, apart.size / 1000)


def test_shapes(plan, patches):
    for patch_ in patches:
        (top, bottom), (left, right) = plan.cropped(patch_.index)
        assert patch_.pixels.shape == (bottom - top + 1, right - left + 1, 3)
        assert patch_.pixels.dtype == patch_.edges.dtype == np.uint8
        assert patch_.edges.shape[1:] == (64, 3)
        assert patch_.edges.shape[0] % 4 == 0
        assert patch_.edges.shape[0] >= 8


def test_a_tile_is_encoded_while_the_next_is_computed(plan, monkeypatch):
    """The first tile's encoding ends only when the second is being computed."""
    overlapping, originals = (
        threading.Event(),
        (transforms.render.synthesize.compute_tile, transforms.render.synthesize.finish),
    )

    def compute_tile(world, plan, index):
        if index == 1:
            overlapping.set()
        return originals[0](world, plan, index)

    def finish(plan, *tiles):
        assert overlapping.wait(20)
        return originals[1](plan, *tiles)

    monkeypatch.setattr(transforms.render.synthesize, "compute_tile", compute_tile)
    monkeypatch.setattr(transforms.render.synthesize, "finish", finish)
    assert len(synthesize(plan, 0, 3)) == 4


def test_a_checkpoint_that_changed_meanwhile_is_refused(plan):
    changed = dataclasses.replace(plan, checkpoint_sha256="0" * 64)
    with pytest.raises(InputError, match=r"is no longer the checkpoint of the plan, 0{12}: give"):
        Synthesizer().samples(PatchShard(changed, 0, 0))


def test_worlds_and_checkpoints_are_loaded_once(plan, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        transforms.render.synthesize, "read_tensors", lambda url: loaded.append(url) or read_tensors(url)
    )
    synthesizer = Synthesizer()
    for index in range(3):
        synthesizer.samples(PatchShard(plan, index, index))
    assert len(loaded) == 1
    assert synthesizer.world.cache_info().misses == 1


def test_a_tile_that_fails_costs_no_other(plan, monkeypatch):
    original = transforms.render.synthesize.compute_tile

    def fail_at_5(world, plan, index):
        if index == 5:
            raise ArithmeticError("at tile 5")
        return original(world, plan, index)

    monkeypatch.setattr(transforms.render.synthesize, "compute_tile", fail_at_5)
    PATCHES_DONE.reset()
    shards = list(missing_shards(plan, [], 2))
    assert len(shards) == math.ceil(plan.tiles / 2)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        pairs, failures = pipeline | beam.Create(shards) | SynthesizePatches()
        done = pairs | beam.Map(lambda pair: (pair[0].name, [sample["__key__"] for sample in pair[1]]))
        parts = [PatchShard(plan, 4, 4) if 5 in shard.indices else shard for shard in shards]
        expected = [(shard.name, [plan.member(index) for index in shard.indices]) for shard in parts]
        assert_that(done, equal_to(expected), label="done")
        assert_that(failures, equal_to([Failure("p", "tile 5", "at tile 5")]), label="failed")
    assert PATCHES_DONE.count == plan.tiles - 1


def test_what_can_be_computed_of_a_shard_is_cut_where_tiles_fail(plan, patches, monkeypatch):
    original = transforms.render.synthesize.compute_tile

    def fail(world, plan, index):
        if index in (0, 3, 4):
            raise ArithmeticError(f"at {index}")
        return original(world, plan, index)

    monkeypatch.setattr(transforms.render.synthesize, "compute_tile", fail)
    parts = Synthesizer().parts(PatchShard(plan, 0, plan.tiles - 1))
    failed = [part for part in parts if isinstance(part, Failure)]
    assert failed == [Failure("p", f"tile {index}", f"at {index}") for index in (0, 3, 4)]
    made = [part for part in parts if not isinstance(part, Failure)]
    assert [(shard.first, shard.last) for shard, _ in made] == [(1, 2), (5, plan.tiles - 1)]
    for shard, samples in made:
        for index, sample in zip(shard.indices, samples, strict=True):
            np.testing.assert_array_equal(decode(sample["png"]), patches[index].pixels)
