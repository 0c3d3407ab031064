import dataclasses
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model import geometry
from model.config import PRESETS
from model.cost import detailed, margin_share, needed, spent
from model.networks.detail import draw_noise
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


def test_a_detail_stage_costs_what_torch_counts(tiny_stage):
    """Its blurs, which have 4×4 taps, are not counted."""
    config, window, columns = tiny_stage.config, (-3, 60), (10, 50)
    noise = draw_noise(config, (1, 3, 64, 41), torch.Generator())
    with FlopCounterMode(display=False) as counter:
        tiny_stage(torch.zeros(1, 3, 64, 41), noise)
    ups = [layer for layer, each in enumerate(config.layers) if each.up]
    outputs = [geometry.outputs(config.layers, each) for each in (window, columns)]
    areas = [math.prod(geometry.length(windows[layer]) for windows in outputs) for layer in ups]
    blur = sum(area * channels * 16 for area, channels in zip(areas, config.up_channels, strict=True))
    assert counter.get_total_flops() == 2 * (detailed(config, window, columns) + blur)


def test_a_scaled_window_costs_its_base_and_its_stages(tiny_stage):
    tiny, stage = PRESETS["tiny"], tiny_stage.config
    rows = columns = (0, 511)
    base = geometry.backward(stage.layers, rows)
    cost = spent(tiny, rows, columns, (stage,))
    assert cost.detail == detailed(stage, base, base)
    assert cost.network - cost.detail == spent(tiny, base, base).network
    assert spent(tiny, rows, columns, (stage, stage)).detail > cost.detail


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
