"""Measures of single pictures whose answers are known."""

import math

import pytest
import torch

from model.metrics.statistics import (
    FRAME_STATISTICS,
    PATCH_STATISTICS,
    brightness,
    clipped,
    contrast,
    fine_power,
    horizon_height,
    horizon_relief,
    red_green,
    saturation,
    yellow_blue,
)


def plain(*colour, height=64, width=64):
    return torch.tensor(colour, dtype=torch.uint8)[None, :, None, None].expand(1, 3, height, width)


def grey(values):
    """Returns a picture of real values [H,W]."""
    return values[None, None].expand(1, 3, *values.shape)


def test_clipped_counts_pixels_with_any_channel_at_an_end():
    picture = plain(100, 100, 100).clone()
    picture[0, 0, 0] = 255
    picture[0, 1, 1] = 1
    picture[0, 2, 2] = 2
    assert float(clipped(picture)) == 2 / 64


def test_plain_colours_are_what_they_are():
    assert float(brightness(plain(100, 100, 100))) == pytest.approx(100)
    assert float(saturation(plain(100, 100, 100))) == 0
    assert float(red_green(plain(200, 50, 10))) == 150
    assert float(yellow_blue(plain(200, 100, 50))) == 100
    assert float(saturation(plain(130, 100, 75))) == pytest.approx(50)
    assert float(contrast(plain(9, 9, 9))) == 0


def test_statistics_come_one_a_picture():
    pictures = torch.randint(0, 256, (5, 3, 40, 60), dtype=torch.uint8)
    for function in (*PATCH_STATISTICS.values(), *FRAME_STATISTICS.values()):
        assert function(pictures).shape == (5,)
        assert torch.allclose(function(pictures)[2:3], function(pictures[2:3]))


def test_the_power_of_white_noise_is_its_variance_at_every_frequency():
    noise = 10 * torch.randn(400, 1, 33, 47, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    assert float(fine_power(noise + 128).mean()) == pytest.approx(100, rel=0.05)


def test_fine_power_sees_hatching_and_not_hills():
    x = torch.arange(96.0)
    hills = grey(40 * torch.sin(2 * math.pi * x / 32).expand(96, 96))
    hatching = grey(4 * torch.sin(2 * math.pi * (x[:, None] + x) / 4).expand(96, 96))
    assert float(fine_power(hatching)) > 1000 * float(fine_power(hills))


@pytest.mark.parametrize("row", [10, 50, 90])
def test_a_horizon_between_two_colours_is_found(row):
    picture = plain(90, 120, 200, height=100, width=101).clone()
    picture[:, :, row:] = plain(60, 90, 40, height=100 - row, width=101)
    assert float(horizon_height(picture)) == row / 100
    assert float(horizon_relief(picture)) == 0


def test_a_mountain_has_relief():
    picture = plain(90, 120, 200, height=100, width=80).clone()
    for column in range(80):
        picture[:, :, 20 + column // 2 :, column] = 30
    assert float(horizon_height(picture)) == pytest.approx(0.4, abs=0.05)
    assert float(horizon_relief(picture)) == pytest.approx(0.122, abs=0.02)
