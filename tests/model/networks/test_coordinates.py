import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model import geometry
from model.config import PRESETS
from model.networks.coordinates import coordinate_field, draw_windows, vertical_label

CONFIG = PRESETS["tiny"]
PERIOD = 140
STEP = 0.375
cells = st.integers(-(2**27), 2**27)


def field(rows, columns):
    return coordinate_field(CONFIG, torch.tensor(rows), torch.tensor(columns))


@pytest.fixture(scope="module")
def drawn():
    return draw_windows(CONFIG, 2000, torch.Generator().manual_seed(3))


@given(st.integers(-40, 40), cells)
def test_a_cell_has_tanh_of_its_row_and_the_angle_of_its_column(row, column):
    angle = 2 * math.pi * (column % PERIOD) / PERIOD
    expected = [math.tanh(STEP * row), math.cos(angle), math.sin(angle)]
    assert field([row], [column])[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)


@given(cells, st.integers(-5, 5))
def test_the_period_is_half_open_so_that_column_t_is_column_0_exactly(column, turns):
    assert torch.equal(field([0], [column]), field([0], [column + turns * PERIOD]))


def test_no_two_columns_of_a_period_are_alike():
    points = field([0], list(range(PERIOD)))[1:, 0].T
    steps = (points.roll(-1, 0) - points).norm(dim=1)
    assert steps.tolist() == pytest.approx([2 * math.sin(math.pi / PERIOD)] * PERIOD, abs=1e-6)


@given(cells, cells, st.integers(1, 9), st.integers(1, 9))
def test_any_part_of_the_field_is_the_same_when_computed_alone(row, column, height, width):
    rows, columns = torch.arange(row, row + 10), torch.arange(column, column + 10)
    whole = coordinate_field(CONFIG, rows, columns)
    alone = coordinate_field(CONFIG, rows[-height:], columns[-width:])
    assert whole.shape == (3, 10, 10)
    assert torch.equal(whole[:, -height:, -width:], alone)


def test_the_horizon_is_row_0_and_rows_grow_downwards():
    vertical = field([-2, -1, 0, 1, 2], [0])[0, :, 0]
    assert vertical[2] == 0
    assert (vertical.diff() > 0).all()
    assert torch.allclose(vertical, -vertical.flip(0))


def test_rows_far_above_or_below_have_the_limit_of_tanh():
    assert field([-(10**9), 10**9], [0])[0, :, 0].tolist() == [-1, 1]


def test_the_rows_that_training_shows_end_at_tanh_0995():
    """A window at t = ±1 has its middle row V/2 cells from the horizon and shows M rows."""
    for config in PRESETS.values():
        last = config.travel_cells / 2 + (config.visible_cells - 1) / 2
        assert math.tanh(config.vertical_step * last) == pytest.approx(0.995, abs=1e-3)


def test_a_window_travels_as_many_pixels_as_a_crop():
    for pairs, full_px in ((4, 197), (5, 389), (6, 773)):
        config = dataclasses.replace(CONFIG, texture_channels=(4,) * pairs, full_px=full_px)
        assert config.travel_cells * config.cell_px == full_px - config.patch_px


def middle_rows(coordinates):
    """Returns the window's middle row in cells, read from its coordinates."""
    return coordinates[:, 0, CONFIG.latent_cells // 2, 0].double().atanh() / STEP


def test_the_middle_row_of_a_window_lies_where_t_says(drawn):
    """t = -1 and 1 are three rows above and below the horizon."""
    coordinates, t = drawn
    assert coordinates.shape == (2000, 3, 35, 35)
    assert torch.allclose(middle_rows(coordinates), 3 * t.double(), atol=1e-4)
    assert t.min() >= -1
    assert t.max() <= 1
    assert t.min() < -0.99
    assert t.max() > 0.99


def test_t_is_uniform_and_the_column_is_uniform_over_the_period(drawn):
    coordinates, t = drawn
    angle = torch.atan2(coordinates[:, 2, 17, 17], coordinates[:, 1, 17, 17]) / math.pi
    expected = torch.linspace(-1, 1, 2000)
    for values in (t, angle):
        assert (values.sort().values - expected).abs().max() < 2 * 1.95 / math.sqrt(2000)  # Kolmogorov and Smirnov
    assert abs(torch.corrcoef(torch.stack([t, angle]))[0, 1]) < 0.1


def test_position_is_continuous_and_not_on_the_grid(drawn):
    coordinates, _ = drawn
    angle = torch.atan2(coordinates[:, 2, 17, 17], coordinates[:, 1, 17, 17]).double()
    for position in (middle_rows(coordinates), angle * PERIOD / (2 * math.pi)):
        distance = (position - position.round()).abs()
        assert 0.2 < distance.mean() < 0.3


def test_within_a_window_rows_and_columns_are_one_cell_apart(drawn):
    """This holds across the end of the period too."""
    coordinates, _ = drawn
    rows = coordinates[:, 0, 14:21, 0].double().atanh() / STEP
    assert torch.allclose(rows.diff(dim=1), torch.ones(2000, 6, dtype=torch.float64), atol=2e-2)
    on_the_circle = torch.complex(coordinates[:, 1], coordinates[:, 2])
    turn = torch.polar(torch.tensor(1.0), torch.tensor(2 * math.pi / PERIOD))
    assert (on_the_circle[..., 1:] - on_the_circle[..., :-1] * turn).abs().max() < 1e-5


def test_the_same_source_draws_the_same_windows():
    first, second = (draw_windows(CONFIG, 3, torch.Generator().manual_seed(8)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_label_is_tanh_of_the_middle_row(drawn):
    coordinates, t = drawn
    assert torch.allclose(vertical_label(CONFIG, t), coordinates[:, 0, 17, 0], atol=1e-6)
    ends = vertical_label(CONFIG, torch.tensor([-1.0, 0.0, 1.0]))
    assert ends.tolist() == pytest.approx([-math.tanh(1.125), 0, math.tanh(1.125)])


@pytest.mark.parametrize("preset", ["tiny", "paper"])
def test_a_photographs_crop_and_a_window_at_the_same_t_lie_equally_far_from_the_middle(preset):
    config = PRESETS[preset]
    for t in (-1.0, -0.3, 0.7, 1.0):
        crop_middle_px = (config.full_px - config.patch_px) * (t + 1) / 2 + config.patch_px / 2 - config.full_px / 2
        window_middle_px = config.travel_cells / 2 * t * config.cell_px
        assert window_middle_px == pytest.approx(crop_middle_px)
        rows = geometry.forward(config.texture, (0, config.visible_cells - 1))
        assert geometry.length(rows) == config.patch_px


def test_a_share_of_the_windows_lies_beyond_the_frame_and_is_labelled_with_its_edge():
    random = torch.Generator().manual_seed(5)
    coordinates, t = draw_windows(CONFIG, 2000, random, beyond_share=0.3)
    edge = t.abs() == 1
    assert edge.double().mean().item() == pytest.approx(0.3, abs=0.04)
    assert (t == 1).sum().item() == pytest.approx((t == -1).sum().item(), rel=0.2)
    middle = torch.atanh(coordinates[:, 0, coordinates.shape[2] // 2, 0].double().clamp(-1 + 1e-7, 1 - 1e-7)) / STEP
    assert (middle[edge] * t[edge] > 2.9).all()
    assert (middle[edge].abs() > 10).double().mean() > 0.4
    assert middle[~edge].abs().max() < 3.1


PAPER_LAW = dataclasses.replace(CONFIG, vertical_law="paper")


def test_the_papers_law_has_its_numbers():
    assert PAPER_LAW.travel_cells == 10
    assert PAPER_LAW.vertical_step == pytest.approx(0.1333, abs=1e-4)
    assert {dataclasses.replace(PRESETS[name], vertical_law="paper").period_cells for name in PRESETS} >= {140}


def test_the_papers_law_moves_whole_rows_and_columns_by_up_to_half_a_cell():
    """Eleven rows move alike; t tells where the window lies within the frame; cos and sin stay on the circle."""
    coordinates, t = draw_windows(PAPER_LAW, 3000, torch.Generator().manual_seed(3))
    rows = coordinates[:, 0, 17, 0].double().atanh() / PAPER_LAW.vertical_step
    assert rows.abs().max() <= 5.5
    assert rows.abs().max() > 5.4
    assert torch.allclose(t.double(), (rows / 5).clamp(-1, 1), atol=1e-4)
    counts = torch.bincount((rows + 5.5).floor().clamp(0, 10).long())
    assert counts.min() > 0.8 * 3000 / 11
    assert torch.allclose(coordinates[:, 1].square() + coordinates[:, 2].square(), torch.ones(()), atol=1e-5)
