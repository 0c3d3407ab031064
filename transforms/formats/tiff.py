"""BigTIFF: tiles are compressed here, and tifffile writes them into the file."""

import json
import shutil
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO

import numpy as np
import tifffile
from isal import isal_zlib

from transforms.formats.layout import STRIP_PX, Strip, filled_up
from transforms.formats.pyramid import Size, level_sizes, level_strips
from transforms.storage.prefetch import map_ahead
from transforms.storage.unfinished import unfinished

TIFF_TILE_PX = STRIP_PX
OVERVIEW_BYTES = 1 << 20
"""The size above which the tiles of an overview are kept in a temporary file."""


def write_tiff(
    file: IO[bytes], width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a BigTIFF of 256 px tiles, deflated with the horizontal predictor, followed by its overviews.

    tifffile's own thread pool would first collect 512 MiB of tiles. Besides the tiles in progress, memory holds the
    position and size of each tile, about 1/2000 of the pixels' bytes. The overviews, a third of the file, are kept in
    temporary files.
    """
    sizes = level_sizes(width_px, height_px, TIFF_TILE_PX)
    with _seekable(file) as file, ExitStack() as stack, tifffile.TiffWriter(file, bigtiff=True) as writer:
        overviews = [stack.enter_context(Overview()) for _ in sizes[1:]]
        levels = [map_ahead(compressed, squares(strips, sizes, overviews)), *map(Overview.tiles, overviews)]
        for number, ((wide, high), tiles) in enumerate(zip(sizes, levels, strict=True)):
            about = {"description": json.dumps(dict(metadata), sort_keys=True)} if number == 0 else {"subfiletype": 1}
            writer.write(
                tiles,
                shape=(high, wide, 3),
                dtype=np.uint8,
                photometric="rgb",
                tile=(TIFF_TILE_PX, TIFF_TILE_PX),
                compression="adobe_deflate",
                predictor=True,
                software=metadata.get("Software", "infinitygan"),
                metadata=None,
                maxworkers=1,
                **about,
            )


class Overview:
    """The compressed tiles of an overview, in a temporary file until they are written."""

    def __init__(self) -> None:
        self.file, self.sizes = tempfile.SpooledTemporaryFile(OVERVIEW_BYTES), array("L")  # noqa: SIM115

    def __enter__(self) -> "Overview":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, tile: bytes) -> None:
        """Stores a tile."""
        self.file.write(tile)
        self.sizes.append(len(tile))

    def tiles(self) -> Iterator[bytes]:
        """Yields all tiles in order."""
        self.file.seek(0)
        for size in self.sizes:
            yield self.file.read(size)


def squares(strips: Iterable[Strip], sizes: Sequence[Size], overviews: Sequence[Overview]) -> Iterator[np.ndarray]:
    """Yields the panorama's tiles; tiles of the overviews are stored on the way."""
    for level, strip in level_strips(strips, sizes):
        for square in strip.squares(TIFF_TILE_PX):
            if level:
                overviews[level - 1].add(compressed(square))
            else:
                yield square


def compressed(square: np.ndarray) -> bytes:
    """Compresses a TIFF tile; a smaller one, at the right or the bottom, is padded with zeros."""
    tile = filled_up(square, TIFF_TILE_PX)
    tile[:, 1:] -= tile[:, :-1].copy()
    return isal_zlib.compress(tile.data, 1)


@contextmanager
def _seekable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yields the file to a writer that seeks: a local copy where the store takes only a stream."""
    if file.seekable():
        yield file
        return
    with tempfile.NamedTemporaryFile() as local, unfinished(local.name):  # tifffile needs a file with a name
        yield local
        local.seek(0)
        shutil.copyfileobj(local, file, 1 << 20)
