"""The preview pictures of a training run."""

import numpy as np
import pytest
import torch

from model.config import PRESETS, ablation
from model.networks.ablations import build_generator
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.world import World
from transforms.training.previews import grid, sample_grid, strip


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return Generator(PRESETS["tiny"]).eval()


def test_a_grid_reads_like_a_page():
    pictures = torch.linspace(-1, 1, 16)[:, None, None, None].expand(16, 3, 2, 5)
    page = grid(pictures)
    assert page.shape == (4, 40, 3)
    assert page[::2, ::5, 0].flatten().tolist() == quantise(torch.linspace(-1, 1, 16)).tolist()


def test_the_pictures_of_one_generator_are_always_the_same(tiny):
    assert sample_grid(tiny).shape == (4 * 101, 8 * 101, 3)
    assert np.array_equal(sample_grid(tiny), sample_grid(tiny))


def test_the_strip_is_world_7_around_its_horizon(tiny):
    whole = quantise(World(tiny, 7).render((-128, 127), (0, 1023))).permute(1, 2, 0)
    assert np.array_equal(strip(tiny), whole.numpy())


@pytest.mark.parametrize("kind", ["nci", "nci-fcg"])
def test_an_ablation_has_its_pictures_in_one_shot(kind):
    generator = build_generator(ablation(PRESETS["tiny"], kind)).eval()
    assert strip(generator).shape == (256, 1024, 3)
    patch_px = generator.config.patch_px
    assert sample_grid(generator).shape == (4 * patch_px, 8 * patch_px, 3)
