"""Writes a panorama of any size to a file, strip by strip, in memory that does not grow with its area.

PNG goes by rows of pixels, TIFF by squares of its own. Neither ever holds more than a few of them.
``FORMATS`` is the register; a further format is one more ``Format`` in it.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO

from model.errors import InputError
from transforms.layout import Strip, TileLayout
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
        write: writes a panorama's width, height, strips and metadata to a file that may be unable to seek.
    """

    name: str
    max_width_px: int
    max_height_px: int
    write: Callable[[IO[bytes], int, int, Iterable[Strip], Mapping[str, str]], None]

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
    name: str, url: str, layout: TileLayout, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a panorama, whole or not at all: an error on the way, also one of the strips, leaves no file.

    The bytes depend on the pixels, the metadata, the versions of ISA-L and tifffile and the kind of processor only.

    Args:
        name: one of ``FORMATS``.
        url: where to.
        layout: the panorama's size.
        strips: its pixels.
        metadata: provenance that travels in the file: text chunks in PNG (a key has 1 to 79 Latin-1 characters), a JSON
            object in TIFF's ImageDescription. "Software", in ASCII, is also TIFF's tag of that name.

    Raises:
        InputError: there is no such format, or the panorama is too large for it.
    """
    check_format(name, layout.width_px, layout.height_px)
    with open_atomic(url) as file:
        FORMATS[name].write(file, layout.width_px, layout.height_px, strips, metadata)


def write_png_strips(
    file: IO[bytes], width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a PNG."""
    write_png(file, width_px, height_px, (block for strip in strips for block in strip.row_blocks()), metadata)


FORMATS: Mapping[str, Format] = {
    # PNG itself allows 2^31 - 1 px a side, but its rows are filtered whole, in five times their memory.
    "png": Format("png", max_width_px=10_000_000, max_height_px=2**31 - 1, write=write_png_strips),
    "tif": Format("tif", max_width_px=2**31 - 1, max_height_px=2**31 - 1, write=write_tiff),
}
"""The formats by name."""
