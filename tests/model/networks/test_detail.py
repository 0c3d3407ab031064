import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model import geometry
from model.config import DetailConfig
from model.networks.detail import (
    FACTOR,
    DetailStage,
    base_window,
    draw_noise,
    enlarge,
    noise_windows,
    output_window,
    smallest_base_px,
)
from model.networks.layers import convolve_up, smooth_up

CONFIG = DetailConfig()
SMALLEST_BASE_PX = smallest_base_px(CONFIG)
BASE = (-60, 70), (1000, 1140)
"""The rows and columns of the base whose picture is large enough to cut all windows from."""


def build(dtype=torch.float32):
    """Returns a network whose noise and last layer matter, as after training."""
    torch.manual_seed(0)
    stage = DetailStage(CONFIG)
    torch.nn.init.normal_(stage.to_rgb.weight, std=0.05)
    return stage.eval().requires_grad_(False).to(dtype)


@pytest.fixture(scope="module")
def stage():
    return build()


@pytest.fixture(scope="module")
def fields():
    """Returns a base picture and its noise."""
    random = torch.Generator().manual_seed(1)
    base = torch.randn(1, 3, *(geometry.length(window) for window in BASE), generator=random)
    return base, draw_noise(CONFIG, base.shape, random)


@pytest.fixture(scope="module")
def whole(stage, fields):
    return stage(*fields)


def cut(field, rows, columns, whole_rows, whole_columns):
    return field[:, :, geometry.part(rows, whole_rows), geometry.part(columns, whole_columns)].contiguous()


def draw(stage, fields, rows, columns):
    """Draws what a window of the base gives, from its own part of the base and of the noise."""
    base, noise = fields
    places = [noise_windows(CONFIG, window) for window in (rows, columns, *BASE)]
    maps = [cut(field, *place) for field, *place in zip(noise, *places, strict=True)]
    return stage(cut(base, rows, columns, *BASE), maps)


def part_of(whole, rows, columns):
    return cut(whole, *(output_window(CONFIG, window) for window in (rows, columns, *BASE)))


def windows_within(low, high):
    """Draws windows that are large enough."""
    starts = st.integers(low, high + 1 - SMALLEST_BASE_PX)
    return starts.flatmap(lambda start: st.integers(start + SMALLEST_BASE_PX - 1, high).map(lambda end: (start, end)))


@settings(max_examples=20)
@given(windows_within(*BASE[0]), windows_within(*BASE[1]))
def test_any_window_equals_its_part_of_a_larger_one(stage, fields, whole, rows, columns):
    assert torch.equal(draw(stage, fields, rows, columns), part_of(whole, rows, columns))


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_the_number_of_threads_changes_no_bit(stage, fields, whole, threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for rows, columns in (BASE, ((-40, 0), (1003, 1039))):
            assert torch.equal(draw(stage, fields, rows, columns), part_of(whole, rows, columns))
    finally:
        torch.set_num_threads(before)


def test_the_smallest_base_has_a_side_of_37_px():
    assert SMALLEST_BASE_PX == 37


@given(st.integers(-1000, 1000), st.integers(37, 300))
def test_the_pixels_of_a_window_of_the_base_follow_the_closed_formula(low, n):
    assert output_window(CONFIG, (low, low + n - 1)) == (4 * low + 42, 4 * (low + n - 1) - 39)


@given(st.integers(-(10**6), 10**6), st.integers(0, 300))
def test_the_base_that_an_output_needs_is_enough_and_large_enough(low, extent):
    output = (low, low + extent)
    base = base_window(CONFIG, output)
    given_low, given_high = output_window(CONFIG, base)
    assert given_low <= output[0] <= output[1] <= given_high
    assert geometry.length(base) >= SMALLEST_BASE_PX


@given(st.integers(37, 90), st.integers(37, 60))
@settings(max_examples=5)
def test_outputs_and_noise_have_the_sizes_that_geometry_gives(stage, height, width):
    shape = (2, 3, height, width)
    noise = draw_noise(CONFIG, shape, torch.Generator())
    picture = stage(torch.zeros(shape), noise)
    assert picture.shape[2:] == tuple(geometry.size(CONFIG.layers, side) for side in (height, width))
    assert [x.shape[2] for x in noise] == [geometry.length(x) for x in noise_windows(CONFIG, (0, height - 1))]


def test_pixel_q_lies_at_a_quarter_of_q_plus_a_half():
    """A ramp of base positions comes out as each output's position, before anything is drawn."""
    plain = DetailStage(CONFIG).requires_grad_(False).double()
    low, high = window = -60, -10
    n = geometry.length(window)
    ramp = torch.arange(low, high + 1).double()[:, None].expand(1, 3, n, n)
    first, last = output_window(CONFIG, window)
    expected = (torch.arange(first, last + 1).double() + 0.5) / FACTOR - 0.5
    picture = plain(ramp, [x.double() for x in draw_noise(CONFIG, ramp.shape, torch.Generator())])
    assert (picture[0, 0] - expected[:, None]).abs().max() < 1e-12
    sideways = plain(ramp.transpose(2, 3), [x.double() for x in draw_noise(CONFIG, ramp.shape, torch.Generator())])
    assert (sideways[0, 2] - expected).abs().max() < 1e-12


@given(st.integers(-50, 50), st.integers(4, 12))
def test_an_up_layer_puts_its_outputs_halfway(low, n):
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[..., 1, 1] = 1
    ramp = torch.arange(low, low + n).double().expand(1, 1, n, n)
    first, last = geometry.Layer(up=True, halfway=True).forward((low, low + n - 1))
    # Zeros between the inputs make single outputs swing around the ramp; the mean of each two neighbours is on it.
    up = smooth_up(convolve_up(ramp, weight))[0, 0, 0]
    expected = (torch.arange(first, last + 1).double() + 0.5) / 2 - 0.5
    assert len(up) == len(expected)
    assert ((up - expected)[1:] + (up - expected)[:-1]).abs().max() < 1e-12
    assert (up - expected).abs().max() < 0.3


def test_enlarging_is_pillows_bicubic():
    values = np.random.default_rng(0).normal(size=(12, 15)).astype(np.float32)
    ours = enlarge(torch.from_numpy(values)[None, None])[0, 0]
    pillows = np.asarray(Image.fromarray(values).resize((60, 48), Image.Resampling.BICUBIC))
    assert np.abs(ours.numpy() - pillows[8:-8, 8:-8]).max() < 1e-5


def test_an_even_base_has_no_grid():
    stage, base = build(torch.float64), torch.full((1, 3, 51, 51), 0.3, dtype=torch.float64)
    noise = [torch.zeros_like(x, dtype=torch.float64) for x in draw_noise(CONFIG, base.shape, torch.Generator())]
    picture = stage(base, noise)
    assert (picture - picture[:, :, :1, :1]).abs().max() < 1e-12


def test_nothing_beyond_the_receptive_field_matters(stage, fields, whole):
    """What lies beyond the window that `geometry.backward` gives changes nothing; what lies at its edge does."""
    wanted = (4, 60)
    low, high = geometry.backward(CONFIG.layers, wanted)
    for row, matters in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
        base = fields[0].clone()
        at = row - BASE[0][0]
        base[:, :, at] += 100
        changed = stage(base, fields[1])
        rows = geometry.part(wanted, output_window(CONFIG, BASE[0]))
        assert torch.equal(changed[:, :, rows], whole[:, :, rows]) != matters


@pytest.mark.parametrize("index", range(len(CONFIG.noise_layers)))
def test_each_noise_map_matters(stage, fields, whole, index):
    noise = list(fields[1])
    noise[index] = torch.zeros_like(noise[index])
    assert not torch.equal(stage(fields[0], noise), whole)


def test_the_network_has_160_thousand_parameters(stage):
    assert sum(x.numel() for x in stage.parameters()) == 159_027
