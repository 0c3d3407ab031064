"""Sizes, strides, receptive fields and absolute positions, computed from a list of layers.

Every position is an integer on a layer's own grid, which is the same everywhere in the world: two windows that meet
agree on it. A window is an inclusive pair ``(low, high)``, in rows or in columns. For one layer (design, Section 3):

    plain k×k:  low..high  ->  low + k//2 .. high - k//2          n -> n - 2 (k//2)
    up:         low..high  ->  2 low + 1  .. 2 high - 1           n -> 2n - 3

where "up" is a transposed 3×3 convolution with stride 2, whose output o of n inputs lies at 2 low + o - 1, less the
incomplete value on each side, then a blur [1, 2, 1] without padding.

A padded layer keeps a window's extent, n -> n and n -> 2n, as it takes what is beyond it for 0. Two windows that meet
then disagree at their borders, so a picture of such a network has an end: `backward` may ask for what lies beyond it,
and `reach` is not for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

Window: TypeAlias = tuple[int, int]

LIMIT = 2**31 - 2**16
"""Positions in the world are smaller than this in magnitude."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What geometry needs to know of a layer: its kernel's side, whether it doubles the grid, and if it is padded."""

    kernel: int = 3
    up: bool = False
    padded: bool = False

    @property
    def stride(self) -> int:
        """Output positions for each input position."""
        return 2 if self.up else 1

    def size(self, n: int) -> int:
        """How many values n inputs give."""
        if self.padded:
            return n * self.stride
        return 2 * n - 3 if self.up else n - 2 * (self.kernel // 2)

    def forward(self, window: Window) -> Window:
        """The output positions that an input window gives in full."""
        low, high = window
        if self.padded:
            return self.stride * low, self.stride * (high + 1) - 1
        if self.up:
            return 2 * low + 1, 2 * high - 1
        return low + self.kernel // 2, high - self.kernel // 2

    def backward(self, window: Window) -> Window:
        """The smallest input window that gives at least these output positions; all that they depend on."""
        low, high = window
        if self.padded and self.up:
            return low // 2 - 1, high // 2 + 1
        if self.up:
            return (low - 1) // 2, -((-high - 1) // 2)
        return low - self.kernel // 2, high + self.kernel // 2

    def reach(self, window: Window) -> Window:
        """All output positions that a change of these input positions can change."""
        low, high = window
        if self.up:
            return 2 * low - 2, 2 * high + 2
        return low - self.kernel // 2, high + self.kernel // 2


def structure_layers(count: int, kernel: int) -> tuple[Layer, ...]:
    """The layers of G_S."""
    return (Layer(kernel=kernel),) * count


def texture_layers(pairs: int, padded: bool = False) -> tuple[Layer, ...]:
    """The layers of G_T: pairs of (up, plain)."""
    return (Layer(up=True, padded=padded), Layer(padded=padded)) * pairs


def size(layers: Iterable[Layer], n: int) -> int:
    """How many values n inputs give after all layers; not positive if they are too few for one."""
    return reduce(lambda n, layer: layer.size(n), layers, n)


def stride(layers: Iterable[Layer]) -> int:
    """Output positions for each input position after all layers."""
    return reduce(lambda total, layer: total * layer.stride, layers, 1)


def forward(layers: Iterable[Layer], window: Window) -> Window:
    """The output positions that an input window gives."""
    return reduce(lambda window, layer: layer.forward(window), layers, window)


def backward(layers: Iterable[Layer], window: Window) -> Window:
    """The smallest input window that gives at least these output positions."""
    return reduce(lambda window, layer: layer.backward(window), reversed(tuple(layers)), window)


def reach(layers: Iterable[Layer], window: Window) -> Window:
    """All output positions that a change of these input positions can change."""
    return reduce(lambda window, layer: layer.reach(window), layers, window)


def outputs(layers: Iterable[Layer], window: Window) -> list[Window]:
    """The output window of each layer in turn."""
    windows = []
    for layer in layers:
        window = layer.forward(window)
        windows.append(window)
    return windows


def length(window: Window) -> int:
    """How many positions a window has."""
    return window[1] - window[0] + 1


def overlap(a: Window, b: Window) -> Window | None:
    """What two windows have in common."""
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low <= high else None


def part(window: Window, whole: Window, step: int = 1) -> slice:
    """Where the positions of a window on a coarser grid, one in `step`, lie in a whole window of the finer grid."""
    return slice(window[0] * step - whole[0], window[1] * step - whole[0] + 1, step)
