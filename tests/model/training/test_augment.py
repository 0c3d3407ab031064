import dataclasses

import pytest
import torch
from torch.nn import functional

from model.config import PRESETS, RECIPES
from model.training.augment import augment, change_colours, shift

GENERATOR = PRESETS["tiny"]
OFF = RECIPES["paper"]
ON = RECIPES["projected"]


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=4, side=40):
    return torch.rand(n, 3, side, side, generator=source(9)) * 2 - 1


def test_the_papers_recipe_changes_nothing():
    x, t = pictures(), torch.linspace(-1, 1, 4)
    changed, moved = augment(x, t, GENERATOR, OFF, source())
    assert torch.equal(changed, x)
    assert torch.equal(moved, t)


def test_a_share_of_0_changes_no_colour_and_a_limit_of_0_moves_nothing():
    x = pictures()
    assert torch.equal(change_colours(x, 0.0, source()), x)
    moved, down_px = shift(x, 0, source())
    assert torch.equal(moved, x)
    assert down_px.tolist() == [0, 0, 0, 0]


def test_colours_change_on_the_share_of_pictures_only():
    x = pictures(400, 4)
    changed = change_colours(x, 0.3, source(1))
    same = torch.isclose(changed, x, atol=1e-5).flatten(1).all(dim=1)
    assert 0.6 < same.float().mean() < 0.8
    assert not torch.isclose(change_colours(x, 1.0, source(1)), x, atol=1e-5).flatten(1).all(dim=1).any()


def test_colour_changes_keep_the_places_and_stay_within_their_limits():
    """Brightness changes by 0.3 at most, saturation by 70%, contrast by 40%."""
    x = pictures(300, 6)
    changed = change_colours(x, 1.0, source(2))
    assert (changed.mean(dim=(1, 2, 3)) - x.mean(dim=(1, 2, 3))).abs().max() < 0.3 + 1e-5
    grey, changed_grey = x.mean(dim=1), changed.mean(dim=1)
    contrast = changed_grey.flatten(1).std(dim=1) / grey.flatten(1).std(dim=1)
    assert 0.6 - 1e-4 < contrast.min() < 0.7
    assert 1.3 < contrast.max() < 1.4 + 1e-4
    colour = (changed - changed_grey[:, None]).flatten(1).std(dim=1) / (x - grey[:, None]).flatten(1).std(dim=1)
    saturation = colour / contrast
    assert 0.3 - 1e-4 < saturation.min() < 0.4
    assert 1.6 < saturation.max() < 1.7 + 1e-4
    for a, b in zip(grey.flatten(1), changed_grey.flatten(1), strict=True):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.999


def test_a_shift_reads_the_reflected_picture_at_each_place():
    x = pictures(50)
    moved, down_px = shift(x, 5, source(3))
    padded = functional.pad(x, (5,) * 4, mode="reflect")
    assert moved.shape == x.shape
    for picture, whole, down in zip(moved, padded, down_px.int().tolist(), strict=True):
        rows = whole[:, 5 + down : 45 + down]
        assert any(torch.equal(picture, rows[:, :, left : left + 40]) for left in range(11))
    assert set(down_px.tolist()) == set(range(-5, 6))


def test_shifts_go_up_and_down_left_and_right_alike():
    """Each of the 2·3 + 1 shifts is equally frequent, in both directions independently."""
    ramp = torch.arange(20.0)
    x = (ramp[:, None] * 20 + ramp).expand(2000, 3, 20, 20)
    moved, down_px = shift(x, 3, source(4))
    centre = moved[:, 0, 10, 10]
    down, right = centre.div(20, rounding_mode="floor") - 10, centre % 20 - 10
    assert torch.equal(down, down_px)
    for values in (down, right):
        counts = torch.bincount((values + 3).long(), minlength=7)
        assert counts.min() > 200
        assert counts.max() < 380
    assert abs(torch.corrcoef(torch.stack([down, right]))[0, 1]) < 0.1


def test_a_window_that_moves_down_in_its_photograph_gets_the_t_of_the_lower_crop():
    """A shifted crop of a tall picture is another crop of the picture, with that crop's t."""
    tall = torch.arange(197.0)[None, None, :, None].expand(64, 3, 197, 101)
    top = 48
    crop = tall[:, :, top : top + 101]
    t = torch.full((64,), 2 * top / (197 - 101) - 1)
    only_shift = dataclasses.replace(ON, augment_colour=0.0)
    shifted, shifted_t = augment(crop, t, GENERATOR, only_shift, source(5))
    middle_row = shifted[:, 0, 50, 50]
    assert middle_row.unique().numel() > 10
    expected = 2 * (middle_row - 50) / (197 - 101) - 1
    assert torch.allclose(shifted_t, expected, atol=1e-6)


def test_a_shift_of_s_px_adds_2s_of_what_the_full_picture_is_larger():
    _, t = augment(pictures(200, 101), torch.zeros(200), GENERATOR, ON, source(6))
    steps = t * (197 - 101) / 2
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert steps.round().min() == -12
    assert steps.round().max() == 12


def test_gradients_flow_back_to_every_picture():
    x = pictures(side=101).requires_grad_()
    augmented, _ = augment(x, torch.zeros(4), GENERATOR, dataclasses.replace(ON, augment_colour=1.0), source(7))
    augmented.square().sum().backward()
    assert (x.grad.abs() > 0).float().mean() > 0.6
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_source_augments_alike(seed):
    first, second = (augment(pictures(), torch.zeros(4), GENERATOR, ON, source(seed)) for _ in range(2))
    other, _ = augment(pictures(), torch.zeros(4), GENERATOR, ON, source(seed + 10))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other)
