"""BigTIFF: its tiles are compressed here, and put in their places by tifffile."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

import numpy as np
import tifffile
from isal import isal_zlib

from transforms.ahead import map_ahead
from transforms.layout import STRIP_PX, Strip

TIFF_TILE_PX = STRIP_PX


def write_tiff(
    file: IO[bytes], width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]
) -> None:
    """Writes a BigTIFF of 256 px tiles, deflated with the horizontal predictor.

    tifffile's own pool of threads would first collect 512 MiB of tiles. Memory beside the tiles at work: it keeps the
    place and the size of each, about 1/2000 of the pixels' bytes.
    """
    with _seekable(file) as file, tifffile.TiffWriter(file, bigtiff=True) as writer:
        writer.write(
            map_ahead(compressed, (square for strip in strips for square in strip.squares(TIFF_TILE_PX))),
            shape=(height_px, width_px, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(TIFF_TILE_PX, TIFF_TILE_PX),
            compression="adobe_deflate",
            predictor=True,
            description=json.dumps(dict(metadata), sort_keys=True),
            software=metadata.get("Software", "infinitygan"),
            metadata=None,
            maxworkers=1,
        )


def compressed(square: np.ndarray) -> bytes:
    """A TIFF tile; one at the right or the bottom, which is smaller, is filled up with zeros."""
    tile = np.zeros((TIFF_TILE_PX, TIFF_TILE_PX, 3), np.uint8)
    height_px, width_px, _ = square.shape
    tile[:height_px, :width_px] = square
    tile[:, 1:] -= tile[:, :-1].copy()
    return isal_zlib.compress(tile.data, 1)


@contextmanager
def _seekable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file, for a writer that goes back: through a local one where the store only takes a stream."""
    if file.seekable():
        yield file
        return
    with tempfile.NamedTemporaryFile() as local:  # tifffile wants a name that is text
        yield local
        local.seek(0)
        shutil.copyfileobj(local, file, 1 << 20)
