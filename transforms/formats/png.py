"""PNG, encoded row by row."""

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import IO

import numpy as np
from isal import isal_zlib

FILTER_BYTES = 1 << 18
"""The number of bytes filtered at once: few enough for the processor's cache."""


def write_png(
    file: IO[bytes], width_px: int, height_px: int, blocks: Iterable[np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a PNG: 8 bits, RGB, not interlaced.

    PNG is encoded here because Pillow needs the whole picture in memory, pyvips' libvips reads no stream of raw pixels,
    and pypng, which does take rows one by one, applies no filter: photographs become a fifth larger.

    The average filter with ISA-L's deflate makes patches of a world 7% smaller than Pillow's adaptive filters with zlib
    at level 1, and is eight times as fast.

    Args:
        file: the file to write to.
        width_px: the width of the picture.
        height_px: the height of the picture.
        blocks: its rows from top to bottom, uint8 [n,width,3] each.
        metadata: the text chunks.
    """
    deflate = isal_zlib.compressobj(level=1)
    file.write(b"\x89PNG\r\n\x1a\n")
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0))
    for key in sorted(metadata):
        _write_chunk(file, b"iTXt", _text(key, metadata[key]))
    above = np.zeros(3 * width_px, np.uint8)
    rows_at_once = max(1, FILTER_BYTES // above.nbytes)
    for block in blocks:
        for start in range(0, len(block), rows_at_once):
            rows = block[start : start + rows_at_once].reshape(-1, above.nbytes)
            _write_chunk(file, b"IDAT", deflate.compress(_average_filtered(rows, above).data))
            above = rows[-1].copy()
    _write_chunk(file, b"IDAT", deflate.flush())
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: IO[bytes], kind: bytes, body: bytes) -> None:
    """Writes a PNG chunk, except for an empty IDAT while deflate still buffers its output."""
    if body or kind != b"IDAT":
        file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))


def _text(key: str, text: str) -> bytes:
    """Returns the body of an iTXt chunk, uncompressed and without a language."""
    keyword, value = key.encode("latin-1"), text.encode()
    if not 1 <= len(keyword) <= 79 or b"\0" in keyword + value:
        raise ValueError(f"PNG metadata {key!r}: a key needs 1 to 79 characters, and NUL is not allowed")
    return keyword + b"\0\0\0\0\0" + value


def _average_filtered(rows: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Applies PNG's filter 3: each byte minus the mean of the bytes to its left and above.

    Args:
        rows: uint8 [n,3w].
        above: uint8 [3w], the row above them; zeros above the first.

    Returns:
        uint8 [n,1+3w], with the number of the filter before each row.
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
