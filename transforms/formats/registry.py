"""Writes a panorama of any size to a file, strip by strip, in memory that does not grow with its area.

PNG and JPEG are written by rows of pixels, the others by squares. Only WebP, whose size limits are narrow, ever holds
more than a few of them. To add a format, add a ``Format`` to ``FORMATS``.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from model.errors import InputError
from transforms.formats.dzi import companions, write_dzi
from transforms.formats.jpeg import write_jpeg, write_webp
from transforms.formats.layout import Strip, TileLayout
from transforms.formats.png import write_png
from transforms.formats.tiff import write_tiff
from transforms.formats.zarr import METADATA_FILE, write_zarr
from transforms.storage.fence import StaleRunError, fenced_like
from transforms.storage.files import exists, open_atomic, remove


@dataclass(frozen=True)
class Format:
    """A file format for panoramas.

    Attributes:
        name: the format's name in requests, and the file's extension.
        max_width_px: the largest width that it can hold.
        max_height_px: the largest height that it can hold.
        write: the function that writes a panorama to a URL, given its width, height, strips and metadata.
        proof: the path below the URL of the part that is written last, if the URL is a folder.
        beside: the function that lists the other files and folders of a panorama at a URL.
    """

    name: str
    max_width_px: int
    max_height_px: int
    write: Callable[[str, int, int, Iterable[Strip], Mapping[str, str]], None]
    proof: str = ""
    beside: Callable[[str], Sequence[str]] = lambda url: ()

    def holds(self, width_px: int, height_px: int) -> bool:
        """Returns whether a panorama of this size can be stored."""
        return width_px <= self.max_width_px and height_px <= self.max_height_px


def check_format(name: str, width_px: int, height_px: int) -> None:
    """Checks before any work is done that a panorama can be stored in a format.

    Raises:
        InputError: the format is unknown, or cannot hold a panorama of that size.
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


def caution(name: str, width_px: int, height_px: int) -> str | None:
    """Returns a warning about the file of a panorama before it is made, if there is one to give."""
    if name == "png" and max(width_px, height_px) > LIBPNG_PX:
        return (
            f"a PNG of more than {LIBPNG_PX:,} px a side is valid, but programs that use libpng, such as browsers and "
            "GDAL, cannot open it: ask for tif, dzi or zarr"
        )
    return None


def write_panorama(
    name: str, url: str, layout: TileLayout, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a panorama, whole or not at all: any error, including one in the strips, leaves no file.

    The bytes depend only on the pixels, the metadata, the versions of ISA-L and tifffile, and the kind of processor.

    Args:
        name: one of ``FORMATS``.
        url: the URL to write to.
        layout: the panorama's size.
        strips: its pixels.
        metadata: the provenance stored in the file: text chunks in PNG (a key has 1 to 79 Latin-1 characters), a JSON
            object in TIFF's ImageDescription. "Software", in ASCII, is also TIFF's tag of that name.

    Raises:
        InputError: the format is unknown, or the panorama is too large for it.
    """
    check_format(name, layout.width_px, layout.height_px)
    try:
        FORMATS[name].write(url, layout.width_px, layout.height_px, strips, metadata)
    except StaleRunError:  # what is there belongs to another plan
        raise
    except BaseException:
        if FORMATS[name].beside(url) and not is_written(name, url):  # another run may just have finished it
            remove_panorama(name, url)
        raise


def is_written(name: str, url: str) -> bool:
    """Returns whether a panorama is complete."""
    return exists(url + FORMATS[name].proof)


def is_one_file(name: str) -> bool:
    """Returns whether a panorama is complete if there is a file or folder of its name."""
    return not FORMATS[name].proof


def remove_panorama(name: str, url: str) -> None:
    """Removes a panorama, beginning with the part that marks it as complete."""
    remove(fenced_like(url, url + FORMATS[name].proof))
    for part in FORMATS[name].beside(url):
        remove(part)


def in_one_file(write: Callable[..., None]) -> Callable[[str, int, int, Iterable[Strip], Mapping[str, str]], None]:
    """Turns a writer to a file, which may be unable to seek, into a writer to a URL."""

    def write_file(url: str, *panorama: Any) -> None:
        with open_atomic(url) as file:
            write(file, *panorama)

    return write_file


def write_png_strips(
    file: IO[bytes], width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a PNG."""
    write_png(file, width_px, height_px, (block for strip in strips for block in strip.row_blocks()), metadata)


WORLD_PX = 2**31 - 1
LIBPNG_PX = 1_000_000
"""The largest width and height that libpng opens by default."""

FORMATS: Mapping[str, Format] = {
    form.name: form
    for form in (
        # PNG itself allows 2^31 - 1 px a side, but filtering whole rows takes five times their memory.
        Format("png", max_width_px=10_000_000, max_height_px=WORLD_PX, write=in_one_file(write_png_strips)),
        Format("tif", max_width_px=WORLD_PX, max_height_px=WORLD_PX, write=in_one_file(write_tiff)),
        Format("dzi", max_width_px=WORLD_PX, max_height_px=WORLD_PX, write=write_dzi, beside=companions),
        Format("zarr", WORLD_PX, WORLD_PX, write_zarr, proof=f"/{METADATA_FILE}", beside=lambda url: (url,)),
        Format("jpg", max_width_px=65_500, max_height_px=65_500, write=in_one_file(write_jpeg)),
        Format("webp", max_width_px=16_383, max_height_px=16_383, write=in_one_file(write_webp)),
    )
}
"""The formats by name."""
