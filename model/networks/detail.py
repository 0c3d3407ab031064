"""The detail stage G_D: it draws the world of a base picture at four times the resolution.

Its body works at the base's resolution; two up layers then double it. No convolution is padded, so a window of the
result is the same whatever larger window it is cut from. Pixel q of the result lies at (q + 1/2)/4 - 1/2 in the base.

The result is the base, enlarged bicubically, plus what the network draws, so it keeps the base's composition. What the
base does not determine comes from noise, which the caller provides: one map for each of `noise_layers`.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import geometry
from model.config import HEAD_KERNEL, DetailConfig
from model.geometry import Window
from model.networks.layers import LEAK, convolve_up, random_weight, smooth_up

FACTOR = 4
RESIDUAL = 0.3
"""The weight of what a residual block adds."""
NOISE_STRENGTH = 0.1
"""The strength of noise in each channel when training starts."""

ONE_KERNEL = 20_480
"""Torch convolves one picture of at most this many numbers by another kernel, which rounds differently, unless the
convolution is larger than 3×3."""
TAPS = 5
"""The number of base pixels, in each direction, that a bicubically enlarged pixel may depend on."""


class DetailStage(nn.Module):
    """G_D. Its layers, in order, are those of `DetailConfig.layers`."""

    def __init__(self, config: DetailConfig):
        super().__init__()
        self.config = config
        self.head = nn.Conv2d(3, config.channels, HEAD_KERNEL)
        self.blocks = nn.ModuleList(ResidualBlock(config.channels) for _ in range(config.blocks))
        inputs = [config.channels, *config.up_channels]
        self.ups = nn.ModuleList(UpPair(*pair) for pair in zip(inputs, config.up_channels, strict=False))
        self.to_rgb = nn.Conv2d(inputs[-1], 3, 3)
        for parameter in self.to_rgb.parameters():
            nn.init.zeros_(parameter)

    def forward(self, base: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Draws the picture.

        Args:
            base: Pictures [N,3,n,m], about -1 to 1.
            noise: The maps [N,1,n_i,m_i], one for each of `noise_windows`.

        Returns:
            The pictures [N,3,n',m'], about -1 to 1, at `output_window`; n' = `geometry.size(config.layers, n)`.
        """
        maps = iter(noise)
        base = base.contiguous(memory_format=torch.channels_last)  # in another order, windows do not agree bit for bit
        x = F.leaky_relu_(self.head(base), LEAK)
        for block in self.blocks:
            x = block(x, next(maps))
        for up in self.ups:
            x = up(x, next(maps))
        detail = self.to_rgb(x)
        enlarged = enlarge(base)
        margin = (enlarged.shape[2] - detail.shape[2]) // 2
        return detail + enlarged[:, :, margin : margin + detail.shape[2], margin : margin + detail.shape[3]]


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with noise between them; the skip drops the border that they lose."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3)
        self.noise_strength = nn.Parameter(torch.full((channels, 1, 1), NOISE_STRENGTH))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Maps [N,C,n,m] and noise [N,1,n-2,m-2] to [N,C,n-4,m-4]."""
        y = F.leaky_relu_(self.first(x).add_(self.noise_strength * noise), LEAK)
        return self.second(y).mul_(RESIDUAL).add_(x[:, :, 2:-2, 2:-2])


class UpPair(nn.Module):
    """A transposed 3×3 convolution with a blur, which doubles the resolution, noise, and a plain 3×3 convolution.

    The blur treats all outputs alike, so there is no grid where the input is even.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(random_weight(outputs, inputs, 3, 3).mul_((2 / (9 * inputs)) ** 0.5))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.full((outputs, 1, 1), NOISE_STRENGTH))
        self.plain = nn.Conv2d(outputs, outputs, 3)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Maps [N,I,n,m] and noise [N,1,2n-4,2m-4] to [N,O,2n-6,2m-6]."""
        x = smooth_up(convolve_up(x, self.weight), self.bias)
        x = F.leaky_relu_(x.add_(self.noise_strength * noise), LEAK)
        return F.leaky_relu_(self.plain(x), LEAK)


def output_window(config: DetailConfig, base: Window) -> Window:
    """Returns the rows (or columns) of pixels that a window of the base gives."""
    return geometry.forward(config.layers, base)


def base_window(config: DetailConfig, output: Window) -> Window:
    """Returns a window of the base that gives these pixels, and some more on each side."""
    low, high = geometry.backward(config.layers, output)
    lacking = max(0, smallest_base_px(config) - geometry.length((low, high)))
    return low - lacking // 2, high + lacking - lacking // 2


@lru_cache
def smallest_base_px(config: DetailConfig) -> int:
    """Returns the smallest side of a base picture from which windows agree bit for bit with those of larger ones."""
    inputs = [config.channels] * (2 * config.blocks + 1) + [n for n in config.up_channels for _ in ("up", "plain")]

    def enough(side: int) -> bool:
        sides = [geometry.length(window) for window in geometry.outputs(config.layers, (0, side - 1))]
        return sides[-1] > 0 and all(n * side**2 > ONE_KERNEL for n, side in zip(inputs, sides[:-1], strict=True))

    return next(side for side in count(1) if enough(side))


def noise_windows(config: DetailConfig, base: Window) -> list[Window]:
    """Returns the positions of each noise map, each on the grid of its layer, for a window of the base."""
    outputs = geometry.outputs(config.layers, base)
    return [outputs[layer] for layer in config.noise_layers]


def draw_noise(config: DetailConfig, shape: Sequence[int], random: torch.Generator) -> list[Tensor]:
    """Draws the noise [N,1,n_i,m_i] for base pictures of a shape [N,3,n,m]."""
    rows, columns = (noise_windows(config, (0, side - 1)) for side in shape[2:])
    sizes = [(geometry.length(row), geometry.length(column)) for row, column in zip(rows, columns, strict=True)]
    return [torch.randn(shape[0], 1, *size, generator=random) for size in sizes]


def enlarge(x: Tensor) -> Tensor:
    """Enlarges bicubically by 4 without padding: [N,C,n,m] -> [N,C,4(n-4),4(m-4)], the base's pixels 2 to n - 3."""
    return enlarge_along(enlarge_along(x, 2), 3)


def enlarge_along(x: Tensor, dim: int) -> Tensor:
    """Enlarges one dimension.

    Written out, because torch's interpolation rounds differently with another number of threads.
    """
    n = x.shape[dim] - TAPS + 1
    phases = []
    for weights in cubic_weights():
        products = [x.narrow(dim, tap, n) * weight for tap, weight in enumerate(weights) if weight]
        phases.append(sum(products[1:], products[0]))
    return torch.stack(phases, dim=dim + 1).flatten(dim, dim + 1)


def cubic_weights() -> list[list[float]]:
    """Returns the weight of each base pixel, from two before to two behind, for the four pixels in a base pixel."""
    offsets = [(phase + 0.5) / FACTOR - 0.5 for phase in range(FACTOR)]
    return [[cubic(tap - TAPS // 2 - offset) for tap in range(TAPS)] for offset in offsets]


def cubic(distance: float) -> float:
    """Computes Keys' cubic kernel (a = -1/2)."""
    d = abs(distance)
    if d < 1:
        return (1.5 * d - 2.5) * d * d + 1
    return ((-0.5 * d + 2.5) * d - 4) * d + 2 if d < 2 else 0.0
