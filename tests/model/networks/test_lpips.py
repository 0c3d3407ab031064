"""LPIPS: the distances of the published code, from bundled weights in half precision."""

import pytest
import torch
from safetensors import safe_open

from model.networks.lpips import WEIGHTS, Lpips


def picture(k):
    """Computes a picture from a formula, [1,3,64,80] in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    return torch.stack([torch.sin((c + 1) * x / 7 + k) * torch.cos((c + 2) * y / (9 + k)) for c in range(3)])[None]


KNOWN = {(0, 1): 0.091971, (0, 3): 0.145413, (2, 5): 0.135495}


def test_distances_are_those_of_the_published_code():
    """The package lpips 0.1.4 gave these with the same weights in full precision in its own network."""
    measure = Lpips()
    for (first, second), expected in KNOWN.items():
        assert float(measure(picture(first), picture(second))) == pytest.approx(expected, rel=2.5e-4)


def test_a_picture_is_at_no_distance_from_itself_and_either_way_is_as_far():
    measure = Lpips()
    x, y = picture(0), picture(1)
    assert float(measure(x, x)) == 0
    assert float(measure(x, y)) == pytest.approx(float(measure(y, x)))
    assert measure(torch.cat([x, x]), torch.cat([x, y])).tolist() == pytest.approx([0, float(measure(x, y))])
    assert measure.pooled(torch.cat([x, y])).shape == (2, 256)


def test_it_leads_an_optimiser_but_does_not_train():
    measure, x = Lpips(), picture(0).requires_grad_()
    measure(x, picture(1)).sum().backward()
    assert x.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in measure.parameters())


def test_the_weights_are_small_and_their_notice_lies_beside_them():
    assert WEIGHTS.stat().st_size < 5_000_000
    with safe_open(WEIGHTS, "pt") as file:
        kernels = [name for name in file.keys() if name.startswith("convolutions") and name.endswith("weight")]  # noqa: SIM118
        assert {file.get_slice(name).get_dtype() for name in kernels} == {"F16"}
    notice = (WEIGHTS.parent / "NOTICE").read_text()
    assert "Richard Zhang" in notice
    assert "Soumith Chintala" in notice
