"""The paper's discriminator: StyleGAN2's residual network on the patch, with a head for the vertical position.

See Sections 3.4 and C. Both branches of a block halve in the same way: 101 -> 50 -> 25 -> 12 -> 6 -> 3.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.layers import Convolution, Linear, activate

SMALLEST_PX = 3
GROUP = 4


class Discriminator(nn.Module):
    """Judges a patch and predicts its vertical position."""

    def __init__(self, patch_px: int, channels: int):
        super().__init__()
        self.from_rgb = Convolution(3, channels // 2, 1)
        self.blocks = nn.ModuleList()
        side, inputs = patch_px, channels // 2
        while side > 2 * SMALLEST_PX - 1:
            self.blocks.append(ResidualBlock(inputs, channels))
            side, inputs = side // 2, channels
        self.last = Convolution(channels + 1, channels, 3, padding=1)
        self.hidden = Linear(channels * side * side, channels)
        self.verdict = Linear(channels, 1)
        self.vertical = Linear(channels, 1)

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps pictures [N,3,patch,patch] to one map of verdicts, [N,1], and the predicted vertical positions, [N]."""
        x = activate(self.from_rgb(pictures))
        for block in self.blocks:
            x = block(x)
        x = activate(self.last(minibatch_deviation(x)))
        x = activate(self.hidden(x.flatten(1)))
        return [self.verdict(x)], self.vertical(x)[:, 0]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, the second with stride 2, plus a skip by 1×1 with stride 2; the sum is divided by √2."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = Convolution(inputs, inputs, 3, padding=1)
        self.second = Convolution(inputs, outputs, 3, stride=2)
        self.skip = Convolution(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,I,n,n] to [N,O,⌊n/2⌋,⌊n/2⌋]."""
        y = activate(self.first(x))
        y = activate(self.second(smooth(y, 3)))
        # The blur halves, not the 1×1: with stride 2 and 8 channels torch 2.13 writes out of bounds on a CPU.
        return (y + self.skip(smooth(x, 1, stride=2))) / math.sqrt(2)


def smooth(x: Tensor, kernel: int, stride: int = 1) -> Tensor:
    """Applies a [1,3,3,1] blur before a convolution that halves: n values give ⌊n/2⌋ for even and odd n."""
    taps = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    weight = (taps[:, None] * taps[None, :]).expand(x.shape[1], 1, 4, 4)
    margin = (kernel + 1) // 2
    return F.conv2d(F.pad(x, (margin,) * 4), weight, stride=stride, groups=x.shape[1])


def minibatch_deviation(x: Tensor) -> Tensor:
    """Appends the standard deviation over groups of min(4, N) pictures as one more channel (StyleGAN2).

    If N is not a multiple of the group, the last group also takes pictures from the start of the batch.
    """
    n = x.shape[0]
    group = min(GROUP, n)
    groups = -(-n // group)
    members = x[torch.arange(groups * group, device=x.device) % n].unflatten(0, (groups, group))
    deviation = (members.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [groups]
    channel = deviation.repeat_interleave(group)[:n, None, None, None].expand(n, 1, *x.shape[2:])
    return torch.cat([x, channel], dim=1)
