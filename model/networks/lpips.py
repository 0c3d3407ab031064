"""LPIPS: the distance between two pictures as people judge it (Zhang et al. 2018), version 0.1, with AlexNet.

AlexNet's ImageNet weights and the calibrated heads come with the package. Kernels are stored in half precision, which
changes distances by less than 0.03 %. ``model/weights/NOTICE`` says where the weights come from.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parents[1] / "weights" / "lpips-alex.safetensors"

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and standard deviation, for pictures in [-1, 1]."""

EPSILON = 1e-10

CONVOLUTIONS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
"""Input and output channels, kernel, stride and padding of each. Pictures are compared after the ReLU of each."""

POOLED = (1, 2)
"""The convolutions that come after a max-pooling."""


class Lpips(nn.Module):
    """The distance. Its weights are frozen."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(*layer) for layer in CONVOLUTIONS)
        self.heads = nn.ModuleList(nn.Conv2d(layer[1], 1, 1, bias=False) for layer in CONVOLUTIONS)
        self.load_state_dict({name: x.float() for name, x in load_file(WEIGHTS).items()}, assign=True)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the distances [N] of pictures [N,3,H,W] in [-1, 1] with sides of 32 px or more."""
        return self.between(self.features(x), self.features(y))

    def between(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        """Returns the distances [N] of pictures from their features."""
        parts = [head((a - b) ** 2).mean(dim=(1, 2, 3)) for a, b, head in zip(x, y, self.heads, strict=True)]
        return torch.stack(parts).sum(dim=0)

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns what `between` compares: for each tap [N,C,h,w], scaled to length 1 at each position."""
        return [tap / (tap.square().sum(dim=1, keepdim=True).sqrt() + EPSILON) for tap in self.taps(x)]

    def pooled(self, x: Tensor) -> Tensor:
        """Returns the last tap, averaged over the picture: [N,3,H,W] -> [N,256]."""
        return self.taps(x)[-1].mean(dim=(2, 3))

    def taps(self, x: Tensor) -> list[Tensor]:
        """Returns what each convolution sees in pictures [N,3,H,W] in [-1, 1]: for each tap [N,C,h,w]."""
        taps, x = [], (x - self.shift) / self.scale
        for index, layer in enumerate(self.convolutions):
            if index in POOLED:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(layer(x))
            taps.append(x)
        return taps
