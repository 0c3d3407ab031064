"""Worlds at four and sixteen times the resolution; test_world.py states the promises that hold at every scale."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PRESETS, DetailConfig
from model.networks.detail import base_window, noise_windows, output_window
from model.quantise import quantise
from model.world.definition import Definition, Edit, Journey, Style
from model.world.detailed import at_scale
from model.world.fields import z_n_fields
from model.world.scale import (
    ScaledConfig,
    base_box,
    base_edit,
    base_fusion_px,
    base_journey,
    base_style,
    stage_count,
)
from model.world.world import World

TURN_PX = 16 * 72
EDIT = Edit(box_px=(40, -8, 20, 20), seed=11)
STYLES = (Style(seed=1, x_px=20), Style(seed=2, x_px=60, y_px=5))
WORLDS = {
    "plain": Definition(7),
    "styles": Definition(7, styles=STYLES, fusion_px=31),
    "cyclic, edited": Definition(7, TURN_PX, edits=(EDIT,)),
    "cyclic, journey": Definition(7, TURN_PX, journey=Journey(every_px=256, dimensions=2), fusion_px=101),
}


def assert_equal_pixels(a, b):
    a, b = quantise(a).int(), quantise(b).int()
    assert (a - b).abs().max() <= 1
    assert (a != b).any(dim=0).double().mean() < 1e-3
    assert a.unique().numel() > 50


def world_of(tiny, tiny_stage, definition, scale):
    return at_scale(World(tiny, definition), tiny_stage, scale)


@pytest.mark.parametrize("scale", [4, 16])
@pytest.mark.parametrize("kind", WORLDS)
def test_two_halves_of_any_kind_of_world_are_its_whole(tiny, tiny_stage, kind, scale):
    world = world_of(tiny, tiny_stage, WORLDS[kind], scale)
    left, top = 40 * scale - 100, -30
    whole = world.render((top, top + 59), (left, left + 199))
    halves = [world.render((top, top + 59), (left + at, left + at + 99)) for at in (0, 100)]
    assert_equal_pixels(torch.cat(halves, 2), whole)


@pytest.mark.parametrize("scale", [4, 16])
@pytest.mark.parametrize("kind", ["cyclic, edited", "cyclic, journey"])
def test_a_circle_closes_at_every_scale(tiny, tiny_stage, kind, scale):
    """The seam, a turn later and a turn before, shows the same pixels, those of the noise included."""
    world, turn = world_of(tiny, tiny_stage, WORLDS[kind], scale), TURN_PX * scale
    here, later, before = (world.render((-20, 20), (at - 50, at + 50)) for at in (0, turn, -3 * turn))
    assert torch.equal(here, later)
    assert torch.equal(here, before)
    edge = world.render((-20, 20), (turn - 60, turn - 1)), world.render((-20, 20), (0, 59))
    assert_equal_pixels(torch.cat(edge, 2), world.render((-20, 20), (-60, 59)))


@pytest.mark.parametrize("scale", [4, 16])
def test_a_scaled_world_is_its_base_drawn_again(tiny, tiny_stage, scale):
    """Without detail it is the base enlarged; a square of the scale's side lies where one pixel of the base does."""
    world = world_of(tiny, tiny_stage, Definition(7), scale)
    base = World(tiny, 7).render((-8, 7), (100, 115))
    scaled = world.render((-8 * scale, 8 * scale - 1), (100 * scale, 116 * scale - 1))
    reduced = torch.nn.functional.avg_pool2d(scaled, scale)
    assert torch.corrcoef(torch.stack([base.flatten(), reduced.flatten()]))[0, 1] > 0.8


def test_the_first_level_is_what_the_stage_gives_for_the_bases_floats_and_the_noise_of_the_design(tiny, tiny_stage):
    world, config = world_of(tiny, tiny_stage, Definition(7), 4), tiny_stage.config
    rows, columns = (base_window(config, window) for window in ((-100, 99), (5000, 5163)))
    maps = zip(noise_windows(config, rows), noise_windows(config, columns), strict=True)
    noise = z_n_fields(7, [(2 * tiny.config.pairs + layer, *windows) for layer, windows in enumerate(maps)])
    expected = tiny_stage(World(tiny, 7).render(rows, columns)[None], noise)[0]
    found = world.render(output_window(config, rows), output_window(config, columns))
    assert (found - expected).abs().max() <= 1e-4


def test_no_two_layers_share_their_noise(tiny, tiny_stage):
    """The layers of both stages are numbered after those of G_T."""
    second = world_of(tiny, tiny_stage, Definition(7), 16)
    count = len(tiny_stage.config.noise_layers)
    assert (second.base.first_layer, second.first_layer) == (2 * tiny.config.pairs, 2 * tiny.config.pairs + count)
    windows = (0, 40), (-9, 60)
    maps = z_n_fields(7, [(layer, *windows) for layer in range(second.first_layer + count)])
    assert torch.corrcoef(torch.stack([each.flatten() for each in maps])).fill_diagonal_(0).abs().max() < 0.1


@pytest.mark.parametrize("scale", [4, 16])
def test_an_edit_changes_nothing_beyond_its_reach_and_something_within(tiny, tiny_stage, scale):
    config = ScaledConfig(tiny.config, (tiny_stage.config,) * stage_count(scale))
    plain, edited = (world_of(tiny, tiny_stage, Definition(7, edits=edits), scale) for edits in ((), (EDIT,)))
    rows, columns = (config.reach(window) for window in EDIT.reach(tiny.config))
    middle = sum(rows) // 2

    def differing(left):
        window = (middle, middle + 20), (left, left + 40)
        return plain.render(*window) != edited.render(*window)

    assert not differing(columns[0] - 41).any()
    assert not differing(columns[1] + 1).any()
    assert differing(50 * scale).float().mean() > 0.5


@given(st.integers(-(10**6), 10**6), st.integers(1, 3000), st.sampled_from([1, 4, 16]))
def test_the_pixels_computed_are_those_that_geometry_gives(low, extent, scale):
    stages = (DetailConfig(),) * stage_count(scale)
    first, last = ScaledConfig(PRESETS["tiny"], stages).computed((low, low + extent - 1))
    assert first <= low
    assert last >= low + extent - 1


@pytest.mark.parametrize("scale", [1, 4])
def test_what_is_computed_is_what_is_said(tiny, tiny_stage, scale):
    config = ScaledConfig(tiny.config, (tiny_stage.config,) * stage_count(scale))
    picture = world_of(tiny, tiny_stage, Definition(7), scale).compute((-33, 190), (1000, 1030))
    assert (picture.rows, picture.columns) == (config.computed((-33, 190)), config.computed((1000, 1030)))


@pytest.mark.parametrize("scale", [1, 4, 16])
@settings(max_examples=8)
@given(at=st.integers(-(10**6), 10**6), cells=st.integers(1, 20))
def test_neighbouring_tiles_compute_the_pixels_around_their_border(tiny, tiny_stage, scale, at, cells):
    world = world_of(tiny, tiny_stage, Definition(7), scale)
    before, after = world.beyond
    assert before > 0
    assert after > 0
    config = ScaledConfig(tiny.config, (tiny_stage.config,) * stage_count(scale))
    low, high = config.computed((16 * at, 16 * (at + cells) - 1))
    assert low <= 16 * at - before
    assert high >= 16 * (at + cells) - 1 + after


positions = st.integers(-(10**9), 10**9)


@given(positions, st.integers(1, 10**5), st.sampled_from([4, 16]))
def test_a_box_becomes_the_pixels_of_the_base_that_it_touches(x, width, scale):
    left, _, across, _ = base_box((x, 0, width, 1), scale)
    touched = {q // scale for q in (x, x + width - 1)}
    assert (left, left + across - 1) == (min(touched), max(touched))


def test_what_a_request_gives_is_converted_to_the_base():
    edit = Edit(box_px=(-5, 8, 10, 4), seed=1, like_box_px=(0, 0, 5, 4))
    assert base_edit(edit, 4) == Edit(box_px=(-2, 2, 4, 1), seed=1, like_box_px=(0, 0, 2, 1))
    assert base_style(Style(seed=1, x_px=-1, y_px=7), 4) == Style(seed=1, x_px=-1, y_px=1)
    assert base_journey(Journey(every_px=4099, seed=2), 4) == Journey(every_px=1024, seed=2)


@given(st.integers(1, 4095), st.sampled_from([1, 4, 16]))
def test_a_fusion_box_becomes_an_odd_number_of_base_pixels_no_wider_than_it(fusion_px, scale):
    base = base_fusion_px(fusion_px, scale)
    if scale == 1:
        assert base == fusion_px
    else:
        assert base % 2 == 1
        assert base * scale <= max(fusion_px, scale)
        assert (base + 2) * scale > fusion_px
