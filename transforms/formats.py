"""Writes a panorama of any size to a file, from its tiles, in memory that does not grow with its area.

A panorama is a grid of tiles that are read one at a time, in any order and as often as a format needs: PNG goes by
rows of pixels, TIFF by squares of its own. Neither ever holds more than a strip of rows, or a few tiles.
``FORMATS`` is the register; a further format is one more ``Format`` in it.
"""

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np

from model.errors import InputError
from transforms.layout import ReadTile, TileLayout, scanline_strips
from transforms.png import write_png
from transforms.storage import open_atomic
from transforms.tiff import write_tiff


@dataclass(frozen=True)
class Format:
    """A way to store a panorama.

    Attributes:
        name: what a request calls it, and the file's extension.
        max_width_px: the widest panorama it holds.
        max_height_px: the tallest.
        write: writes a panorama to a file that may be unable to seek; gives what ``write_panorama`` gives.
    """

    name: str
    max_width_px: int
    max_height_px: int
    write: Callable[[IO[bytes], TileLayout, ReadTile, Mapping[str, str]], str | None]

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
    name: str, url: str, layout: TileLayout, read_tile: ReadTile, metadata: Mapping[str, str]
) -> str | None:
    """Writes a panorama, whole or not at all: an error on the way, also one of ``read_tile``, leaves no file.

    The bytes depend on the pixels, the metadata and the versions of zlib and tifffile only.

    Args:
        name: one of ``FORMATS``.
        url: where to.
        layout: the panorama's size and how it is cut.
        read_tile: gives a tile; PNG asks for each once, row by row, TIFF for some again.
        metadata: provenance that travels in the file: text chunks in PNG (a key has 1 to 79 Latin-1 characters), a JSON
            object in TIFF's ImageDescription. "Software", in ASCII, is also TIFF's tag of that name.

    Returns:
        What ``pixel_sha256`` gives, where the format meets the pixels in that order; otherwise None.

    Raises:
        InputError: there is no such format, or the panorama is too large for it.
        ValueError: a tile has not the shape that the layout says, or is not uint8.
    """
    check_format(name, layout.width_px, layout.height_px)
    with open_atomic(url) as file:
        return FORMATS[name].write(file, layout, _checked(layout, read_tile), metadata)


def pixel_sha256(layout: TileLayout, read_tile: ReadTile) -> str:
    """The SHA-256 of a panorama's RGB bytes, row by row from its top left corner: however it is cut into tiles."""
    digest = hashlib.sha256()
    for strip in scanline_strips(layout, _checked(layout, read_tile)):
        digest.update(strip.data)
    return digest.hexdigest()


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
    "png": Format("png", max_width_px=10_000_000, max_height_px=2**31 - 1, write=write_png),
    "tif": Format("tif", max_width_px=2**31 - 1, max_height_px=2**31 - 1, write=write_tiff),
}
"""The formats by name."""
