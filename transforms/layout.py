"""A panorama as a grid of tiles: how it is cut, and its pixels across the tiles, by strips of rows or by regions."""

import itertools
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

STRIP_BYTES = 64 << 20
"""The most that a strip of full rows may hold, unless a single row is longer."""

ReadTile = Callable[[int, int], np.ndarray]
"""Gives the tile at (row, column) of a layout as uint8 [h,w,3], the same pixels each time it is asked."""


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


def scanline_strips(layout: TileLayout, read_tile: ReadTile) -> Iterator[np.ndarray]:
    """A panorama's rows from top to bottom, as many at once as a row of tiles and ``STRIP_BYTES`` allow.

    Where a row of tiles is more than that, it waits in a local file; each tile is read once all the same.

    Yields:
        uint8 [rows,width,3]; one buffer serves all, so a strip holds its pixels until the next is asked for.
    """
    heights_px = [bottom - top for top, bottom in itertools.pairwise(layout.row_edges_px)]
    rows = min(max(heights_px), max(1, STRIP_BYTES // (3 * layout.width_px)))
    buffer = np.empty((rows, layout.width_px, 3), np.uint8)
    with tempfile.TemporaryFile() as spool:
        if rows < max(heights_px):
            read_tile = _spooled(spool, read_tile)
        for top, bottom in itertools.pairwise(layout.row_edges_px):
            for y in range(top, bottom, rows):
                strip = buffer[: min(rows, bottom - y)]
                fill_region(strip, y, 0, layout, read_tile)
                yield strip


def fill_region(region: np.ndarray, top: int, left: int, layout: TileLayout, read_tile: ReadTile) -> None:
    """Fills region [h,w,3] with the panorama's pixels from (left, top) on, of all tiles that it meets."""
    for row, y0, y1 in intervals_met(layout.row_edges_px, top, top + region.shape[0]):
        for column, x0, x1 in intervals_met(layout.column_edges_px, left, left + region.shape[1]):
            tile_top, tile_left = layout.row_edges_px[row], layout.column_edges_px[column]
            part = read_tile(row, column)[y0 - tile_top : y1 - tile_top, x0 - tile_left : x1 - tile_left]
            region[y0 - top : y1 - top, x0 - left : x1 - left] = part


def intervals_met(edges: Sequence[int], low: int, high: int) -> list[tuple[int, int, int]]:
    """The intervals between edges that meet [low, high): the index of each, and the part that it shares."""
    first, last = bisect_right(edges, low) - 1, bisect_left(edges, high) - 1
    return [(index, max(low, edges[index]), min(high, edges[index + 1])) for index in range(first, last + 1)]


def _spooled(file: IO[bytes], read_tile: ReadTile) -> ReadTile:
    """Reads each tile once while the same row of tiles is asked for: its pixels then come from a local file."""
    places: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {}

    def read(row: int, column: int) -> np.ndarray:
        if (row, column) in places:
            offset, shape = places[row, column]
            return np.memmap(file, np.uint8, "r", offset, shape)
        if places and row != next(iter(places))[0]:
            places.clear()
            file.truncate(0)
        tile = read_tile(row, column)
        places[row, column] = file.seek(0, 2), tile.shape
        file.write(tile.tobytes())
        file.flush()
        return tile

    return read
