"""How much a network varies a scene, and whether panoramas repeat themselves."""

import pytest
import torch

from model.metrics.diversity import diversity, variations
from model.metrics.repetition import repetition
from model.networks.lpips import Lpips


@torch.inference_mode()
def structure_of(generator):
    """Returns the z_S of each call of G_T."""
    seen = []
    handle = generator.texture.register_forward_pre_hook(lambda module, arguments: seen.append(arguments))
    return seen, handle


def test_along_a_row_only_textures_change_and_down_a_column_only_local_latents(tiny):
    seen, handle = structure_of(tiny)
    pictures = variations(tiny, seed=0, latents=2, textures=3)
    handle.remove()
    assert pictures.shape == (2, 3, 3, 197, 197)
    rows = [seen[:3], seen[3:]]
    for row in rows:
        assert all(torch.equal(call[0], row[0][0]) for call in row)
        assert all(torch.equal(mine, first) for call in row for mine, first in zip(call[2], row[0][2], strict=True))
    for first, second in zip(*rows, strict=True):
        assert not torch.equal(first[0], second[0])
        assert torch.equal(first[1][0], second[1][0])
    assert len({float(call[1][0].sum()) for call in rows[0]}) == 3


def test_pictures_of_one_seed_are_always_the_same(tiny):
    assert torch.equal(variations(tiny, 1, 1, 2), variations(tiny, 1, 1, 2))
    assert not torch.equal(variations(tiny, 1, 1, 2), variations(tiny, 2, 1, 2))


def test_diversity_is_of_what_differs_alone():
    random = torch.Generator().manual_seed(0)
    rows = torch.rand(3, 2, 1, 3, 48, 48, generator=random).expand(-1, -1, 2, -1, -1, -1) * 2 - 1
    found = diversity(Lpips(), rows)
    assert found.textures.value == 0
    assert found.local_latents.value > 0.1
    assert found.worlds.value > 0.1
    assert found.worlds.error > 0


PERIOD_PX, CELL_PX = 1600, 16


def noise(n, width, seed=0):
    return torch.randint(0, 256, (n, 3, 48, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_a_panorama_that_repeats_is_found_out():
    one = noise(4, PERIOD_PX)
    found = repetition(torch.cat([one, one, one], dim=3), PERIOD_PX, CELL_PX)
    assert found.at_period.value == pytest.approx(1)
    assert found.shuffled_95 < 0.5


def test_one_that_does_not_is_within_its_controls():
    found = repetition(noise(8, 3 * PERIOD_PX), PERIOD_PX, CELL_PX)
    assert abs(found.at_period.value) < 4 * found.at_period.error
    assert found.at_period.value < 2 * found.shuffled_95
    assert abs(found.shuffled_mean) < found.shuffled_95


def test_that_sky_is_like_sky_does_not_count():
    """The rows have one colour each, with small random changes."""
    rows = torch.arange(48)[:, None] * 4
    found = repetition(noise(8, 2 * PERIOD_PX) // 8 + rows.to(torch.uint8), PERIOD_PX, CELL_PX)
    assert found.at_period.value < 0.1


def test_repetition_beside_other_things_is_their_share():
    """Half of the variance repeats."""
    again = noise(6, PERIOD_PX).repeat(1, 1, 1, 2) // 2
    found = repetition(again + noise(6, 2 * PERIOD_PX, seed=1) // 2, PERIOD_PX, CELL_PX)
    assert found.at_period.value == pytest.approx(0.5, abs=0.05)
