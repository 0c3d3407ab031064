import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint import load_checkpoint
from model.world import World
from transforms.plan import PatchShard
from transforms.seams import SeamAudit, audit_seams, neighbours, strip
from transforms.storage import read_bytes
from transforms.synthesize import patch


def all_edges(plan, painted):
    return [patch.edges for patch in painted.patches(PatchShard(plan, 0, plan.tiles - 1))]


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_each_border_is_looked_at_once(plan_of, width_px, height_px):
    plan = plan_of(width_px, height_px)
    rows, columns = plan.shape
    pairs = list(neighbours(plan))
    assert len({pair[:2] for pair in pairs}) == len(pairs) == rows * (columns - 1) + (rows - 1) * columns
    for first, second, side in pairs:
        one, other = plan.tile(first), plan.tile(second)
        step = (other.row - one.row, other.column - one.column)
        assert step == {"right": (0, 1), "bottom": (1, 0)}[side]


def test_the_strips_are_what_both_neighbours_compute(plan_of, painted):
    plan = plan_of(150, 100, origin_x_px=-40)
    edges = all_edges(plan, painted)
    for first, second, side in neighbours(plan):
        ours, theirs = strip(edges[first], side), strip(edges[second], {"right": "left", "bottom": "top"}[side])
        assert ours.shape == (painted.before + painted.after, 32, 3)
        np.testing.assert_array_equal(ours, theirs)
        rows, columns = plan.pixels(plan.tile(first))
        border = (columns if side == "right" else rows)[1]
        window = (border - painted.before + 1, border + painted.after)
        where = (rows, window) if side == "right" else (window, columns)
        picture = painted.compute(*where).crop(*where)
        expected = ((picture + 1) * 127.5).round().permute((2, 1, 0) if side == "right" else (1, 2, 0)).numpy()
        np.testing.assert_array_equal(ours, expected)


def test_neighbours_that_agree_have_no_seam(plan_of, painted):
    plan = plan_of(150, 100)
    assert audit_seams(plan, all_edges(plan, painted).__getitem__) == SeamAudit(31, 0, 0.0)


def test_a_lone_tile_has_no_seam(plan_of, painted):
    plan = plan_of(10, 10, origin_y_px=0)
    audit = audit_seams(plan, all_edges(plan, painted).__getitem__)
    assert audit.to_json() == {"borders": 0, "max_difference": 0, "differing_share": 0.0}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_one_value_off_at_any_border_is_found(data, plan_of, painted):
    plan = plan_of(90, 90, origin_y_px=0)
    edges = all_edges(plan, painted)
    first, second, side = data.draw(st.sampled_from(list(neighbours(plan))))
    broken, side = data.draw(st.sampled_from([(first, side), (second, {"right": "left", "bottom": "top"}[side])]))
    edges[broken] = edges[broken].copy()
    part = strip(edges[broken], side)
    place = tuple(data.draw(st.integers(0, size - 1)) for size in part.shape)
    off = data.draw(st.integers(1, 255))
    part[place] ^= off
    audit = audit_seams(plan, edges.__getitem__)
    original = int(part[place]) ^ off
    assert audit.max_difference == abs(int(part[place]) - original)
    assert audit.differing_share == pytest.approx(1 / (audit.borders * part.size))


def test_a_shifted_tile_is_found(plan_of, painted):
    plan = plan_of(150, 100)
    edges = all_edges(plan, painted)
    elsewhere = all_edges(dataclasses.replace(plan, request=plan_of(150, 100, origin_x_px=64).request), painted)
    edges[7] = elsewhere[7]
    audit = audit_seams(plan, edges.__getitem__)
    assert audit.max_difference > 1
    assert audit.differing_share > 0.01


def test_tiles_of_a_network_agree_and_another_world_does_not(plan_of, tiny_checkpoint):
    plan = plan_of(200, 150, 64)
    generator = load_checkpoint(read_bytes(tiny_checkpoint), "tiny").generator
    edges, foreign = (
        [patch(world, plan, index).edges for index in range(plan.tiles)]
        for world in (World(generator, 7), World(generator, 8))
    )
    audit = audit_seams(plan, edges.__getitem__)
    assert audit.borders == 24
    assert audit.max_difference <= 1
    assert audit.differing_share < 1e-3
    assert min(len(np.unique(edge)) for edge in edges) > 50
    edges[3] = foreign[3]
    assert audit_seams(plan, edges.__getitem__).max_difference > 20
