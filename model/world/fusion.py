"""Spatial style fusion: which style applies where, and how styles blend (paper, Section 4.3).

The nearest centre determines a pixel's style. A box filter over these choices, fusion_px wide, gives the weight m_k of
each style; at any pixel the weights sum to 1. They are counts of pixels over fusion_px², so they are exact. Where the
style changes along x only, one row of pixels is counted, and the weights are counts over fusion_px.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model import geometry
from model.geometry import Window
from model.world.definition import Definition
from model.world.journey import Centre, Grid


@dataclass(frozen=True, slots=True)
class Mixture:
    """The styles of a window that has several: their numbers, and their weights float32 [K,h,w]."""

    styles: tuple[int, ...]
    weights: Tensor


@dataclass(frozen=True, slots=True)
class StyleMap:
    """The styles of a window of the world.

    Attributes:
        styles: The numbers of the styles that occur.
        weights: float32 [K,H,W]; None if there is only one style.
        rows: The rows of the weights, on a grid with one position per `step` pixels.
        columns: The columns of the weights.
        step: The number of pixels between positions.
    """

    styles: tuple[int, ...]
    weights: Tensor | None
    rows: Window
    columns: Window
    step: int

    def at(self, rows: Window, columns: Window, step: int | None = None) -> int | Mixture:
        """Returns the only style, or the mixture, at a window of positions; by default at the map's own step."""
        if self.weights is None:
            return self.styles[0]
        stride = (step or self.step) // self.step
        row, column = geometry.part(rows, self.rows, stride), geometry.part(columns, self.columns, stride)
        weights = self.weights[:, row, column]
        present = torch.nonzero(weights.flatten(1).amax(dim=1)).flatten().tolist()
        if len(present) == 1:
            return self.styles[present[0]]
        return Mixture(tuple(self.styles[k] for k in present), weights[present])


class Centres:
    """The centres of a world's own styles, around and around on a circle."""

    one_row = False

    def __init__(self, definition: Definition):
        self.turn_px = definition.cyclic_px
        self.places = [(style.y_px, definition.canonical_px(style.x_px)) for style in definition.styles] or [(0, 0)]

    def near(self, rows: Window, columns: Window) -> list[Centre]:
        """Returns all centres, with those of their images that may be near a window."""
        return [(k, y, image) for k, (y, x) in enumerate(self.places) for image in self.images(x, columns)]

    def images(self, x: int, columns: Window) -> Sequence[int]:
        """Returns the positions of a centre around a window of columns; on a circle, on both sides and within it."""
        if self.turn_px is None:
            return (x,)
        first, last = (columns[0] - x) // self.turn_px, -(-(columns[1] - x) // self.turn_px)
        return range(x + first * self.turn_px, x + last * self.turn_px + 1, self.turn_px)


class Fusion:
    """Finds the styles of a world from their centres."""

    def __init__(self, definition: Definition, device: str):
        self.size_px, self.device = definition.fusion_px, device
        self.centres = Centres(definition) if definition.journey is None else Grid(definition)
        self.box = self.size_px if self.centres.one_row else self.size_px**2
        """The number of pixels counted for a weight."""

    def map(self, rows: Window, columns: Window, step: int) -> StyleMap:
        """Returns the styles at a window of positions, one per `step` pixels."""
        half = self.size_px // 2
        down, across = ((window[0] * step - half, window[1] * step + half) for window in (rows, columns))
        pixels = (0, 0) if self.centres.one_row else down, across
        near = self.candidates(*pixels)
        numbers = sorted({number for number, _, _ in near})
        if len(numbers) > 1:
            masks = self.owned(near, *pixels)
            counts = [self.counts(masks[number], step) for number in numbers[:-1]]
            counts.append(self.box - torch.stack(counts).sum(dim=0, dtype=torch.int32))
            present = [k for k, count in enumerate(counts) if count.any()]
            numbers = [numbers[k] for k in present]
            if len(numbers) > 1:
                weights = torch.stack([counts[k] for k in present]).float() / self.box
                weights = weights.expand(-1, geometry.length(rows), -1)
                return StyleMap(tuple(numbers), weights, rows, columns, step)
        return StyleMap((numbers[0],), None, rows, columns, step)

    def counts(self, mask: Tensor, step: int) -> Tensor:
        """Counts the true values in the box around each position, one per `step`; one row serves for all."""
        if self.centres.one_row:
            return window_sums(mask, self.size_px, step)
        return box_counts(mask, self.size_px, step)

    def candidates(self, rows: Window, columns: Window) -> list[Centre]:
        """Returns the centres that may be nearest to a pixel of a window, with images on a circle.

        A centre is excluded if another's farthest corner of the window is nearer than its own nearest point.
        """
        near = self.centres.near(rows, columns)
        bound = min(farthest(y, rows) ** 2 + farthest(x, columns) ** 2 for _, y, x in near)
        return [(k, y, x) for k, y, x in near if closest(y, rows) ** 2 + closest(x, columns) ** 2 <= bound]

    def owned(self, centres: Sequence[Centre], rows: Window, columns: Window) -> dict[int, Tensor]:
        """Returns the pixels nearest to each style, bool [H,W], by the style's number; the first wins a tie.

        Squared distances from a pixel (r + v, c + u) differ between centres by integers that are linear in v and u:
        |r - y|² + |c - x|² + 2v(r - y) + 2u(c - x). The first two terms, whose squares need more than 64 bits, are
        computed in Python; among candidates they differ by far less. So each centre is compared with the first, and the
        work grows with the number of centres, not of pairs.
        """
        v = torch.arange(geometry.length(rows), device=self.device)[:, None]
        u = torch.arange(geometry.length(columns), device=self.device)[None, :]
        constants = [(rows[0] - y) ** 2 + (columns[0] - x) ** 2 for _, y, x in centres]
        _, first_y, first_x = centres[0]
        least = torch.zeros(v.shape[0], u.shape[1], dtype=torch.int64, device=self.device)
        owner = torch.zeros_like(least, dtype=torch.int32)
        for place, ((_, y, x), constant) in enumerate(zip(centres, constants, strict=True)):
            farther = (constant - constants[0] + 2 * (first_y - y) * v) + 2 * (first_x - x) * u
            owner.masked_fill_(farther < least, place)
            least = torch.minimum(least, farther)
        masks: dict[int, Tensor] = {}
        for place, (number, _, _) in enumerate(centres):
            mask = owner == place
            masks[number] = masks[number] | mask if number in masks else mask
        return masks


def box_counts(mask: Tensor, size: int, step: int) -> Tensor:
    """Counts the true values in the size×size box around each position, one per `step`: int32 [h,w]."""
    return window_sums(window_sums(mask, size, step).T, size, step).T


def window_sums(values: Tensor, size: int, step: int) -> Tensor:
    """Sums `size` consecutive values of [H,W], starting every `step` values: int32 [H,w]."""
    total = torch.nn.functional.pad(values.cumsum(dim=1, dtype=torch.int32), (1, 0))
    return total[:, size::step] - total[:, :-size:step]


def closest(point: int, window: Window) -> int:
    """Returns the distance from a point to the nearest position of a window."""
    return max(window[0] - point, 0, point - window[1])


def farthest(point: int, window: Window) -> int:
    """Returns the distance from a point to the farthest position of a window."""
    return max(abs(window[0] - point), abs(window[1] - point))
