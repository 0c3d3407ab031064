"""The standard Inception: the published number of parameters, and files that are not its weights."""

import io
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save

from model.errors import InputError
from model.networks.inception import BLOCKS, STEM, Block, Inception


def add_convolution(weights, name, outputs, inputs, kernel, random):
    fan_in = inputs * kernel[0] * kernel[1]
    weights[f"{name}.conv.weight"] = torch.randn(outputs, inputs, *kernel, generator=random) * (2 / fan_in) ** 0.5
    for part, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        weights[f"{name}.bn.{part}"] = torch.full((outputs,), value)


@pytest.fixture(scope="module")
def weights():
    """Returns random weights in all the network's shapes."""
    weights, channels, random = {}, 3, torch.Generator().manual_seed(0)
    for (name, outputs, kernel), _, _ in STEM:
        add_convolution(weights, name, outputs, channels, kernel, random)
        channels = outputs
    for block, branches, pool in BLOCKS:
        total = channels if pool == "halve" else 0
        for branch in branches:
            inputs = channels
            for name, outputs, kernel in branch:
                add_convolution(weights, f"{block}.{name}", outputs, inputs, kernel, random)
                inputs = inputs if name.endswith("a") else outputs
            total += outputs * (2 if branch[-1][0].endswith("b") else 1)
        channels = total
    return weights


@pytest.fixture(scope="module")
def network(weights):
    return Inception(save(weights), "weights")


def test_it_has_the_published_number_of_parameters(network):
    """Keras counts 21,768,352 trainable parameters in InceptionV3 without its classifier; folding leaves these."""
    assert sum(buffer.numel() for buffer in network.buffers()) == 21_768_352


@torch.inference_mode()
def test_a_picture_has_2048_features_in_any_batch(network):
    pictures = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(1)) * 2 - 1
    features = network.pooled(pictures)
    assert features.shape == (2, 2048)
    assert float(features.std()) > 0
    assert torch.allclose(network.pooled(pictures[1:]), features[1:], rtol=1e-3, atol=1e-4)


def block(pool):
    """Replaces every branch by the identity."""
    weights = {}
    for name in ("first", "last"):
        add_convolution(weights, f"block.{name}", 1, 1, (1, 1), torch.Generator())
        weights[f"block.{name}.conv.weight"] = torch.full((1, 1, 1, 1), (1 + 1e-3) ** 0.5)
    return Block(weights, "block", 1, ((("first", 1, (1, 1)),), (("last", 1, (1, 1)),)), pool)


def test_the_two_departures_from_the_textbook():
    """Average pooling does not count padding; the last block takes the maximum."""
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    first, last = block("average")(x)[0]
    assert torch.allclose(first, x[0, 0])
    assert torch.allclose(last[0, :2], torch.tensor([2.0, 2.5]))
    assert torch.allclose(block("maximum")(x)[0, 1, 0], torch.tensor([4.0, 5.0, 5.0]))
    assert BLOCKS[-1][2] == "maximum"


def npz(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_npz_and_safetensors_are_the_same(network, weights):
    other = Inception(npz({name: x.numpy() for name, x in weights.items()}), "weights")
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), other.buffers(), strict=True))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"PK\x03\x04garbage", b"x" * 100, pickle.dumps({"Conv2d_1a_3x3.conv.weight": 1}),
     npz({"a": np.array([object()], dtype=object)})],
)  # fmt: skip
def test_what_is_no_file_of_tensors_is_refused(content):
    with pytest.raises(InputError, match="file of tensors"):
        Inception(content, "weights")


def test_weights_that_do_not_fit_are_named(weights):
    name = "Mixed_6c.branch7x7_2.conv.weight"
    for replacement in (torch.zeros(1), torch.full_like(weights[name], float("nan")), None):
        changed = {key: x for key, x in {**weights, name: replacement}.items() if x is not None}
        with pytest.raises(InputError, match=f"weights: {name}.*safetensors"):
            Inception(save(changed), "weights")
