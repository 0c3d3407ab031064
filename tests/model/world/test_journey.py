"""Journeys: styles on a grid without end, against the same styles as a list."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import geometry
from model.world.definition import Definition, Journey, Style
from model.world.fields import journey_z_g
from model.world.fusion import Fusion, Mixture
from model.world.journey import Grid, number_of, place_of
from model.world.world import World

TURN_PX = 16 * 80
EVERY_PX = 300

far = st.integers(-(2**31) + 2**17, 2**31 - 2**17)
places = st.integers(-2000, 2000) | far
dimensions = st.sampled_from([1, 2])
turns = st.none() | st.just(TURN_PX)


def definition_of(turn_px=None, dimensions=1, fusion_px=127, every_px=EVERY_PX, **fields):
    journey = Journey(every_px=every_px, seed=3, dimensions=dimensions)
    return Definition(7, turn_px, fusion_px=fusion_px, journey=journey, **fields)


def weights_by_number(found, shape):
    """Returns the weight of each style that occurs, by its number."""
    if isinstance(found, Mixture):
        return {k: weight.numpy() for k, weight in zip(found.styles, found.weights, strict=True)}
    return {found: np.ones(shape, np.float32)}


def listed(definition, rows, columns):
    """Returns a world with the same centres around a window as a list of styles, and the number of each."""
    grid = Grid(definition)
    size = definition.journey.every_px
    down = [0] if grid.one_row else range(rows[0] // size - 4, rows[1] // size + 5)
    across = range(columns[0] // size - 5, columns[1] // size + 6)
    centres = [grid.centre(row, column) for row in down for column in across]
    styles = tuple(Style(seed=k, y_px=y, x_px=x) for k, (_, y, x) in enumerate(centres))
    return Definition(0, None, styles, definition.fusion_px), [number for number, _, _ in centres]


@settings(max_examples=60)
@given(
    st.integers(-2000, 2000), st.integers(-2000, 2000), dimensions, turns, st.sampled_from([1, 31, 255]), st.booleans()
)
def test_the_grid_gives_the_weights_of_its_centres_as_a_list(top, left, dimensions, turn_px, fusion_px, fine):
    step = 1 if fine else 16
    rows, columns = ((low // step, low // step + 160 // step) for low in (top, left))
    definition = definition_of(turn_px, dimensions, fusion_px)
    found = Fusion(definition, "cpu").map(rows, columns, step).at(rows, columns)
    pixels = [(low * step, high * step) for low, high in (rows, columns)]
    styles, numbers = listed(definition, *pixels)
    shape = [geometry.length(window) for window in (rows, columns)]
    if dimensions == 1:
        by_place = weights_along_x(styles, pixels[1], step)
    else:
        by_place = weights_by_number(Fusion(styles, "cpu").map(rows, columns, step).at(rows, columns), shape)
    expected: dict[int, np.ndarray] = {}
    for k, weight in by_place.items():
        expected[numbers[k]] = expected.get(numbers[k], 0) + weight
    weights = weights_by_number(found, shape)
    assert set(weights) == set(expected)
    assert all(np.abs(weights[k] - expected[k]).max() < 1e-6 for k in weights)


def weights_along_x(definition, columns_px, step):
    """Computes the weight of each style by hand, where only the distance along x counts."""
    half = definition.fusion_px // 2
    x = np.arange(columns_px[0] - half, columns_px[1] + half + 1)
    nearest = np.argmin([np.abs(x - style.x_px) for style in definition.styles], axis=0)
    boxes = np.lib.stride_tricks.sliding_window_view(nearest, definition.fusion_px)[::step]
    shares = {k: (boxes == k).mean(axis=1)[None] for k in range(len(definition.styles))}
    return {k: share for k, share in shares.items() if share.any()}


@settings(max_examples=40)
@given(places, places, dimensions, turns, st.integers(0, 20), st.integers(0, 20), st.sampled_from([1, 2, 8]))
def test_a_part_of_a_map_is_the_map_of_the_part(top, left, dimensions, turn_px, down, right, step):
    fusion = Fusion(definition_of(turn_px, dimensions, 31), "cpu")
    top, left = top // 8, left // 8
    whole = fusion.map((top * 8, (top + 40) * 8), (left * 8, (left + 40) * 8), 1)
    scale = 8 // step
    part = ((top + down) * scale, (top + down + 9) * scale), ((left + right) * scale, (left + right + 9) * scale)
    alone = Fusion(definition_of(turn_px, dimensions, 31), "cpu").map(*part, step).at(*part)
    shape = [geometry.length(window) for window in part]
    one, other = weights_by_number(whole.at(*part, step), shape), weights_by_number(alone, shape)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[k], other[k]) for k in one)


@settings(max_examples=30)
@given(st.integers(-2000, 2000), st.integers(-3, 3), dimensions)
def test_the_grid_closes_on_a_circle(left, times, dimensions):
    fusion, rows = Fusion(definition_of(TURN_PX, dimensions), "cpu"), (0, 20)
    here, there = (
        weights_by_number(fusion.map(rows, columns, 1).at(rows, columns), (21, 300))
        for columns in ((at, at + 299) for at in (left, left + times * TURN_PX))
    )
    assert list(here) == list(there)
    assert all(np.array_equal(here[k], there[k]) for k in here)


def test_a_circle_has_the_nearest_whole_number_of_squares_and_at_least_two():
    assert [Grid(definition_of(TURN_PX, every_px=every)).turn for every in (256, 300, 600, 900, 10**6)] == [
        5,
        4,
        2,
        2,
        2,
    ]


@settings(max_examples=60)
@given(far, st.sampled_from([256, 4096, 10**9]))
def test_at_most_three_styles_meet_at_a_pixel_along_x(x, every_px):
    fusion_px = min(every_px - 1, 2047)
    found = Fusion(definition_of(every_px=every_px, fusion_px=fusion_px), "cpu").map((0, 0), (x, x), 1)
    assert len(found.styles) <= 3


@given(st.integers(-(2**24), 2**24), st.integers(-(2**24), 2**24), st.integers(256, 10**6))
def test_a_centre_lies_in_the_middle_half_of_its_square(row, column, every_px):
    number, y, x = Grid(definition_of(dimensions=2, every_px=every_px)).centre(row, column)
    for place, square in ((y, row), (x, column)):
        assert (4 * square + 1) * every_px // 4 <= place <= (4 * square + 3) * every_px // 4
    assert place_of(number) == (row, column)


@given(st.integers(-(2**24), 2**24), st.integers(-(2**31), 2**31 - 1))
def test_a_number_tells_its_place(row, column):
    assert place_of(number_of(row, column)) == (row, column)


def test_far_from_a_border_a_journey_has_the_pixels_of_the_style_of_its_place(tiny):
    definition = definition_of(every_px=4096)
    number, _, x = Grid(definition).centre(0, 5)
    columns = (x - 40, x + 40)
    z_g = journey_z_g(3, *place_of(number), tiny.config.z_g_dim)
    alone = World(tiny, Definition(7, styles=(Style(z_g=tuple(z_g[0].tolist())),)))
    assert torch.equal(World(tiny, definition).render((-30, 40), columns), alone.render((-30, 40), columns))


def test_the_seed_of_a_journey_is_by_default_that_of_the_world(tiny):
    window = (0, 60), (0, 200)
    own, same, other = (
        World(tiny, Definition(7, journey=Journey(every_px=256, seed=seed))).render(*window) for seed in (None, 7, 8)
    )
    assert torch.equal(own, same)
    assert (own - other).abs().mean() > 0.01


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_tile_does_not_depend_on_the_styles_met_before(tiny, dimensions):
    """More styles than the caches hold pass through them in between."""
    world = World(tiny, definition_of(dimensions=dimensions))
    window = (-20, 20), (100, 200)
    first = world.render(*window)
    for column in range(0, 70 * EVERY_PX, EVERY_PX):
        world.render((0, 0), (column, column))
    assert torch.equal(world.render(*window), first)
    assert torch.equal(World(tiny, definition_of(dimensions=dimensions)).render(*window), first)
