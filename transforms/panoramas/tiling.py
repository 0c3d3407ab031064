"""The division of a panorama into tiles.

There are two ways. Tiles of a shape follow the panorama: its rows are divided evenly, its columns by the world's grid,
and no tile reaches beyond it. Tiles of a side are cells of the world's square grid; the outermost ones may lie partly
outside the panorama, and are computed whole and stored cropped.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from model.geometry import Window, length

TileSize: TypeAlias = int | tuple[int, int]
"""The height and width of tiles that follow the panorama, or the side of cells of the world's grid; in pixels."""

TILE_PIXELS = 2**18
"""The most pixels of a tile that suits the panorama. Fewer would spend more on margins, and more would cost memory."""

SCALED_TILE_PIXELS = 2**19
"""The same of a panorama at a larger scale, where the margins are wider: four to sixteen times those of its base."""

MOST_ROWS, MOST_COLUMNS, COLUMNS_UNIT = 512, 4096, 256
ROWS_UNIT = 64
"""Rows are cut at multiples of this, which is a multiple of the network's cell: tiles have whole cells."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts of a panorama's rows, or of its columns, in world pixels: every `step` pixels from the first on.

    Attributes:
        pixels: the rows or columns of the panorama.
        first: the first cut inside it: the first pixel of its second part.
        step: the distance from one cut to the next.
        count: the number of parts.
    """

    pixels: Window
    first: int
    step: int
    count: int

    def cut(self, index: int) -> int:
        """Returns the first pixel of a part; of the first part, where the cuts would go on beyond the panorama."""
        return self.first + (index - 1) * self.step

    def part(self, index: int) -> Window:
        """Returns the pixels of a part."""
        low = self.pixels[0] if index == 0 else self.cut(index)
        return low, self.pixels[1] if index == self.count - 1 else self.cut(index + 1) - 1

    @property
    def edges(self) -> tuple[int, ...]:
        """The cuts in the panorama's own pixels, from 0 to its size."""
        return 0, *(self.cut(index) - self.pixels[0] for index in range(1, self.count)), length(self.pixels)


@dataclass(frozen=True, slots=True)
class EvenCuts(Cuts):
    """Cuts that divide a panorama evenly, at multiples of `step`."""

    def cut(self, index: int) -> int:
        """Returns the first pixel of a part."""
        even = self.pixels[0] * self.count + index * length(self.pixels)
        return (2 * even + self.count * self.step) // (2 * self.count * self.step) * self.step


def grid_cuts(pixels: Window, side_px: int) -> Cuts:
    """Cuts at every border of the world's grid."""
    low, high = pixels[0] // side_px, pixels[1] // side_px
    return Cuts(pixels, (low + 1) * side_px, side_px, high - low + 1)


def row_cuts(pixels: Window, height_px: int) -> Cuts:
    """Cuts rows evenly into as few parts as this height allows."""
    unit = min(power_of_2(height_px) // 2, ROWS_UNIT)
    return EvenCuts(pixels, 0, unit, -(-length(pixels) // height_px))


def column_cuts(pixels: Window, width_px: int) -> Cuts:
    """Cuts columns at the borders of the world's grid, except where less than a quarter of a tile would remain.

    So two panoramas with the same rows have the same tiles, except at their ends.
    """
    first = -(-(pixels[0] + width_px // 4) // width_px) * width_px
    last = (pixels[1] + 1 - width_px // 4) // width_px * width_px
    return Cuts(pixels, first, width_px, 1 + max(0, (last - first) // width_px + 1))


def power_of_2(side_px: int) -> int:
    """Returns the largest power of 2 that divides a side: a multiple of the network's cell if the side is one."""
    return side_px & -side_px


def size_for(height_px: int, width_px: int, cell_px: int, scale: int = 1) -> TileSize:
    """Returns the size of the tiles that suits a panorama.

    A pixel costs the least in a tile that is large and not narrow, because its margins weigh little
    (benchmarks/plan.py). The rows are divided evenly, and the tiles are as wide as the most pixels of a tile allow.

    Args:
        height_px: the height of the panorama.
        width_px: its width.
        cell_px: the side of the network's cells, a power of 2.
        scale: its scale.
    """
    pixels = TILE_PIXELS if scale == 1 else SCALED_TILE_PIXELS
    if cell_px > ROWS_UNIT:
        return max(COLUMNS_UNIT, cell_px)
    unit = max(ROWS_UNIT, 2 * cell_px)
    part = math.ceil(height_px / math.ceil(height_px / MOST_ROWS))
    tile_height_px = math.ceil(part / unit) * unit
    most = min(pixels // tile_height_px // COLUMNS_UNIT * COLUMNS_UNIT, MOST_COLUMNS)
    return tile_height_px, min(most, math.ceil(width_px / COLUMNS_UNIT) * COLUMNS_UNIT)


def fault(tile_px: TileSize, cell_px: int, most_px: int) -> str | None:
    """Returns how to mend a size of tiles that does not fit a network; None if it fits."""
    if isinstance(tile_px, int):
        if 1 <= tile_px <= most_px and tile_px % cell_px == 0:
            return None
        return f"give a multiple of {cell_px}, the network's cell, up to {most_px}"
    if cell_px > ROWS_UNIT:
        return f"give one side: the cells of this network, {cell_px} px, are too large for other tiles than squares"
    if all(1 <= side <= most_px and side % (2 * cell_px) == 0 for side in tile_px):
        return None
    return f"give multiples of {2 * cell_px}, twice the network's cell, up to {most_px}"


def area(tile_px: TileSize) -> int:
    """Returns the number of pixels of tiles of a size; those that follow the panorama may be half as large again."""
    return tile_px**2 if isinstance(tile_px, int) else tile_px[0] * tile_px[1]


def size_text(tile_px: TileSize) -> str:
    """Returns a size of tiles as text: the side, or width x height, as for --tile."""
    return str(tile_px) if isinstance(tile_px, int) else f"{tile_px[1]}x{tile_px[0]}"


def tile_size(value: Any) -> TileSize:
    """Returns the size of tiles from its JSON, which is an integer or a list of two; a plan checks their values."""
    return tuple(value) if isinstance(value, list) else value  # type: ignore[no-any-return]
