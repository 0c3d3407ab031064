import hashlib

import pytest
import torch
from torch.nn import functional

from model.errors import InputError
from model.networks import efficientnet
from model.networks.efficientnet import EfficientNetLite0, FoldedWeights, SameConvolution, load_weights


@pytest.fixture(scope="module")
def network():
    return EfficientNetLite0()


@pytest.fixture(scope="module")
def weights():
    return load_weights()


def pictures(n, height=101, width=None):
    return torch.rand(n, 3, height, width or height, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("side", [64, 101, 128])
def test_features_come_at_strides_4_8_16_and_32(network, side):
    shapes = [tuple(x.shape) for x in network(pictures(2, side))]
    expected = [(2, channels, -(-side // n), -(-side // n)) for channels, n in ((24, 4), (40, 8), (112, 16), (320, 32))]
    assert shapes == expected


def test_pictures_need_not_be_square(network):
    assert [tuple(x.shape[2:]) for x in network(pictures(1, 50, 101))] == [(13, 26), (7, 13), (4, 7), (2, 4)]


def test_pooled_features_are_1280_numbers_a_picture(network):
    pooled = network.pooled(pictures(2))
    assert pooled.shape == (2, 1280)
    assert pooled.min() >= 0
    assert pooled.max() <= 6


def test_a_picture_has_the_same_features_in_any_batch(network):
    x = pictures(3)
    for together, alone in zip(network(x), network(x[1:2]), strict=True):
        assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_nothing_of_it_trains_and_nothing_of_it_is_stored(network):
    """So a checkpoint does not carry the package's weights."""
    assert not list(network.parameters())
    assert not network.state_dict()


def normalise(x, state, name):
    """Applies batch normalisation as it is before folding."""
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3)


@pytest.mark.parametrize("depthwise", [False, True])
def test_folding_a_normalisation_equals_applying_it(depthwise):
    torch.manual_seed(0)
    groups = 6 if depthwise else 1
    state = {
        "conv.weight": torch.randn(6, 6 // groups, 3, 3),
        "norm.weight": torch.randn(6),
        "norm.bias": torch.randn(6),
        "norm.running_mean": torch.randn(6),
        "norm.running_var": torch.rand(6) + 1e-3,
    }
    x = torch.randn(2, 6, 9, 9)
    expected = normalise(functional.conv2d(x, state["conv.weight"], padding=1, groups=groups), state, "norm")
    folded = FoldedWeights(state).convolution("conv", "norm", depthwise=depthwise)
    assert torch.allclose(folded(x), expected, atol=1e-4)


def same(n, kernel, stride):
    """Returns TensorFlow's SAME padding before and after n values."""
    total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding"),
    [(8, 3, 2, (0, 1)), (9, 3, 2, (1, 1)), (8, 5, 2, (1, 2)), (9, 5, 2, (2, 2)), (7, 3, 1, (1, 1)), (8, 5, 1, (2, 2)),
     (6, 1, 1, (0, 0)), (101, 3, 2, (1, 1)), (128, 3, 2, (0, 1))],
)  # fmt: skip
def test_padding_is_tensorflows_same(n, kernel, stride, padding):
    convolution = SameConvolution(torch.ones(1, 1, kernel, kernel), torch.zeros(1), stride)
    assert convolution.padding(n) == padding == same(n, kernel, stride)
    y = convolution(torch.ones(1, 1, n, n + 1))
    assert y.shape[2:] == (-(-n // stride), -(-(n + 1) // stride))


def test_an_uneven_padding_has_its_extra_pixel_below_and_right():
    convolution = SameConvolution(torch.ones(1, 1, 3, 3), torch.zeros(1), 2)
    assert convolution(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]


def test_the_first_blocks_equal_the_network_with_its_normalisations(network, weights):
    """They are the stem, the block without expansion, a halving block and one with a skip."""

    def convolve(x, name, norm, stride=1, groups=1):
        kernel = weights[f"{name}.weight"].shape[2]
        (top, bottom), (left, right) = (same(n, kernel, stride) for n in x.shape[2:])
        x = functional.pad(x, (left, right, top, bottom))
        return normalise(functional.conv2d(x, weights[f"{name}.weight"], stride=stride, groups=groups), weights, norm)

    def block(x, index, stride, expand=True):
        name = f"_blocks.{index}"
        if expand:
            x = functional.relu6(convolve(x, f"{name}._expand_conv", f"{name}._bn0"))
        x = functional.relu6(convolve(x, f"{name}._depthwise_conv", f"{name}._bn1", stride, x.shape[1]))
        return convolve(x, f"{name}._project_conv", f"{name}._bn2")

    picture = pictures(1)
    x = functional.relu6(convolve(picture, "_conv_stem", "_bn0", 2))
    x = block(x, 0, 1, expand=False)
    x = block(x, 1, 2)
    x = x + block(x, 2, 1)
    assert torch.allclose(network(picture)[0], x, atol=1e-3)


def test_features_tell_pictures_apart(network):
    """The weights are trained: texture changes the features less than content does."""
    plain = torch.full((1, 3, 101, 101), 0.2)
    grainy = plain + 0.02 * torch.randn(1, 3, 101, 101, generator=torch.Generator().manual_seed(0))
    striped = plain + 0.5 * torch.sin(torch.arange(101) / 3)
    distances = [(network.pooled(x) - network.pooled(plain)).norm() for x in (grainy, striped)]
    assert distances[1] > 2 * distances[0]


def test_another_file_of_weights_is_refused(monkeypatch):
    monkeypatch.setattr(efficientnet, "SHA256", hashlib.sha256(b"other").hexdigest())
    with pytest.raises(InputError, match="reinstall"):
        load_weights()
