"""Zarr v3: a panorama as an array [y, x, channel], for computing with it.

The writer is our own, because it only needs chunks of one strip at a time: a chunk is gzip over raw bytes, and
zarr.json, which readers look for first, is written last.
"""

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from isal import igzip

from transforms.formats.layout import STRIP_PX, Strip, filled_up
from transforms.storage.files import join, write_bytes, write_json
from transforms.storage.prefetch import for_each
from transforms.storage.retry import retried

METADATA_FILE = "zarr.json"
UPLOADS = 8


def write_zarr(url: str, width_px: int, height_px: int, strips: Iterable[Strip], metadata: Mapping[str, str]) -> None:
    """Writes an array of chunks [256,256,3] to a folder."""

    def write(chunk: tuple[str, np.ndarray]) -> None:
        name, pixels = chunk
        retried(write_bytes, join(url, "c", name), compressed(pixels))

    for_each(write, chunks(strips), UPLOADS)
    retried(write_json, join(url, METADATA_FILE), array_metadata(width_px, height_px, metadata))


def chunks(strips: Iterable[Strip]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the key and the pixels of each chunk; chunks at the right and the bottom may be smaller."""
    for strip in strips:
        for column, square in enumerate(strip.squares(STRIP_PX)):
            yield f"{strip.top // STRIP_PX}/{column}/0", square


def compressed(square: np.ndarray) -> bytes:
    """Compresses a whole chunk, padded with zeros."""
    return igzip.compress(filled_up(square, STRIP_PX).tobytes(), 1, mtime=0)


def array_metadata(width_px: int, height_px: int, metadata: Mapping[str, str]) -> dict[str, object]:
    """Returns the content of zarr.json."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [height_px, width_px, 3],
        "dimension_names": ["y", "x", "channel"],
        "data_type": "uint8",
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [STRIP_PX, STRIP_PX, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}],
        "attributes": {key: as_json(value) for key, value in sorted(metadata.items())},
    }


def as_json(text: str) -> object:
    """Parses a text that is a JSON object; returns any other text unchanged."""
    return json.loads(text) if text.startswith("{") else text
