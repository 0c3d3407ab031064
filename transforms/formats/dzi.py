"""Deep Zoom: a pyramid of JPEG tiles, of which a viewer loads only what it shows, and a page with such a viewer.

<id>.dzi                            size and tile size; written last
<id>_files/<level>/<column>_<row>.jpg    level 0 is one pixel, the last the whole panorama
<id>.html                           the page; needs only the other two
"""

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from transforms.formats.jpeg import encode_jpeg
from transforms.formats.layout import STRIP_PX, Strip
from transforms.formats.pyramid import level_sizes, level_strips
from transforms.storage.fence import fenced_like
from transforms.storage.files import join, write_bytes
from transforms.storage.prefetch import for_each
from transforms.storage.retry import retried
from transforms.storage.templates import fill

UPLOADS = 8
DESCRIPTOR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" Overlap="0" TileSize="{tile_px}">'
    '<Size Width="{width_px}" Height="{height_px}"/></Image>\n'
)


def companions(url: str) -> tuple[str, str]:
    """Returns the other paths of a .dzi: the folder of its tiles, and its page."""
    stem = url.removesuffix(".dzi")
    return fenced_like(url, f"{stem}_files"), fenced_like(url, f"{stem}.html")


def write_dzi(url: str, width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]) -> None:
    """Writes a pyramid of 256 px tiles without overlap, its page and its descriptor."""
    folder, page = companions(url)

    def write(tile: tuple[str, np.ndarray]) -> None:
        name, pixels = tile
        retried(write_bytes, join(folder, name), encode_jpeg(pixels))

    for_each(write, tiles(width_px, height_px, strips), UPLOADS)
    retried(write_bytes, page, viewer(folder, width_px, height_px, metadata).encode())
    about = DESCRIPTOR.format(tile_px=STRIP_PX, width_px=width_px, height_px=height_px)
    retried(write_bytes, url, about.encode())


def tiles(width_px: int, height_px: int, strips: Iterable[Strip]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the path and the pixels of each tile; tiles at the right and the bottom may be smaller."""
    sizes = level_sizes(width_px, height_px, 1)
    for level, strip in level_strips(strips, sizes):
        for column, square in enumerate(strip.squares(STRIP_PX)):
            yield f"{len(sizes) - 1 - level}/{column}_{strip.top // STRIP_PX}.jpg", square


def viewer(folder: str, width_px: int, height_px: int, metadata: Mapping[str, str]) -> str:
    """Returns the page that shows a pyramid."""
    name = folder.rsplit("/", 1)[-1]
    return fill(
        "viewer.html",
        title=name.removesuffix("_files"),
        about={"tiles": name, "width": width_px, "height": height_px, "tileSize": STRIP_PX},
        provenance=json.dumps(dict(metadata), sort_keys=True),
    )
