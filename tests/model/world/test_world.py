import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import geometry
from model.config import PRESETS
from model.errors import InputError
from model.geometry import LIMIT
from model.networks.detail import FACTOR, smallest_base_px
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.definition import Definition, Journey, Style
from model.world.detailed import DetailedWorld, at_scale
from model.world.fields import z_g_vector
from model.world.world import Picture, World

NAMES = ("tiny", "small", "paper")
positions = st.integers(-(2**31 - 2**17), 2**31 - 2**17) | st.integers(-400, 400)


@pytest.fixture(scope="session")
def worlds(tiny, small, paper, tiny_stage):
    plain = {"tiny": World(tiny, 5), "small": World(small, 2**64 - 1), "paper": World(paper, 0)}
    scaled = {f"tiny at {scale}": at_scale(World(tiny, 5), tiny_stage, scale) for scale in (4, 16)}
    return plain | scaled


def window_from(low, n):
    return low, low + n - 1


def panorama(width_px, height_px):
    """Returns the windows of a panorama whose origin is the default."""
    return window_from(-(height_px // 2), height_px), window_from(0, width_px)


def render_in_tiles(world, rows, columns, tile_px):
    """Renders a window by joining the tiles of the world's grid that it touches."""
    pixels = torch.full((3, geometry.length(rows), geometry.length(columns)), torch.nan)
    for row in range(rows[0] // tile_px, rows[1] // tile_px + 1):
        for column in range(columns[0] // tile_px, columns[1] // tile_px + 1):
            top, left = row * tile_px, column * tile_px
            tile = Picture(
                world.render(window_from(top, tile_px), window_from(left, tile_px)),
                window_from(top, tile_px),
                window_from(left, tile_px),
            )
            part_rows = max(rows[0], top), min(rows[1], top + tile_px - 1)
            part_columns = max(columns[0], left), min(columns[1], left + tile_px - 1)
            y, x = part_rows[0] - rows[0], part_columns[0] - columns[0]
            part = tile.crop(part_rows, part_columns)
            pixels[:, y : y + part.shape[1], x : x + part.shape[2]] = part
    return pixels


def assert_equal_to_rounding(a, b):
    assert a.shape == b.shape
    assert torch.isfinite(a).all()
    assert (a - b).abs().mean() <= 5e-6
    assert (a - b).abs().max() <= 1e-4


def assert_equal_pixels(a, b):
    """Checks the second promise: no pixel differs by more than 1 of 255, and fewer than 1 in 1000 differ at all."""
    a, b = quantise(a).int(), quantise(b).int()
    assert (a - b).abs().max() <= 1
    assert (a != b).any(dim=0).double().mean() < 1e-3
    assert a.unique().numel() > 50


@st.composite
def windows_within_windows(draw, largest_px):
    size = draw(st.integers(1, largest_px))
    low = draw(positions)
    start = draw(st.integers(0, size - 1))
    end = draw(st.integers(start, size - 1))
    return window_from(low, size), (low + start, low + end)


def most_beyond(world):
    """Returns the number of pixels that a world computes beyond a window, on each side, at the most."""
    return FACTOR * smallest_base_px(world.stage.config) if isinstance(world, DetailedWorld) else 16


def check_windows(world, rows, columns):
    whole = world.compute(rows[0], columns[0])
    part = world.compute(rows[1], columns[1])
    for picture, wanted in ((whole, (rows[0], columns[0])), (part, (rows[1], columns[1]))):
        assert picture.pixels.shape == (3, geometry.length(picture.rows), geometry.length(picture.columns))
        for given_window, window in zip((picture.rows, picture.columns), wanted, strict=True):
            assert given_window[0] <= window[0] <= window[1] <= given_window[1]
            assert window[0] - given_window[0] < most_beyond(world)
            assert given_window[1] - window[1] < most_beyond(world)
    assert_equal_to_rounding(whole.crop(rows[1], columns[1]), part.crop(rows[1], columns[1]))


@settings(max_examples=60)
@given(windows_within_windows(150), windows_within_windows(150))
def test_any_window_of_a_tiny_world_equals_its_part_of_a_larger_one(worlds, rows, columns):
    check_windows(worlds["tiny"], rows, columns)


@settings(max_examples=25)
@given(windows_within_windows(120), windows_within_windows(120))
def test_any_window_of_a_small_world_equals_its_part_of_a_larger_one(worlds, rows, columns):
    check_windows(worlds["small"], rows, columns)


@pytest.mark.parametrize("scale", [4, 16])
@settings(max_examples=12)
@given(rows=windows_within_windows(250), columns=windows_within_windows(250))
def test_any_window_of_a_scaled_world_equals_its_part_of_a_larger_one(worlds, scale, rows, columns):
    check_windows(worlds[f"tiny at {scale}"], rows, columns)


@pytest.mark.parametrize("turn_px", [None, 16 * 80])
@pytest.mark.parametrize("dimensions", [1, 2])
@settings(max_examples=12)
@given(rows=windows_within_windows(120), columns=windows_within_windows(120))
def test_any_window_of_a_journey_equals_its_part_of_a_larger_one(tiny, dimensions, turn_px, rows, columns):
    journey = Journey(every_px=256, dimensions=dimensions)
    check_windows(World(tiny, Definition(7, turn_px, truncation=0.7, journey=journey)), rows, columns)


@pytest.mark.parametrize(("top", "left"), [(-40, -7), (-(2**31) + 2**17, 10**9)])
def test_any_window_of_the_papers_world_equals_its_part_of_a_larger_one(worlds, top, left):
    rows = window_from(top, 60), window_from(top + 13, 20)
    columns = window_from(left, 50), window_from(left + 30, 20)
    check_windows(worlds["paper"], rows, columns)


@pytest.mark.parametrize(
    ("name", "tile_px"),
    [(name, tile_px) for name in ("tiny", "small") for tile_px in (64, 96, 256)]
    + [("tiny at 4", 96), ("tiny at 4", 256), ("tiny at 16", 160)],
)
def test_tiles_of_any_size_give_the_pixels_of_one_shot(worlds, name, tile_px):
    world = worlds[name]
    rows, columns = window_from(-150, 300), window_from(-50, 300)
    tiled = render_in_tiles(world, rows, columns, tile_px)
    one_shot = world.render(rows, columns)
    assert_equal_to_rounding(tiled, one_shot)
    assert_equal_pixels(tiled, one_shot)


def test_tiles_of_the_papers_world_give_the_pixels_of_one_shot(worlds):
    rows, columns = window_from(-32, 64), window_from(10, 64)
    tiled = render_in_tiles(worlds["paper"], rows, columns, 64)
    one_shot = worlds["paper"].render(rows, columns)
    assert_equal_to_rounding(tiled, one_shot)
    assert_equal_pixels(tiled, one_shot)


def test_five_pairs_keep_the_promise_too(five_pairs):
    world = World(five_pairs, 3)
    rows, columns = window_from(-130, 260), window_from(-100, 260)
    tiled = render_in_tiles(world, rows, columns, 96)
    one_shot = world.render(rows, columns)
    assert_equal_to_rounding(tiled, one_shot)
    assert_equal_pixels(tiled, one_shot)


@pytest.mark.parametrize("name", ["tiny", "tiny at 4"])
@settings(max_examples=10)
@given(
    height_px=st.integers(1, 120), more_px=st.integers(0, 150), width_px=st.integers(1, 90), wider_px=st.integers(0, 60)
)
def test_a_taller_and_wider_panorama_contains_a_smaller_one(worlds, name, height_px, more_px, width_px, wider_px):
    world = worlds[name]
    small_rows, small_columns = panorama(width_px, height_px)
    rows, columns = panorama(width_px + wider_px, height_px + more_px)
    taller = Picture(world.render(rows, columns), rows, columns)
    assert_equal_to_rounding(taller.crop(small_rows, small_columns), world.render(small_rows, small_columns))


@pytest.mark.parametrize("at", [(0, 10**9), (0, -(10**9)), (10**9, 10**9), (-(10**9), 3)])
@pytest.mark.parametrize("name", ["tiny", "small", "tiny at 4"])
def test_a_billion_pixels_away_a_world_is_as_good_as_here(worlds, name, at):
    top, left = at
    rows, columns = window_from(top - 100, 200), window_from(left - 100, 200)
    one_shot = worlds[name].render(rows, columns)
    assert_equal_pixels(render_in_tiles(worlds[name], rows, columns, 64), one_shot)
    here = worlds[name].render(window_from(-100, 200), window_from(-100, 200))
    assert 0.3 < one_shot.std() / here.std() < 3
    assert (one_shot - here).abs().mean() > 0.02


def test_a_world_does_not_repeat_with_its_coordinates(worlds):
    """The coordinates return after 140 cells; the latents do not."""
    rows = window_from(-32, 64)
    first, second = (worlds["tiny"].render(rows, window_from(left, 64)) for left in (0, 140 * 16))
    assert (first - second).abs().mean() > 0.02


@pytest.mark.parametrize("scale", [1, 4, 16])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**64 - 1), row=positions, column=positions)
def test_a_pixel_is_a_pure_function_of_model_seed_and_position(tiny, tiny_stage, scale, seed, row, column):
    """A window gives the same bits in any order and with any other windows."""

    def world_of(seed):
        return at_scale(World(tiny, seed), tiny_stage, scale)

    rows, columns = window_from(row, 40), window_from(column, 24)
    first = world_of(seed)
    pixels = first.render(rows, columns)
    first.render(window_from(row + 7, 30), window_from(column - 30, 90))
    assert torch.equal(first.render(rows, columns), pixels)
    assert torch.equal(world_of(seed).render(rows, columns), pixels)
    assert (world_of(seed ^ (1 << 40)).render(rows, columns) - pixels).abs().mean() > 0.01


@pytest.mark.parametrize("name", ["tiny", "tiny at 4", "tiny at 16"])
@settings(max_examples=10)
@given(row=positions, column=positions)
def test_a_single_pixel_can_be_asked_for(worlds, name, row, column):
    pixel = worlds[name].render((row, row), (column, column))
    around = worlds[name].render((row - 3, row + 2), (column - 1, column + 4))
    assert pixel.shape == (3, 1, 1)
    assert_equal_to_rounding(around[:, 3:4, 1:2], pixel)


@pytest.mark.parametrize("cells", [(0, 10), (-9, 3)])
def test_a_world_is_what_the_generator_of_training_gives_for_its_fields(tiny, latents_of, cells):
    """The fields are z_l, z_n, coordinates and z_g of the design, given to the batched network of training."""
    config, world = tiny.config, World(tiny, Definition(7, local_truncation=1))
    z_l, coordinates, z_n = latents_of(config, world.definition.seed, cells, cells)
    z_g = z_g_vector(world.definition.seed, config.z_g_dim)
    expected, _ = tiny(z_l.float(), coordinates.float(), z_g, [noise.float() for noise in z_n])
    window = geometry.forward(config.texture, cells)
    assert_equal_to_rounding(world.render(window, window), expected[0])


def test_the_mirror_of_the_horizon_is_no_mirror_of_the_picture(worlds):
    """Above and below the horizon differ, because the vertical coordinate has a sign."""
    picture = worlds["tiny"].render(window_from(-60, 121), window_from(0, 64))
    assert (picture - picture.flip(1)).abs().mean() > 0.02


@pytest.mark.parametrize("name", ["tiny", "tiny at 4"])
@pytest.mark.parametrize("low", [-LIMIT + 1, LIMIT - 40])
def test_a_window_may_lie_at_the_very_end_of_the_world(worlds, name, low):
    window = window_from(low, 40)
    whole = worlds[name].render(window, window)
    part = window_from(low + 5, 20)
    assert_equal_to_rounding(whole[:, 5:25, 5:25], worlds[name].render(part, part))


@pytest.mark.parametrize("name", ["tiny", "tiny at 4"])
@pytest.mark.parametrize("window", [(0, LIMIT), (-LIMIT, 0), (LIMIT, LIMIT + 5), (3, 2), (2**40, 2**40 + 1)])
def test_a_window_that_is_empty_or_leaves_the_world_is_refused_in_one_line(worlds, name, window):
    for rows, columns in ((window, (0, 9)), ((0, 9), window)):
        with pytest.raises(InputError) as caught:
            worlds[name].render(rows, columns)
        assert str(window[0]) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(tiny, seed):
    with pytest.raises(InputError, match=str(seed)):
        World(tiny, seed)


@given(st.floats(-3, 3))
def test_quantising_rounds_to_the_nearest_of_256_levels(value):
    level = quantise(torch.tensor([value], dtype=torch.float64)).item()
    assert abs(level - (min(max(value, -1), 1) + 1) * 127.5) <= 0.5


def test_quantising_maps_the_ends_to_the_ends_and_clamps():
    levels = quantise(torch.tensor([-5.0, -1.0, 1.0, 5.0, 0.0]))
    assert levels.dtype == torch.uint8
    assert levels.tolist() == [0, 0, 255, 255, 128]


@pytest.mark.parametrize(
    "fields",
    [{}, {"styles": (Style(seed=1), Style(seed=2, x_px=90))}, {"journey": Journey(every_px=256), "truncation": 0.7}],
)
def test_a_world_that_is_needed_no_more_is_freed_at_once(tiny, fields):
    """With all its weights, without the garbage collector."""
    gc.disable()
    try:
        world = World(tiny, Definition(7, **fields))
        world.render((0, 20), (0, 300))
        layer = world.engine.texture[0]
        parts = [weakref.ref(part) for part in (world, world.fusion, world.engine, layer, layer.folded(0))]
        del world, layer
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"styles": (Style(seed=1, x_px=10**6), Style(seed=2, x_px=10**6 + 200))},
        {"journey": Journey(every_px=256, dimensions=2), "truncation": 0.7, "local_truncation": 0.7},
    ],
)
@pytest.mark.parametrize(("preset", "scale"), [("tiny", 1), ("small", 1), ("tiny", 4)])
def test_the_number_of_threads_changes_no_bit(preset, scale, fields, tiny_stage):
    """This holds even before quantising: a worker with more cores computes the same tile."""
    torch.manual_seed(0)
    generator = Generator(PRESETS[preset]).eval()
    before = torch.get_num_threads()
    try:
        tiles = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            world = at_scale(World(generator, Definition(7, **fields)), tiny_stage, scale)
            tiles.append(world.compute((-256, -1), (10**6, 10**6 + 255)).pixels)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(tiles[0], tiles[1])
    assert torch.equal(tiles[0], tiles[2])
