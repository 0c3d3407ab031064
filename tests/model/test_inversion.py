"""Inversion finds what looks like the photograph, the same each time, whole or in parts."""

import dataclasses

import pytest
import torch

from model import geometry
from model.config import PRESETS
from model.errors import DivergenceError, InputError
from model.inversion import (
    REACH_PX,
    Inversion,
    InversionConfig,
    Target,
    WPrior,
    correlation,
    from_gaussian,
    normalised,
    pieces,
    rate,
    to_gaussian,
)
from model.world.definition import Definition, Style
from model.world.latents import Latents
from model.world.overlay import box_windows, check_overlay
from model.world.world import World

CONFIG = PRESETS["tiny"]


def photograph(height, width):
    """Returns a picture of sky above ground."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    sky = torch.stack([90 + y, 140 + y // 2, 220 - y])
    ground = torch.stack([60 + x % 40, 90 - x % 20, 40 + 0 * x])
    return torch.where(y < height // 2, sky, ground).clamp(0, 255).to(torch.uint8)


def inversion_of(generator, height=48, width=96, x_px=0, y_px=-24, cyclic_px=None, **config):
    target = Target(photograph(height, width), x_px, y_px, cyclic_px)
    return Inversion(generator, target, InversionConfig(**{"steps": 6, **config}))


@pytest.mark.parametrize(("x_px", "cyclic_px"), [(0, None), (-77, 16 * 72)])
def test_the_world_shows_what_was_found(tiny, x_px, cyclic_px):
    """The fields optimised through the network of training give the same picture when they are rendered."""
    inversion = inversion_of(tiny, x_px=x_px, cyclic_px=cyclic_px)
    for _ in range(3):
        inversion.advance()
    overlay = inversion.overlay("0" * 64, {})
    check_overlay(overlay, "o", CONFIG, cyclic_px)
    definition = Definition(9, cyclic_px, (Style(overlay="o"),), overlays=("o",))
    shown = World(tiny, definition, overlays={"o": overlay}).render(*box_windows(overlay.box_px))
    assert (shown - inversion.picture()).abs().max() < 1e-4


def test_it_comes_closer_and_the_fields_stay_as_if_drawn(tiny):
    inversion = inversion_of(tiny, steps=40)
    before = inversion.quality()
    for _ in range(40):
        losses = inversion.advance()
    after = inversion.quality()
    assert after["psnr_db"] > before["psnr_db"] + 3
    assert after["lpips"] < 0.8 * before["lpips"]
    assert set(losses) == {"pixels", "lpips", "z_g", "z_l", "w", "noise"}
    z_l = inversion.untruncated_z_l[..., inversion.freedom[0, 0] > 0]
    assert abs(z_l.mean()) < 0.1
    assert 0.8 < z_l.std() < 1.2
    for noise in inversion.z_n:
        assert abs(noise.mean()) < 1e-5
        assert noise.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_far_from_the_photograph_the_local_latents_are_those_of_the_seed(tiny):
    inversion = inversion_of(tiny, steps=40, seed=3)
    for _ in range(40):
        inversion.advance()
    rows, columns = inversion.place.latents
    change = (inversion.overlay("0" * 64, {}).z_l - Latents(Definition(3), CONFIG).z_l(rows, columns)).abs()
    reach = -(-REACH_PX // CONFIG.cell_px)
    near = (..., geometry.part((-2 - reach, 1 + reach), rows), geometry.part((-reach, 5 + reach), columns))
    inside = (..., geometry.part((-2, 1), rows), geometry.part((0, 5), columns))
    assert change[inside].mean() > 2 * change[near].mean() > 0
    change[near] = 0
    assert change.max() < 1e-6


def test_stopped_and_resumed_is_the_same_bit_for_bit(tiny):
    whole = inversion_of(tiny)
    for _ in range(6):
        whole.advance()
    first = inversion_of(tiny)
    for _ in range(3):
        first.advance()
    second = inversion_of(tiny)
    second.restore({name: value.clone() for name, value in first.state().items()})
    for _ in range(3):
        second.advance()
    assert second.step == 6
    for name, value in whole.variables.items():
        assert torch.equal(value, second.variables[name]), name


def test_seen_in_tiles_the_picture_is_the_same_and_so_is_the_pixels_gradient(tiny):
    gradients = []
    for tile_px in (64, 256):
        inversion = inversion_of(tiny, 70, 130, lpips_weight=0, tile_px=tile_px)
        picture = inversion.picture()
        inversion.optimiser.step = lambda: None
        inversion.advance()
        gradients.append((picture, {name: value.grad for name, value in inversion.variables.items()}))
    assert len(pieces((0, 129), 64)) == 3
    assert (gradients[0][0] - gradients[1][0]).abs().max() < 1e-4
    for name, gradient in gradients[0][1].items():
        assert torch.allclose(gradient, gradients[1][1][name], atol=2e-4, rtol=1e-3), name


def test_a_state_of_another_inversion_and_a_loss_that_is_no_number_are_said(tiny):
    inversion = inversion_of(tiny)
    inversion.advance()
    with pytest.raises(InputError, match="does not fit"):
        inversion_of(tiny, 64, 64).restore(inversion.state())
    with pytest.raises(InputError, match="does not fit"):
        inversion_of(tiny).restore({})
    for step in (-(2**63), float("nan"), float("inf"), [1, 2]):
        with pytest.raises(InputError, match="does not fit"):
            inversion_of(tiny).restore(inversion.state() | {"step": torch.tensor(step)})
    with torch.no_grad():
        inversion.variables["z_g"].fill_(torch.nan)
    with pytest.raises(DivergenceError, match="step 1"):
        inversion.advance()


def test_what_the_network_draws_is_at_distance_one(tiny):
    prior = WPrior(tiny, "cpu")
    w = tiny.mapping(torch.randn(4000, CONFIG.z_g_dim, generator=torch.Generator().manual_seed(3)))
    assert torch.allclose(from_gaussian(to_gaussian(w)), w, atol=1e-6)
    assert prior.distance(to_gaussian(w)).item() == pytest.approx(1, abs=0.1)
    assert prior.distance(prior.mean[None]).item() == 0
    assert prior.distance(to_gaussian(w) * 3).item() > 4


def test_white_noise_has_no_correlation_and_stripes_have_all():
    white = torch.randn(1, 1, 200, 300, generator=torch.Generator().manual_seed(1))
    stripes = torch.tensor([1.0, -1.0]).repeat(1, 1, 8, 4)
    assert correlation(white) < 2e-3
    assert correlation(stripes) == 2  # equal to the one below, opposite to the one to the right
    assert normalised(white * 3 + 5).mean().abs() < 1e-5


def test_the_rate_rises_and_falls_to_nothing():
    rates = [rate(step, 1000) for step in range(1000)]
    assert max(rates) == 1
    assert rates[0] < 0.03
    assert rates[-1] < 1e-4
    assert rates[60:740] == [1.0] * 680


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": True}, "steps is True"),
        ({"seed": -1}, "seed is -1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"w_weight": float("nan")}, "w_weight is nan"),
        ({"tile_px": 10}, "tile is 10"),
    ],
)
def test_a_wrong_number_is_named(values, said):
    with pytest.raises(InputError, match=said):
        InversionConfig(**values)


def test_a_photograph_that_is_too_small_or_wider_than_its_circle_is_refused(tiny):
    with pytest.raises(InputError, match="sides must be 32 to 16384"):
        Target(photograph(20, 60), 0, 0)
    with pytest.raises(InputError, match="make it wider"):
        inversion_of(tiny, 48, 900, cyclic_px=16 * 72)
    assert dataclasses.replace(Target(photograph(40, 60), 0, 0), x_px=5).box_px == (5, 0, 60, 40)
