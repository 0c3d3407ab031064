"""Reduces photographs by four as differently as the detail stage's inputs may differ from a plainly reduced photograph.

The generator's pictures are neither perfectly sharp nor free of grain. A detail stage that has only seen photographs
reduced in one way would take their flaws for detail.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.detail import FACTOR, cubic

WIDTHS = (0.8, 1.5)
"""The range of the reducing kernel's width; at 1 it is the usual antialiased bicubic one."""
TAPS = 24
SHARPENED, SHARPNESS = 0.4, (-0.5, 1.0)
"""The share of pictures that are sharpened or blurred, and the range of the strength; blur is negative."""
NOISY, NOISE = 0.5, 0.05
"""The share of pictures that get noise, and its largest deviation."""


def reduce(photographs: Tensor, random: torch.Generator) -> Tensor:
    """Reduces pictures [N,3,4n,4m] in [-1, 1] to [N,3,n,m], about -1 to 1, each in its own way."""
    n = len(photographs)
    kernels = cubic_kernels(uniform(n, *WIDTHS, random))
    reduced = along_rows(along_rows(photographs, kernels).transpose(2, 3), kernels).transpose(2, 3)
    strength = uniform(n, *SHARPNESS, random) * chosen(n, SHARPENED, random)
    smooth = F.avg_pool2d(F.pad(reduced, (1,) * 4, mode="replicate"), 3, stride=1)
    sharpened = reduced + strength[:, None, None, None].to(reduced) * (reduced - smooth)
    deviation = uniform(n, 0, NOISE, random) * chosen(n, NOISY, random)
    noise = torch.randn(reduced.shape, generator=random) * deviation[:, None, None, None]
    return sharpened + noise.to(reduced)


def cubic_kernels(widths: Tensor) -> Tensor:
    """Returns normalised kernels [N,24] of given widths [N], centred on the middle of four pixels."""
    offsets = [(tap - (TAPS - 1) / 2) / FACTOR for tap in range(TAPS)]
    kernels = torch.tensor([[cubic(offset / width) for offset in offsets] for width in widths.tolist()])
    return kernels / kernels.sum(dim=1, keepdim=True)


def along_rows(x: Tensor, kernels: Tensor) -> Tensor:
    """Reduces each picture's rows with its own kernel: [N,C,H,4m], [N,24] -> [N,C,H,m]."""
    n, channels = x.shape[:2]
    weight = kernels.to(x).repeat_interleave(channels, dim=0)[:, None, None, :]
    margin = (TAPS - FACTOR) // 2
    padded = F.pad(x, (margin, margin, 0, 0), mode="reflect")
    return F.conv2d(padded.flatten(0, 1)[None], weight, stride=(1, FACTOR), groups=n * channels)[0].unflatten(
        0, (n, channels)
    )


def uniform(n: int, low: float, high: float, random: torch.Generator) -> Tensor:
    """Draws n numbers between two bounds."""
    return low + (high - low) * torch.rand(n, generator=random)


def chosen(n: int, share: float, random: torch.Generator) -> Tensor:
    """Draws 1 for a share of n pictures, and 0 for the others."""
    return (torch.rand(n, generator=random) < share).float()
