"""The Inception network whose features define the Fréchet Inception Distance (Heusel et al. 2017).

Its weights, of December 2015, are TensorFlow's and are not part of this project. Anyone who has them in the form that
PyTorch users share (``pt_inception-2015-12-05``), as safetensors or npz, can supply them. The network is Inception v3
(Szegedy et al. 2015) with two changes: average pooling ignores padding, and the last block uses max pooling.
"""

import io
from collections.abc import Mapping
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from model.errors import InputError

CONVERT = "convert the weights to safetensors first, with names like Conv2d_1a_3x3.conv.weight; see docs/evaluate.md"
BATCH_NORM_EPSILON = 1e-3

Shape = tuple[str, int, tuple[int, int]]
"""A convolution: its name, output channels and kernel."""

Branch = tuple[Shape, ...]
"""A sequence of convolutions."""


class FoldedConvolution(nn.Module):
    """A convolution with its normalisation folded in, followed by ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...], stride: int, padded: bool):
        super().__init__()
        outputs = shape[0]
        scale = tensor(weights, f"{name}.bn.weight", (outputs,))
        scale = scale / (tensor(weights, f"{name}.bn.running_var", (outputs,)) + BATCH_NORM_EPSILON).sqrt()
        weight = tensor(weights, f"{name}.conv.weight", shape) * scale[:, None, None, None]
        bias = tensor(weights, f"{name}.bn.bias", (outputs,))
        bias = bias - tensor(weights, f"{name}.bn.running_mean", (outputs,)) * scale
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.stride, self.padding = stride, (shape[2] // 2, shape[3] // 2) if padded else (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,I,H,W] to [N,O,H',W']."""
        return F.relu(F.conv2d(x, self.weight, self.bias, self.stride, self.padding))


class Block(nn.Module):
    """Parallel branches, whose outputs are concatenated; the last branch begins with pooling.

    Args:
        weights: The weights of the network.
        name: The name of the block.
        inputs: The number of input channels.
        branches: The convolutions of each branch. If a branch ends in two convolutions whose names differ only in a
            final "a" and "b", their outputs are concatenated.
        pool: "average", "maximum", or "halve", which takes the maximum at stride 2, as do the branches' last layers.
    """

    def __init__(self, weights: Mapping[str, Tensor], name: str, inputs: int, branches: tuple[Branch, ...], pool: str):
        super().__init__()
        self.pool, self.outputs = pool, inputs if pool == "halve" else 0
        self.branches = nn.ModuleList()
        for branch in branches:
            layers, channels = nn.ModuleList(), inputs
            for place, (layer, outputs, kernel) in enumerate(branch):
                halves = pool == "halve" and place == len(branch) - 1
                shape = (outputs, channels, *kernel)
                layers.append(FoldedConvolution(weights, f"{name}.{layer}", shape, 2 if halves else 1, not halves))
                if not layer.endswith("a"):  # its twin "b" has the same input
                    channels = outputs
            self.outputs += channels * (2 if forks(branch) else 1)
            self.branches.append(layers)
        self.forked = [forks(branch) for branch in branches]

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,inputs,H,W] to [N,outputs,H',W']."""
        outputs = []
        for place, (branch, forked) in enumerate(zip(self.branches, self.forked, strict=True)):
            last = place == len(self.branches) - 1 and self.pool != "halve"
            y = self.pooled(x) if last else x
            layers = list(branch.children())
            for layer in layers[:-2] if forked else layers:
                y = layer(y)
            outputs += [layer(y) for layer in layers[-2:]] if forked else [y]
        return torch.cat([*outputs, F.max_pool2d(x, 3, 2)] if self.pool == "halve" else outputs, dim=1)

    def pooled(self, x: Tensor) -> Tensor:
        """Returns the input of the last branch."""
        if self.pool == "maximum":
            return F.max_pool2d(x, 3, 1, 1)
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def forks(branch: Branch) -> bool:
    """Returns whether a branch ends in two parallel convolutions."""
    return branch[-1][0].endswith("b")


def square(name: str, outputs: int, side: int = 1) -> Shape:
    """Returns a convolution with a square kernel."""
    return name, outputs, (side, side)


def fives(pool: int) -> tuple[Branch, ...]:
    """Returns the branches of Mixed_5b, 5c and 5d."""
    double = (square("branch3x3dbl_1", 64), square("branch3x3dbl_2", 96, 3), square("branch3x3dbl_3", 96, 3))
    five = (square("branch5x5_1", 48), square("branch5x5_2", 64, 5))
    return (square("branch1x1", 64),), five, double, (square("branch_pool", pool),)


def sevens(inner: int) -> tuple[Branch, ...]:
    """Returns the branches of Mixed_6b to 6e."""
    seven = (square("branch7x7_1", inner), ("branch7x7_2", inner, (1, 7)), ("branch7x7_3", 192, (7, 1)))
    double = (
        square("branch7x7dbl_1", inner),
        ("branch7x7dbl_2", inner, (7, 1)),
        ("branch7x7dbl_3", inner, (1, 7)),
        ("branch7x7dbl_4", inner, (7, 1)),
        ("branch7x7dbl_5", 192, (1, 7)),
    )
    return (square("branch1x1", 192),), seven, double, (square("branch_pool", 192),)


def forked() -> tuple[Branch, ...]:
    """Returns the branches of Mixed_7b and 7c."""
    three = (square("branch3x3_1", 384), ("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1)))
    double = (
        square("branch3x3dbl_1", 448),
        square("branch3x3dbl_2", 384, 3),
        ("branch3x3dbl_3a", 384, (1, 3)),
        ("branch3x3dbl_3b", 384, (3, 1)),
    )
    return (square("branch1x1", 320),), three, double, (square("branch_pool", 192),)


STEM: tuple[tuple[Shape, int, bool], ...] = (
    (square("Conv2d_1a_3x3", 32, 3), 2, False),
    (square("Conv2d_2a_3x3", 32, 3), 1, False),
    (square("Conv2d_2b_3x3", 64, 3), 1, True),
    (square("Conv2d_3b_1x1", 80), 1, False),
    (square("Conv2d_4a_3x3", 192, 3), 1, False),
)
"""The convolutions of the stem with their strides, and whether they are padded."""

POOLED = (2, 4)
"""The positions in the stem after which max pooling is applied."""

BLOCKS: tuple[tuple[str, tuple[Branch, ...], str], ...] = (
    ("Mixed_5b", fives(32), "average"),
    ("Mixed_5c", fives(64), "average"),
    ("Mixed_5d", fives(64), "average"),
    (
        "Mixed_6a",
        (
            (square("branch3x3", 384, 3),),
            (square("branch3x3dbl_1", 64), square("branch3x3dbl_2", 96, 3), square("branch3x3dbl_3", 96, 3)),
        ),
        "halve",
    ),
    ("Mixed_6b", sevens(128), "average"),
    ("Mixed_6c", sevens(160), "average"),
    ("Mixed_6d", sevens(160), "average"),
    ("Mixed_6e", sevens(192), "average"),
    (
        "Mixed_7a",
        (
            (square("branch3x3_1", 192), square("branch3x3_2", 320, 3)),
            (
                square("branch7x7x3_1", 192),
                ("branch7x7x3_2", 192, (1, 7)),
                ("branch7x7x3_3", 192, (7, 1)),
                square("branch7x7x3_4", 192, 3),
            ),
        ),
        "halve",
    ),
    ("Mixed_7b", forked(), "average"),
    ("Mixed_7c", forked(), "maximum"),
)


class Inception(nn.Module):
    """The network up to its 2048 pooled features, frozen.

    Args:
        content: The file of weights, safetensors or npz.
        name: The name of the file in error messages.

    Raises:
        InputError: The file has neither format, or its tensors are not those of this network.
    """

    def __init__(self, content: bytes, name: str):
        super().__init__()
        weights = read_weights(content, name)
        try:
            self.stem, channels = nn.ModuleList(), 3
            for (layer, outputs, kernel), stride, padded in STEM:
                self.stem.append(FoldedConvolution(weights, layer, (outputs, channels, *kernel), stride, padded))
                channels = outputs
            self.blocks = nn.ModuleList()
            for block, branches, pool in BLOCKS:
                made = Block(weights, block, channels, branches, pool)
                self.blocks.append(made)
                channels = made.outputs
        except InputError as error:
            raise InputError(f"{name}: {error}; {CONVERT}") from None

    def pooled(self, x: Tensor) -> Tensor:
        """Maps pictures [N,3,299,299] in [-1, 1] to features [N,2048]."""
        for place, layer in enumerate(self.stem):
            x = layer(x)
            if place in POOLED:
                x = F.max_pool2d(x, 3, 2)
        for block in self.blocks:
            x = block(x)
        return x.mean(dim=(2, 3))


def read_weights(content: bytes, name: str) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors or npz file. Nothing is unpickled.

    Raises:
        InputError: The file has neither format.
    """
    try:
        if content[:2] == b"PK":
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return load_tensors(content)
    except (SafetensorError, BadZipFile, ValueError, KeyError, TypeError, EOFError, OSError):
        raise InputError(f"{name} is not a file of tensors (safetensors or npz); {CONVERT}") from None


def tensor(weights: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """Returns a tensor of the file as float32.

    Raises:
        InputError: It is missing, of another shape, or not finite.
    """
    found = weights.get(name)
    if found is None or tuple(found.shape) != shape:
        raise InputError(f"{name} is {'missing' if found is None else list(found.shape)}, not {list(shape)}")
    if not torch.isfinite(found.float()).all():
        raise InputError(f"{name} holds values that are not finite")
    return found.float()
