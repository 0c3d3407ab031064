import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.config import PRESETS
from model.cost import margin_share, needed, spent
from model.networks.generator import Generator
from model.world.world import World

TINY = PRESETS["tiny"]
CONFIGS = {
    "tiny": TINY,
    "five pairs": dataclasses.replace(TINY, texture_channels=(*TINY.texture_channels, 6), full_px=389),
    "small": PRESETS["small"],
}


@pytest.mark.parametrize("windows", [((-64, -1), (0, 63)), ((5, 47), (-100, 0)), ((7, 7), (3, 3))])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_window_costs_what_torch_counts(name, windows, monkeypatch):
    """To-RGB's 1×1 is computed as 1×3 with two zero taps, which torch counts."""
    monkeypatch.setattr("model.cost.RGB", 3 * 3)
    torch.manual_seed(0)
    world = World(Generator(CONFIGS[name]).eval(), 7)
    with FlopCounterMode(display=False) as counter:
        world.compute(*windows)
    cost = spent(world.config, *windows)
    assert counter.get_total_flops() == 2 * (cost.network + cost.blur)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_panorama_needs_is_what_endless_tiles_cost(name):
    """As tiles grow, the margins' share falls, and the cost per pixel approaches the least without going below it."""
    shares = [margin_share(CONFIGS[name], tile_px) for tile_px in (128, 256, 512, 1024, 2**20)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.1
    assert 0 < shares[-1] < 1e-3


def test_the_papers_network_needs_what_is_known_of_it():
    """The last plain convolution alone takes 512² · 9 multiply-adds per pixel, and the up layer before it a quarter."""
    last = 512 * 512 * 9
    config = PRESETS["paper"]
    texture = needed(config, 1, 1).texture
    pairs = [(last + last / 4) / 4**pair for pair in range(4)]
    pairs[3] -= last / 4 / 4**3 / 2  # the first up layer has 256 inputs
    rgb = 3 * 512 * sum(1 / 4**pair for pair in range(4))
    assert texture == pytest.approx(sum(pairs) + rgb)
    assert needed(config, 512, 2048).network == pytest.approx(512 * 2048 * needed(config, 1, 1).network)
