"""Sizes, strides, receptive fields and absolute positions, computed from a list of layers.

Every position is an integer on a layer's own grid, which is the same everywhere in the world, so windows that meet
agree on it. A window is an inclusive pair ``(low, high)`` of rows or columns. For one layer:

    plain k×k:  low..high  ->  low + k//2 .. high - k//2          n -> n - 2 (k//2)
    up:         low..high  ->  2 low + 1  .. 2 high - 1           n -> 2n - 3

where "up" is a transposed 3×3 convolution with stride 2, whose output o of n inputs lies at 2 low + o - 1, without
the incomplete value on each side, followed by a blur [1, 2, 1] without padding.

An "up" layer that is halfway is followed by a blur [1, 3, 3, 1] instead. Its output q lies at (q + 1/2)/2 - 1/2, as if
each input were a square of four outputs:

    halfway:    low..high  ->  2 low + 2  .. 2 high - 1           n -> 2n - 4

A padded layer keeps a window's extent, n -> n and n -> 2n, because it treats what lies beyond as 0. Adjacent windows
then disagree at their borders, so a picture of such a network has an edge: `backward` may return positions beyond
it, and `reach` does not apply.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

Window: TypeAlias = tuple[int, int]

LIMIT = 2**31 - 2**16
"""Positions in the world must be smaller than this in magnitude."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The geometry of a layer: its kernel's side, whether it doubles the grid (halfway or not), and its padding."""

    kernel: int = 3
    up: bool = False
    padded: bool = False
    halfway: bool = False

    @property
    def stride(self) -> int:
        """The number of output positions per input position."""
        return 2 if self.up else 1

    def size(self, n: int) -> int:
        """Returns the number of outputs for n inputs."""
        if self.padded:
            return n * self.stride
        return 2 * n - 3 - self.halfway if self.up else n - 2 * (self.kernel // 2)

    def forward(self, window: Window) -> Window:
        """Returns the output positions that an input window determines completely."""
        low, high = window
        if self.padded:
            return self.stride * low, self.stride * (high + 1) - 1
        if self.up:
            return 2 * low + 1 + self.halfway, 2 * high - 1
        return low + self.kernel // 2, high - self.kernel // 2

    def backward(self, window: Window) -> Window:
        """Returns the smallest input window that determines these output positions; they depend on nothing else."""
        low, high = window
        if self.up and (self.padded or self.halfway):
            return low // 2 - 1, high // 2 + 1
        if self.up:
            return (low - 1) // 2, -((-high - 1) // 2)
        return low - self.kernel // 2, high + self.kernel // 2

    def reach(self, window: Window) -> Window:
        """Returns all output positions that can change if these input positions change."""
        low, high = window
        if self.up:
            return 2 * low - 2, 2 * high + 2 + self.halfway
        return low - self.kernel // 2, high + self.kernel // 2


def structure_layers(count: int, kernel: int) -> tuple[Layer, ...]:
    """Returns the layers of G_S."""
    return (Layer(kernel=kernel),) * count


def texture_layers(pairs: int, padded: bool = False) -> tuple[Layer, ...]:
    """Returns the layers of G_T: pairs of (up, plain)."""
    return (Layer(up=True, padded=padded), Layer(padded=padded)) * pairs


def size(layers: Iterable[Layer], n: int) -> int:
    """Returns the number of outputs for n inputs after all layers; 0 or less if n is too small."""
    return reduce(lambda n, layer: layer.size(n), layers, n)


def stride(layers: Iterable[Layer]) -> int:
    """Returns the number of output positions per input position after all layers."""
    return reduce(lambda total, layer: total * layer.stride, layers, 1)


def forward(layers: Iterable[Layer], window: Window) -> Window:
    """Returns the output positions that an input window determines after all layers."""
    return reduce(lambda window, layer: layer.forward(window), layers, window)


def backward(layers: Iterable[Layer], window: Window) -> Window:
    """Returns the smallest input window that determines these output positions."""
    return reduce(lambda window, layer: layer.backward(window), reversed(tuple(layers)), window)


def reach(layers: Iterable[Layer], window: Window) -> Window:
    """Returns all output positions that can change if these input positions change."""
    return reduce(lambda window, layer: layer.reach(window), layers, window)


def outputs(layers: Iterable[Layer], window: Window) -> list[Window]:
    """Returns the output window of each layer in turn."""
    windows = []
    for layer in layers:
        window = layer.forward(window)
        windows.append(window)
    return windows


def length(window: Window) -> int:
    """Returns the number of positions in a window."""
    return window[1] - window[0] + 1


def overlap(a: Window, b: Window) -> Window | None:
    """Returns the intersection of two windows, or None."""
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low <= high else None


def part(window: Window, whole: Window, step: int = 1) -> slice:
    """Returns the slice of a coarse window, one position in `step`, within a larger window of the finer grid."""
    return slice(window[0] * step - whole[0], window[1] * step - whole[0] + 1, step)
