"""A panorama as a grid of tiles, and as strips of rows cut across the tiles."""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STRIP_PX = 256
"""The number of rows in a strip."""

MEMORY_BYTES = 16 << 20
"""The size above which rows are kept in a temporary file instead of memory."""

BLOCK_BYTES = 1 << 20
"""The approximate number of bytes written to or read from that file at once."""


@dataclass(frozen=True)
class TileLayout:
    """The cuts of a panorama into tiles. They follow the world's grid, so tiles at the four sides may be narrow.

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
    """A ring buffer for the rows of a panorama that are neither complete nor used yet, each of full width.

    The rows are in memory, or in a temporary file if they exceed `MEMORY_BYTES`. The file is not mapped into memory,
    because its pages would count as this process's own, and not buffered, because each row is at another place.
    """

    def __init__(self, rows: int, width_px: int):
        self.rows, self.width_px = rows, width_px
        large = 3 * rows * width_px > MEMORY_BYTES
        self.file = tempfile.TemporaryFile(buffering=0) if large else None  # noqa: SIM115 - closed at the end
        self.pixels = np.empty((0 if large else rows, width_px, 3), np.uint8)

    def __enter__(self) -> "Canvas":
        return self

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()

    def write(self, top: int, left: int, block: np.ndarray) -> None:
        """Writes uint8 [h,w,3] at a row and a column of the panorama."""
        for y, row in enumerate(np.ascontiguousarray(block), start=top):
            if self.file is None:
                self.pixels[y % self.rows, left : left + len(row)] = row
            else:
                write_at(self.file.fileno(), row.data.cast("B"), self._place(y, left))

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Reads uint8 [height,width,3] at a row and a column of the panorama."""
        block = np.empty((height, width, 3), np.uint8)
        for y, row in enumerate(block, start=top):
            if self.file is None:
                row[:] = self.pixels[y % self.rows, left : left + width]
            else:
                read_at(self.file.fileno(), row.data.cast("B"), self._place(y, left))
        return block

    def _place(self, y: int, x: int) -> int:
        return 3 * (y % self.rows * self.width_px + x)


def write_at(file: int, content: memoryview, place: int) -> None:
    """Writes all of some bytes at a place in an open file."""
    while content:
        written = os.pwrite(file, content, place)
        content, place = content[written:], place + written


def read_at(file: int, buffer: memoryview, place: int) -> None:
    """Fills a buffer from a place in an open file; bytes that were never written stay as they are."""
    while buffer:
        count = os.preadv(file, [buffer], place)
        if count == 0:
            return
        buffer, place = buffer[count:], place + count


@dataclass(frozen=True)
class Strip:
    """Rows of a panorama over its full width. Its pixels can be read until the next strip is requested.

    Attributes:
        canvas: the canvas that holds its pixels.
        top: its first row.
        height_px: the number of its rows.
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
        """Yields its pixels from left to right, uint8 [height,side,3] at a time; the last square may be narrower."""
        width_px = self.canvas.width_px
        step = side_px * max(1, BLOCK_BYTES // (3 * side_px * self.height_px))
        for x in range(0, width_px, step):
            block = self.canvas.read(self.top, x, self.height_px, min(step, width_px - x))
            yield from np.split(block, range(side_px, block.shape[1], side_px), axis=1)


def filled_up(square: np.ndarray, side_px: int) -> np.ndarray:
    """Returns a whole square, uint8 [side,side,3]: one from the right or the bottom edge is filled up with zeros."""
    whole = np.zeros((side_px, side_px, 3), np.uint8)
    whole[: square.shape[0], : square.shape[1]] = square
    return whole


def cut_strips(layout: TileLayout, tiles: Iterable[np.ndarray]) -> Iterator[Strip]:
    """Yields a panorama in strips of `STRIP_PX` rows from top to bottom; the last strip may be lower.

    Args:
        layout: the panorama's tiles.
        tiles: the pixels of each tile, uint8 [h,w,3], row by row from left to right; each is taken once.

    Raises:
        ValueError: a tile does not have the shape that the layout gives, or is not uint8.
    """
    heights_px = [bottom - top for top, bottom in itertools.pairwise(layout.row_edges_px)]
    canvas, done, each = Canvas(max(heights_px) + STRIP_PX - 1, layout.width_px), 0, iter(tiles)
    with canvas:
        for row, (top, bottom) in enumerate(itertools.pairwise(layout.row_edges_px)):
            for left, block in side_by_side(layout, row, each):
                canvas.write(top, left, block)
            while bottom - done >= STRIP_PX or done < bottom == layout.height_px:
                strip = Strip(canvas, done, min(STRIP_PX, bottom - done))
                yield strip
                done += strip.height_px


def with_digest(strips: Iterable[Strip], digest: Any) -> Iterator[Strip]:
    """Passes strips on and adds their RGB bytes to a checksum, row by row, whatever the tiles."""
    for strip in strips:
        for rows in strip.row_blocks():
            digest.update(rows.data)
        yield strip


def side_by_side(layout: TileLayout, row: int, tiles: Iterator[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the tiles of a row, joined into blocks, with the left edge of each block."""
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
