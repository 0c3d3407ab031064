"""Writes a panorama of any size to a file, from its tiles, in memory that does not grow with its area.

A panorama is a grid of tiles that are read one at a time, in any order and as often as a format needs: PNG goes by
rows of pixels, TIFF by squares of its own. Neither ever holds more than a strip of rows, or a few tiles.
``FORMATS`` is the register; a further format is one more ``Format`` in it.
"""

import difflib
import functools
import hashlib
import itertools
import json
import shutil
import struct
import tempfile
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import tifffile

from model.errors import InputError
from transforms.storage import open_atomic

STRIP_BYTES = 64 << 20
"""The most that a strip of full rows may hold, unless a single row is longer."""

CACHE_BYTES = 64 << 20
"""The decoded tiles that are kept for a format that walks the panorama in squares."""

FILTER_BYTES = 1 << 18
"""The rows that are filtered at once for PNG: few enough for the processor's cache."""

TIFF_TILE_PX = 256

ReadTile = Callable[[int, int], np.ndarray]
"""Gives the tile at (row, column) of a layout as uint8 [h,w,3], the same pixels each time it is asked."""

Progress = Callable[[int], None]
"""Is told how many more pixels have been written."""


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


@dataclass(frozen=True)
class Format:
    """A way to store a panorama.

    Attributes:
        name: what a request calls it, and the file's extension.
        max_width_px: the widest panorama it holds.
        max_height_px: the tallest.
        write: writes a panorama at a URL, as ``write_panorama`` says.
    """

    name: str
    max_width_px: int
    max_height_px: int
    write: Callable[[str, TileLayout, ReadTile, Mapping[str, str], Progress], str | None]

    def holds(self, width_px: int, height_px: int) -> bool:
        """Whether a panorama of a size can be stored."""
        return width_px <= self.max_width_px and height_px <= self.max_height_px


def check_format(name: str, width_px: int, height_px: int) -> None:
    """Says before any work is done whether a panorama can be stored in a format.

    Raises:
        InputError: there is no such format, or it cannot hold a panorama of that size.
    """
    if name not in FORMATS:
        near = difflib.get_close_matches(name.lower().lstrip("."), FORMATS, n=1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        raise InputError(f"format {name!r} is unknown: {hint} {', '.join(FORMATS)}")
    limits = FORMATS[name]
    if limits.holds(width_px, height_px):
        return
    others = [other.name for other in FORMATS.values() if other.holds(width_px, height_px)]
    raise InputError(
        f"format {name} holds at most {limits.max_width_px} x {limits.max_height_px} px, but the panorama has "
        f"{width_px} x {height_px} px: " + (f"ask for {' or '.join(others)}" if others else "ask for a smaller one")
    )


def write_panorama(
    name: str,
    url: str,
    layout: TileLayout,
    read_tile: ReadTile,
    metadata: Mapping[str, str],
    progress: Progress = lambda pixels: None,
) -> str | None:
    """Writes a panorama, whole or not at all: an error on the way, also one of ``read_tile``, leaves no file.

    The bytes depend on the pixels, the metadata and the versions of zlib and tifffile only.

    Args:
        name: one of ``FORMATS``.
        url: where to.
        layout: the panorama's size and how it is cut.
        read_tile: gives a tile; PNG asks for each once, row by row, TIFF for some again.
        metadata: provenance that travels in the file: text chunks in PNG (a key has 1 to 79 Latin-1 characters), a JSON
            object in TIFF's ImageDescription.
        progress: called as pixels are written; the sum is the panorama's area.

    Returns:
        What ``pixel_sha256`` gives, where the format meets the pixels in that order; otherwise None.

    Raises:
        InputError: there is no such format, or the panorama is too large for it.
        ValueError: a tile has not the shape that the layout says, or is not uint8.
    """
    check_format(name, layout.width_px, layout.height_px)
    return FORMATS[name].write(url, layout, _checked(layout, read_tile), metadata, progress)


def pixel_sha256(layout: TileLayout, read_tile: ReadTile) -> str:
    """The SHA-256 of a panorama's RGB bytes, row by row from its top left corner: however it is cut into tiles."""
    digest = hashlib.sha256()
    for strip in scanline_strips(layout, _checked(layout, read_tile)):
        digest.update(strip.data)
    return digest.hexdigest()


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
                _fill(strip, y, 0, layout, read_tile)
                yield strip


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


def _fill(region: np.ndarray, top: int, left: int, layout: TileLayout, read_tile: ReadTile) -> None:
    """Fills region [h,w,3] with the panorama's pixels from (left, top) on, of all tiles that it meets."""
    for row, y0, y1 in _met(layout.row_edges_px, top, top + region.shape[0]):
        for column, x0, x1 in _met(layout.column_edges_px, left, left + region.shape[1]):
            tile_top, tile_left = layout.row_edges_px[row], layout.column_edges_px[column]
            part = read_tile(row, column)[y0 - tile_top : y1 - tile_top, x0 - tile_left : x1 - tile_left]
            region[y0 - top : y1 - top, x0 - left : x1 - left] = part


def _met(edges: Sequence[int], low: int, high: int) -> list[tuple[int, int, int]]:
    """The intervals between edges that meet [low, high): the index of each, and the part that it shares."""
    first, last = bisect_right(edges, low) - 1, bisect_left(edges, high) - 1
    return [(index, max(low, edges[index]), min(high, edges[index + 1])) for index in range(first, last + 1)]


def _write_png(
    url: str, layout: TileLayout, read_tile: ReadTile, metadata: Mapping[str, str], progress: Progress
) -> str:
    """Writes a PNG: 8 bits, RGB, not interlaced.

    It is encoded here since no library that we depend on takes rows as they come: Pillow wants the whole picture in
    memory, and libvips as pyvips brings it reads no stream of raw pixels. The average filter with run-length deflate
    makes photographs as small as Pillow's adaptive filters at level 3, at three times the speed.
    """
    digest = hashlib.sha256()
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    with open_atomic(url) as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", layout.width_px, layout.height_px, 8, 2, 0, 0, 0))
        for key in sorted(metadata):
            _write_chunk(file, b"iTXt", _png_text(key, metadata[key]))
        above = np.zeros(3 * layout.width_px, np.uint8)
        for strip in scanline_strips(layout, read_tile):
            digest.update(strip.data)
            block = max(1, FILTER_BYTES // above.nbytes)
            for start in range(0, len(strip), block):
                rows = strip[start : start + block].reshape(-1, above.nbytes)
                _write_chunk(file, b"IDAT", deflate.compress(_average_filtered(rows, above).data))
                above = rows[-1].copy()
            progress(len(strip) * layout.width_px)
        _write_chunk(file, b"IDAT", deflate.flush())
        _write_chunk(file, b"IEND", b"")
    return digest.hexdigest()


def _write_chunk(file: IO[bytes], kind: bytes, body: bytes) -> None:
    """Writes a PNG chunk; no IDAT while deflate still holds its output back."""
    if body or kind != b"IDAT":
        file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


def _png_text(key: str, text: str) -> bytes:
    """The body of an iTXt chunk, uncompressed and without a language."""
    keyword, value = key.encode("latin-1"), text.encode()
    if not 1 <= len(keyword) <= 79 or b"\0" in keyword + value:
        raise ValueError(f"PNG metadata {key!r}: a key has 1 to 79 characters, and there is no NUL in it or its text")
    return keyword + b"\0\0\0\0\0" + value


def _average_filtered(rows: np.ndarray, above: np.ndarray) -> np.ndarray:
    """PNG's filter 3: of each byte stays the difference from the mean of the ones to the left and above.

    Args:
        rows: uint8 [n,3w].
        above: uint8 [3w], the row over them; zeros over the first.

    Returns:
        uint8 [n,1+3w], with the filter's number before each row.
    """
    filtered = np.empty((rows.shape[0], 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 3
    means = filtered[:, 1:]
    upper = np.concatenate([above[None], rows[:-1]])
    left, over = rows[:, :-3], upper[:, 3:]
    means[:, :3] = upper[:, :3] >> 1
    means[:, 3:] = (left & over) + ((left ^ over) >> 1)
    np.subtract(rows, means, out=means)
    return filtered


def _write_tiff(
    url: str, layout: TileLayout, read_tile: ReadTile, metadata: Mapping[str, str], progress: Progress
) -> None:
    """Writes a BigTIFF of 256 px tiles, deflated with the horizontal predictor.

    Memory beside the tiles: tifffile keeps the place and the size of each TIFF tile, about 1/2000 of the pixels' bytes.
    One worker, as tifffile's pool would first collect 512 MiB of tiles.
    """
    with _open_seekable(url) as file, tifffile.TiffWriter(file, bigtiff=True) as writer:
        writer.write(
            _tiff_tiles(layout, read_tile, progress),
            shape=(layout.height_px, layout.width_px, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(TIFF_TILE_PX, TIFF_TILE_PX),
            compression="adobe_deflate",
            compressionargs={"level": 1},
            predictor=True,
            description=json.dumps(dict(metadata), sort_keys=True),
            software="infinitygan",
            metadata=None,
            maxworkers=1,
        )


def _tiff_tiles(layout: TileLayout, read_tile: ReadTile, progress: Progress) -> Iterator[np.ndarray]:
    """The panorama cut into TIFF's tiles, row-major; those at the right and the bottom are cropped."""
    read_tile = functools.lru_cache(maxsize=_cached_tiles(layout))(read_tile)
    for top in range(0, layout.height_px, TIFF_TILE_PX):
        for left in range(0, layout.width_px, TIFF_TILE_PX):
            height_px = min(TIFF_TILE_PX, layout.height_px - top)
            width_px = min(TIFF_TILE_PX, layout.width_px - left)
            region = np.empty((height_px, width_px, 3), np.uint8)
            _fill(region, top, left, layout, read_tile)
            progress(height_px * width_px)
            yield region


def _cached_tiles(layout: TileLayout) -> int:
    """How many of the panorama's tiles to keep: ``CACHE_BYTES`` of them, but at least all that a TIFF tile meets."""
    most_met, tile_bytes = 1, 3
    for edges in (layout.row_edges_px, layout.column_edges_px):
        starts = range(0, edges[-1], TIFF_TILE_PX)
        most_met *= max(len(_met(edges, low, min(low + TIFF_TILE_PX, edges[-1]))) for low in starts)
        tile_bytes *= max(high - low for low, high in itertools.pairwise(edges))
    return max(most_met, CACHE_BYTES // tile_bytes)


@contextmanager
def _open_seekable(url: str) -> Iterator[IO[bytes]]:
    """Like ``open_atomic``, for a writer that goes back: through a local file where the store only takes a stream."""
    with open_atomic(url) as file:
        if file.seekable():
            yield file
            return
        with tempfile.NamedTemporaryFile() as local:  # tifffile wants a name that is text
            yield local
            local.seek(0)
            shutil.copyfileobj(local, file, 1 << 20)


def _checked(layout: TileLayout, read_tile: ReadTile) -> ReadTile:
    """Holds each tile against the layout, since numpy would stretch one of a single pixel without a word."""

    def read(row: int, column: int) -> np.ndarray:
        tile = read_tile(row, column)
        (top, bottom), (left, right) = layout.row_edges_px[row : row + 2], layout.column_edges_px[column : column + 2]
        shape = (bottom - top, right - left, 3)
        if tile.shape != shape or tile.dtype != np.uint8:
            got = f"{tile.dtype} {list(tile.shape)}"
            raise ValueError(f"tile ({row}, {column}) should be uint8 {list(shape)}, but is {got}")
        return tile

    return read


FORMATS: Mapping[str, Format] = {
    # PNG itself allows 2^31 - 1 px a side, but its rows are filtered whole, in five times their memory.
    "png": Format("png", max_width_px=10_000_000, max_height_px=2**31 - 1, write=_write_png),
    "tif": Format("tif", max_width_px=2**31 - 1, max_height_px=2**31 - 1, write=_write_tiff),
}
"""The formats by name."""
