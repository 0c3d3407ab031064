"""BigTIFF, encoded by tifffile as its tiles come."""

import functools
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

import numpy as np
import tifffile

from transforms.layout import ReadTile, TileLayout, fill_region, intervals_met

TIFF_TILE_PX = 256

CACHE_BYTES = 64 << 20
"""The decoded tiles of the panorama that are kept, for the TIFF tiles beside and below that meet them too."""


def write_tiff(file: IO[bytes], layout: TileLayout, read_tile: ReadTile, metadata: Mapping[str, str]) -> None:
    """Writes a BigTIFF of 256 px tiles, deflated with the horizontal predictor.

    Memory beside the tiles: tifffile keeps the place and the size of each TIFF tile, about 1/2000 of the pixels' bytes.
    One worker, as tifffile's pool would first collect 512 MiB of tiles.
    """
    with _seekable(file) as file, tifffile.TiffWriter(file, bigtiff=True) as writer:
        writer.write(
            _tiles(layout, read_tile),
            shape=(layout.height_px, layout.width_px, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(TIFF_TILE_PX, TIFF_TILE_PX),
            compression="adobe_deflate",
            compressionargs={"level": 1},
            predictor=True,
            description=json.dumps(dict(metadata), sort_keys=True),
            software=metadata.get("Software", "infinitygan"),
            metadata=None,
            maxworkers=1,
        )


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


def _tiles(layout: TileLayout, read_tile: ReadTile) -> Iterator[np.ndarray]:
    """The panorama cut into TIFF's tiles, row-major; those at the right and the bottom are cropped."""
    read_tile = functools.lru_cache(maxsize=_cached_tiles(layout))(read_tile)
    for top in range(0, layout.height_px, TIFF_TILE_PX):
        for left in range(0, layout.width_px, TIFF_TILE_PX):
            height_px = min(TIFF_TILE_PX, layout.height_px - top)
            width_px = min(TIFF_TILE_PX, layout.width_px - left)
            region = np.empty((height_px, width_px, 3), np.uint8)
            fill_region(region, top, left, layout, read_tile)
            yield region


def _cached_tiles(layout: TileLayout) -> int:
    """How many of the panorama's tiles to keep: ``CACHE_BYTES`` of them, but at least all that a TIFF tile meets."""
    most_met, tile_bytes = 1, 3
    for edges in (layout.row_edges_px, layout.column_edges_px):
        starts = range(0, edges[-1], TIFF_TILE_PX)
        most_met *= max(len(intervals_met(edges, low, min(low + TIFF_TILE_PX, edges[-1]))) for low in starts)
        tile_bytes *= max(high - low for low, high in itertools.pairwise(edges))
    return max(most_met, CACHE_BYTES // tile_bytes)
