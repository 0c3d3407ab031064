import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from model import geometry
from model.config import PRESETS
from model.geometry import Layer, structure_layers, texture_layers

PAPER_STRUCTURE = structure_layers(4, 7)
PAPER_TEXTURE = texture_layers(4)

ups = st.builds(Layer, kernel=st.just(3), up=st.just(True), halfway=st.booleans())
layers = ups | st.builds(Layer, kernel=st.sampled_from([1, 3, 5, 7]))
networks = st.lists(layers, min_size=1, max_size=9)
positions = st.integers(-(10**6), 10**6)
windows = st.tuples(positions, st.integers(0, 300)).map(lambda x: (x[0], x[0] + x[1]))
wide_windows = st.tuples(positions, st.integers(200, 400)).map(lambda x: (x[0], x[0] + x[1]))


def contains(outer, inner):
    return outer[0] <= inner[0] and inner[1] <= outer[1]


@given(networks, windows)
def test_the_input_that_backward_asks_for_gives_the_window(network, window):
    assert contains(geometry.forward(network, geometry.backward(network, window)), window)


@given(networks, windows)
def test_backward_asks_for_the_smallest_input_that_gives_the_window(network, window):
    low, high = geometry.backward(network, window)
    for smaller in ((low + 1, high), (low, high - 1)):
        assert not contains(geometry.forward(network, smaller), window)


@given(networks, wide_windows, st.integers(-50, 50), st.integers(0, 40))
def test_forward_and_backward_are_adjoint(network, given_cells, offset, extent):
    """An input window gives an output window exactly if it holds all that the output window needs."""
    given_pixels = geometry.forward(network, given_cells)
    assume(geometry.length(given_pixels) > 0)
    wanted = (given_pixels[0] + offset, given_pixels[0] + offset + extent)
    assert contains(given_pixels, wanted) == contains(given_cells, geometry.backward(network, wanted))


@given(networks, st.integers(-1000, 1000), st.integers(-1500, 1500))
def test_reach_and_backward_are_adjoint(network, position, offset):
    """An input position can change an output position exactly if the output position depends on it."""
    pixel = position * geometry.stride(network) + offset
    reaches = contains(geometry.reach(network, (position, position)), (pixel, pixel))
    assert reaches == contains(geometry.backward(network, (pixel, pixel)), (position, position))


@given(networks, wide_windows)
def test_sizes_and_windows_tell_the_same(network, window):
    size = geometry.size(network, geometry.length(window))
    assert size == geometry.length(geometry.forward(network, window))


@given(networks, wide_windows, st.integers(-1000, 1000))
def test_moving_a_window_by_a_cell_moves_everything_by_the_stride(network, window, step):
    moved = (window[0] + step, window[1] + step)
    step_px = step * geometry.stride(network)
    for follow in (geometry.forward, geometry.reach):
        low, high = follow(network, window)
        assert follow(network, moved) == (low + step_px, high + step_px)


@given(networks, wide_windows)
def test_outputs_are_the_windows_after_each_layer(network, window):
    expected = [geometry.forward(network[: n + 1], window) for n in range(len(network))]
    assert geometry.outputs(network, window) == expected


@given(st.integers(1, 8), st.integers(6, 100), positions)
def test_the_pixels_of_a_window_of_cells_follow_the_closed_formula(pairs, cells, low):
    high, n = low + cells - 1, 2**pairs
    expected = (n * low + 2 * (n - 1), n * high - 2 * (n - 1))
    assert geometry.forward(texture_layers(pairs), (low, high)) == expected
    assert geometry.size(texture_layers(pairs), cells) == n * cells - 5 * (n - 1)


def test_the_papers_patch_takes_35_cells_11_cells_and_101_px():
    assert geometry.size(PAPER_STRUCTURE, 35) == 11
    assert geometry.size(PAPER_TEXTURE, 11) == 101
    assert geometry.forward(PAPER_TEXTURE, (0, 10)) == (30, 130)
    assert geometry.backward(PAPER_TEXTURE, (30, 130)) == (0, 10)
    assert geometry.backward(PAPER_STRUCTURE, (0, 10)) == (-12, 22)


def test_the_papers_layers_grow_11_cells_to_101_px():
    sizes = [geometry.length(window) for window in geometry.outputs(PAPER_TEXTURE, (0, 10))]
    assert sizes == [19, 17, 31, 29, 55, 53, 103, 101]


@pytest.mark.parametrize(("pairs", "patch_px"), [(4, 101), (5, 197), (6, 389), (7, 773)])
def test_more_pairs_give_larger_patches(pairs, patch_px):
    assert geometry.size(texture_layers(pairs), 11) == patch_px
    assert geometry.stride(texture_layers(pairs)) == 2**pairs


def test_a_cell_of_z_s_reaches_45_px_and_one_of_z_l_237_px():
    assert geometry.reach(PAPER_TEXTURE, (0, 0)) == (-45, 45)
    assert geometry.reach(PAPER_STRUCTURE + PAPER_TEXTURE, (0, 0)) == (-237, 237)
    assert geometry.reach(PAPER_TEXTURE, (5, 5)) == (80 - 45, 80 + 45)


@given(st.integers(1, 40), st.integers(0, 6), st.integers(-50, 50))
def test_padded_layers_keep_a_windows_extent(n, pairs, low):
    layers = geometry.texture_layers(pairs, padded=True)
    factor = 2**pairs
    assert geometry.size(layers, n) == factor * n
    assert geometry.forward(layers, (low, low + n - 1)) == (factor * low, factor * (low + n) - 1)


@pytest.mark.parametrize("name", ["paper", "small", "tiny"])
def test_every_width_has_the_papers_patch(name):
    config = PRESETS[name]
    assert (config.patch_px, config.latent_cells, config.cell_px, config.period_cells) == (101, 35, 16, 140)
    assert config.travel_cells == 6
    assert config.vertical_step == pytest.approx(0.375)
