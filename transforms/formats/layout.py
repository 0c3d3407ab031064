"""A panorama as a grid of tiles: how it is cut, and its pixels across the tiles, by strips of rows."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STRIP_PX = 256
"""Rows of a strip."""

MEMORY_BYTES = 16 << 20
"""Rows that are more than this wait in a local file."""

BLOCK_BYTES = 1 << 20
"""About as much is written there or read from there at once."""


@dataclass(frozen=True)
class TileLayout:
    """Where a panorama is cut into tiles: on the world's grid, so the tiles on any of its four sides may be narrow.

    Attributes:
        column_edges_px: x of each cut, from 0 to the panorama's width; column j is [edges[j], edges[j + 1]).
        row_edges_px: y of each cut, from 0 to the panorama's height.
    """

    column_edges_px: Sequence[int]
    row_edges_px: Sequence[int]

    def __post_init__(self) -> None:
        for name in ("column_edges_px", "row_edges_px"):
            edges = tuple(int(edge) for edge in getattr(self, name))
            if len(edges) < 2 or edges[0] != 0 or any(low >= high for low, high in itertools.pairwise(edges)):
                raise ValueError(f"{name} must begin with 0 and rise, but is {str(edges)[:60]}")
            object.__setattr__(self, name, edges)

    @property
    def width_px(self) -> int:
        """The panorama's width."""
        return self.column_edges_px[-1]

    @property
    def height_px(self) -> int:
        """The panorama's height."""
        return self.row_edges_px[-1]


class Canvas:
    """The rows of a panorama that are neither complete nor used yet: a ring of rows, all of its width.

    They are in memory, or in a local file where they would be more than `MEMORY_BYTES`.
    """

    def __init__(self, rows: int, width_px: int):
        self.rows, self.width_px = rows, width_px
        self.file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - its owner closes it
        if 3 * rows * width_px > MEMORY_BYTES:
            self.file.rollover()

    def write(self, top: int, left: int, block: np.ndarray) -> None:
        """Puts down uint8 [h,w,3] at a row and a column of the panorama."""
        for y, row in enumerate(np.ascontiguousarray(block), start=top):
            self.file.seek(self._place(y, left))
            self.file.write(row.data)

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Reads uint8 [height,width,3] from a row and a column of the panorama on."""
        block = np.empty((height, width, 3), np.uint8)
        for y, row in enumerate(block, start=top):
            self.file.seek(self._place(y, left))
            row[:] = np.frombuffer(self.file.read(row.nbytes), np.uint8).reshape(row.shape)
        return block

    def _place(self, y: int, x: int) -> int:
        return 3 * (y % self.rows * self.width_px + x)


@dataclass(frozen=True)
class Strip:
    """Rows of a panorama from its left edge to its right. Its pixels can be read until the next strip is asked for.

    Attributes:
        canvas: that holds its pixels.
        top: its first row.
        height_px: how many there are.
    """

    canvas: Canvas
    top: int
    height_px: int

    def row_blocks(self) -> Iterator[np.ndarray]:
        """Yields its rows from top to bottom, some at a time, uint8 [n,width,3]."""
        width_px = self.canvas.width_px
        rows = max(1, BLOCK_BYTES // (3 * width_px))
        for y in range(self.top, self.top + self.height_px, rows):
            yield self.canvas.read(y, 0, min(rows, self.top + self.height_px - y), width_px)

    def squares(self, side_px: int) -> Iterator[np.ndarray]:
        """Yields its pixels from left to right, uint8 [height,side,3] at a time; the last may be narrower."""
        width_px = self.canvas.width_px
        step = side_px * max(1, BLOCK_BYTES // (3 * side_px * self.height_px))
        for x in range(0, width_px, step):
            block = self.canvas.read(self.top, x, self.height_px, min(step, width_px - x))
            yield from np.split(block, range(side_px, block.shape[1], side_px), axis=1)


def cut_strips(layout: TileLayout, tiles: Iterable[np.ndarray]) -> Iterator[Strip]:
    """Yields a panorama in strips of `STRIP_PX` rows from top to bottom; the last may be lower.

    Args:
        layout: its tiles.
        tiles: the pixels of each, row by row of tiles from left to right, uint8 [h,w,3]; each is taken once.

    Raises:
        ValueError: a tile has not the shape that the layout says, or is not uint8.
    """
    heights_px = [bottom - top for top, bottom in itertools.pairwise(layout.row_edges_px)]
    canvas, done, each = Canvas(max(heights_px) + STRIP_PX - 1, layout.width_px), 0, iter(tiles)
    with canvas.file:
        for row, (top, bottom) in enumerate(itertools.pairwise(layout.row_edges_px)):
            for left, block in side_by_side(layout, row, each):
                canvas.write(top, left, block)
            while bottom - done >= STRIP_PX or done < bottom == layout.height_px:
                strip = Strip(canvas, done, min(STRIP_PX, bottom - done))
                yield strip
                done += strip.height_px


def digested(strips: Iterable[Strip], digest: Any) -> Iterator[Strip]:
    """Passes strips on and their RGB bytes to a checksum: row by row, however the panorama is cut into tiles."""
    for strip in strips:
        for rows in strip.row_blocks():
            digest.update(rows.data)
        yield strip


def side_by_side(layout: TileLayout, row: int, tiles: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the tiles of a row, joined to blocks, and the left edge of each block."""
    top, bottom = layout.row_edges_px[row : row + 2]
    joined: list[np.ndarray] = []
    start = 0
    for column, (left, right) in enumerate(itertools.pairwise(layout.column_edges_px)):
        tile = next(tiles)
        shape = (bottom - top, right - left, 3)
        if tile.shape != shape or tile.dtype != np.uint8:
            got = f"{tile.dtype} {list(tile.shape)}"
            raise ValueError(f"tile ({row}, {column}) should be uint8 {list(shape)}, but is {got}")
        joined.append(tile)
        if right == layout.width_px or 3 * (right - start) * (bottom - top) >= BLOCK_BYTES:
            yield start, np.concatenate(joined, axis=1)
            joined, start = [], right
