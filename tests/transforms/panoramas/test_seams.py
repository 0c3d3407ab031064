import dataclasses
from unittest.mock import patch as replaced

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint import load_checkpoint
from model.world.world import World
from transforms.panoramas.patches import Patch
from transforms.panoramas.plan import PatchShard
from transforms.panoramas.seams import SeamAudit, strip, with_audit
from transforms.render.synthesize import patch
from transforms.storage.files import read_bytes


def all_edges(plan, painted):
    return [patch.edges for patch in painted.patches(PatchShard(plan, 0, plan.tiles - 1))]


def audit_seams(plan, read_edges):
    """Returns the audit of a panorama whose patches have these edges."""
    audit = SeamAudit()
    patches = [Patch(index, 0, 0, np.zeros((1, 1, 3), np.uint8), read_edges(index)) for index in range(plan.tiles)]
    assert list(with_audit(plan, iter(patches), audit)) == patches
    return audit


def neighbours(plan):
    """Yields each pair of neighbouring tiles, by index, and the side of the first on which the second lies."""
    columns = plan.shape[1]
    for index in range(plan.tiles):
        if (index + 1) % columns:
            yield index, index + 1, "right"
        if index + columns < plan.tiles:
            yield index, index + columns, "bottom"


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 1 << 20]))
def test_each_border_is_looked_at_once(plan_of, width_px, height_px, memory_bytes):
    """The edges tell the tile and the side, and exactly those of neighbours are compared."""
    plan = plan_of(width_px, height_px)
    sides = np.arange(1, 5, dtype=np.uint8)[:, None, None]
    edges = [np.broadcast_to(sides + 4 * index, (4, 32, 3)).astype(np.uint8) for index in range(plan.tiles)]
    seen = []
    note = SeamAudit.compare

    def compare(self, ours, theirs):
        seen.append((int(ours[0, 0, 0]), int(theirs[0, 0, 0])))
        note(self, ours, theirs)

    with (
        replaced.object(SeamAudit, "compare", compare),
        replaced("transforms.panoramas.seams.MEMORY_BYTES", memory_bytes),
    ):
        audit = audit_seams(plan, edges.__getitem__)
    places = {"left": 1, "right": 2, "top": 3, "bottom": 4}
    across = {"right": "left", "bottom": "top"}
    expected = [(4 * a + places[side], 4 * b + places[across[side]]) for a, b, side in neighbours(plan)]
    assert sorted(seen) == sorted(expected)
    assert audit.borders == len(expected)


def test_the_strips_are_what_both_neighbours_compute(plan_of, painted):
    plan = plan_of(150, 100, origin_x_px=-40)
    edges = all_edges(plan, painted)
    for first, second, side in neighbours(plan):
        ours, theirs = strip(edges[first], side), strip(edges[second], {"right": "left", "bottom": "top"}[side])
        assert ours.shape == (painted.before + painted.after, 32, 3)
        np.testing.assert_array_equal(ours, theirs)
        rows, columns = plan.computed(first)
        border = (columns if side == "right" else rows)[1]
        window = (border - painted.before + 1, border + painted.after)
        where = (rows, window) if side == "right" else (window, columns)
        picture = painted.compute(*where).crop(*where)
        expected = ((picture + 1) * 127.5).round().permute((2, 1, 0) if side == "right" else (1, 2, 0)).numpy()
        np.testing.assert_array_equal(ours, expected)


def test_neighbours_that_agree_have_no_seam(plan_of, painted):
    plan = plan_of(150, 100)
    assert audit_seams(plan, all_edges(plan, painted).__getitem__) == SeamAudit(31, 0, 0, 31 * 5 * 32 * 3)


def test_a_lone_tile_has_no_seam(plan_of, painted):
    plan = plan_of(10, 10, origin_y_px=0)
    audit = audit_seams(plan, all_edges(plan, painted).__getitem__)
    assert audit.to_json() == {"borders": 0, "max_difference": 0, "differing_share": 0.0}


@settings(max_examples=60)
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
    assert audit.to_json()["differing_share"] == pytest.approx(1 / (audit.borders * part.size))


def test_a_shifted_tile_is_found(plan_of, painted):
    plan = plan_of(150, 100)
    edges = all_edges(plan, painted)
    elsewhere = all_edges(dataclasses.replace(plan, request=plan_of(150, 100, origin_x_px=64).request), painted)
    edges[7] = elsewhere[7]
    audit = audit_seams(plan, edges.__getitem__)
    assert audit.max_difference > 1
    assert audit.to_json()["differing_share"] > 0.01


@pytest.mark.parametrize(
    ("width_px", "origin_x_px", "closing"), [(96, 0, 2), (96, -64, 2), (32, 32, 2), (96, 16, 0), (112, 0, 0)]
)
def test_a_circle_is_closed_where_both_ends_are_borders(width_px, origin_x_px, closing, plan_of, painted):
    plan, plain = (
        plan_of(width_px, 64, origin_x_px=origin_x_px, origin_y_px=0, cyclic=cyclic) for cyclic in (True, False)
    )
    edges = all_edges(plain, painted)
    open_audit, audit = (audit_seams(each, edges.__getitem__) for each in (plain, plan))
    assert audit.borders == open_audit.borders + closing
    assert open_audit.max_difference == 0
    # The painted world does not close to a circle, so its two ends differ.
    assert (audit.max_difference > 0) == bool(closing)


def test_a_circle_of_a_network_closes(plan_of, tiny_checkpoint):
    plan = plan_of(1152, 64, 64, cyclic=True, origin_y_px=0)
    world = World(load_checkpoint(read_bytes(tiny_checkpoint), "tiny").generator, plan.request.definition)
    edges = [patch(world, plan, index).edges for index in range(plan.tiles)]
    audit = audit_seams(plan, edges.__getitem__)
    assert audit.borders == plan.tiles == 18
    assert audit.max_difference <= 1
    edges[0] = edges[1]
    assert audit_seams(plan, edges.__getitem__).max_difference > 1


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
    assert audit.to_json()["differing_share"] < 1e-3
    assert min(len(np.unique(edge)) for edge in edges) > 50
    edges[3] = foreign[3]
    assert audit_seams(plan, edges.__getitem__).max_difference > 20
