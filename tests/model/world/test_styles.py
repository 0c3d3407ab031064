"""Truncation: styles closer to the average one."""

import pytest
import torch

from model.checkpoint import load_checkpoint, save_checkpoint
from model.world.definition import Definition, Journey, Style
from model.world.fields import z_g_samples, z_g_vector
from model.world.styles import W_SAMPLES, mean_w, styles_of, with_mean_w
from model.world.world import World

WINDOW = (-30, 30), (0, 80)


def vectors(generator, number=0, overlays=None, **fields):
    return styles_of(Definition(7, **fields), generator, "cpu", overlays or {})(number)


@pytest.mark.parametrize("truncation", [0.0, 0.5, 1.0, 1.5])
def test_w_and_z_g_move_towards_their_mean(tiny, truncation):
    style = Style(seed=3, texture_seed=4)
    plain, found = vectors(tiny, styles=(style,)), vectors(tiny, styles=(style,), truncation=truncation)
    mean = mean_w(tiny)
    assert torch.allclose(found.z_g, truncation * z_g_vector(3, tiny.config.z_g_dim), atol=1e-6)
    for w, truncated in zip(plain.ws, found.ws, strict=True):
        assert torch.allclose(truncated, mean + truncation * (w - mean), atol=1e-5)


def test_a_truncation_of_1_is_none_at_all(tiny):
    assert torch.equal(World(tiny, Definition(7, truncation=1.0)).render(*WINDOW), World(tiny, 7).render(*WINDOW))
    assert (World(tiny, Definition(7, truncation=0.5)).render(*WINDOW) - World(tiny, 7).render(*WINDOW)).std() > 0.01


def test_every_drawn_style_is_truncated_alike(tiny):
    by_seed = vectors(tiny, styles=(Style(seed=7),), truncation=0.5)
    by_latent = vectors(tiny, styles=(Style(z_g=tuple(z_g_vector(7, 16)[0].tolist())),), truncation=0.5)
    own = vectors(tiny, truncation=0.5)
    for other in (by_latent, own):
        assert torch.equal(other.z_g, by_seed.z_g)
        assert torch.equal(other.ws[0], by_seed.ws[0])
    journey = Journey(every_px=256)
    plain, half = vectors(tiny, 5, journey=journey), vectors(tiny, 5, journey=journey, truncation=0.5)
    assert torch.equal(half.z_g, plain.z_g * 0.5)
    assert not torch.equal(half.ws[0], plain.ws[0])


def test_the_mean_is_that_of_the_samples_and_does_not_depend_on_threads(tiny):
    expected = tiny.mapping(z_g_samples(W_SAMPLES, tiny.config.z_g_dim)).mean(dim=0, keepdim=True)
    before = torch.get_num_threads()
    try:
        means = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            means.append(mean_w(tiny))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*means)
    assert (means[0] - expected).abs().max() < 2e-4


def test_a_checkpoint_without_the_mean_gives_the_same_world_as_one_with_it(tiny):
    pictures = []
    for tensors in (tiny.state_dict(), with_mean_w(tiny)):
        loaded = load_checkpoint(save_checkpoint(tensors, tiny.config, {}, "CC0-1.0"), "file").generator
        pictures.append(World(loaded, Definition(7, truncation=0.5)).render(*WINDOW))
    assert torch.equal(*pictures)


def test_the_mean_of_a_checkpoint_is_the_one_used(tiny):
    tensors = {**tiny.state_dict(), "w_mean": torch.ones(1, tiny.config.w_dim)}
    loaded = load_checkpoint(save_checkpoint(tensors, tiny.config, {}, "CC0-1.0"), "file").generator
    assert torch.equal(vectors(loaded, truncation=0.0).ws[0], torch.ones(1, tiny.config.w_dim))
