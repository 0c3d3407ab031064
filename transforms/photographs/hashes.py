"""Hashes of what a picture looks like: near-duplicates share most bits.

All of it is arithmetic of whole numbers, so that no machine's rounding decides a bit: where matrices are multiplied in
floating point, every product and sum is a whole number below 2^53.

Two hashes make one test. The *perceptual hash* (64 bits) is of the whole picture; cheap to compare, it finds candidates
but takes some pictures for others. The *detail hash* (144 bits) is of the picture without its outermost 5%, and is held
against the other picture's under all crops of 0, 5 or 10% on each side. So a picture is known again though either was
cropped by up to 5% a side, and pictures that merely have the same sky over the same land are not taken for one.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

PERCEPTUAL_DISTANCE: Final = 20
"""Of 64 bits: beyond it no two pictures are the same."""

DETAIL_DISTANCE: Final = 30
"""Of 144 bits, under the best crop: up to it two pictures are the same. Chosen in ``benchmarks/duplicates.py``."""

_GRID: Final = 32
_PERCEPTUAL_SIDE: Final = 8
_DETAIL_SIDE: Final = 12
_DETAIL_BYTES: Final = _DETAIL_SIDE**2 // 8
_WINDOW: Final = 16
_CROPS: Final = (0.0, 0.05, 0.1)
_CENTRAL: Final = len(_CROPS) ** 4 // 2
"""The number, among all crops, of the one that takes the middle one of `_CROPS` from each side."""

Words = npt.NDArray[np.uint64]


def _cosines(frequencies: int, length: int) -> npt.NDArray[np.int64]:
    frequency = np.arange(frequencies)[:, None]
    position = np.arange(length)[None, :]
    return np.rint(4096 * np.cos(np.pi * frequency * (2 * position + 1) / (2 * length))).astype(np.int64)


_PERCEPTUAL: Final = _cosines(_PERCEPTUAL_SIDE, _GRID).astype(np.float64)


def _cropped_cosines() -> npt.NDArray[np.float64]:
    """Returns the lowest frequencies of what each crop of the two ends leaves of a line of `_GRID` pixels."""
    lowest = _cosines(_DETAIL_SIDE, _WINDOW)
    transforms = []
    for low in _CROPS:
        for high in _CROPS:
            edges = np.linspace(low * _GRID, (1 - high) * _GRID, _WINDOW + 1)
            pixels = np.arange(_GRID)
            overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
            shares = np.clip(overlap, 0, None) / (edges[1] - edges[0])
            transforms.append(np.rint(lowest @ shares))
    return np.concatenate(transforms)  # [9·12, 32]


_DETAIL: Final = _cropped_cosines()


def grey_grid(image: Image.Image) -> npt.NDArray[np.float64]:
    """Returns a picture in 32×32 grey levels, all that the hashes look at."""
    return np.asarray(image.convert("L").resize((_GRID, _GRID), Image.Resampling.BOX), dtype=np.float64)


def perceptual_hash(grid: npt.NDArray[np.float64]) -> str:
    """Returns 64 bits, as 16 hex digits: the lowest 8×8 frequencies, each compared with their median."""
    low = _PERCEPTUAL @ grid @ _PERCEPTUAL.T  # [8, 8]
    bits = (low > int(np.median(low))).reshape(-1)
    return np.packbits(bits).tobytes().hex()


def crop_hashes(grid: npt.NDArray[np.float64]) -> bytes:
    """Returns a picture's detail hashes for all 81 crops, 18 bytes each: the signs of the lowest 12×12 frequencies."""
    ways = len(_CROPS) ** 2
    low = (_DETAIL @ grid @ _DETAIL.T).reshape(ways, _DETAIL_SIDE, ways, _DETAIL_SIDE)
    signs = (low > 0).transpose(0, 2, 1, 3).reshape(ways * ways, -1)
    return np.packbits(signs, axis=1).tobytes()


def detail_hash(crops: bytes) -> str:
    """Returns 144 bits, as 36 hex digits, of the picture without its outermost 5%, from its `crop_hashes`."""
    return crops[_CENTRAL * _DETAIL_BYTES : (_CENTRAL + 1) * _DETAIL_BYTES].hex()


def perceptual_words(hashes: list[str]) -> Words:
    """Converts perceptual hashes to numbers, [N]."""
    return np.array([int(value, 16) for value in hashes], dtype=np.uint64)


def detail_words(content: bytes) -> Words:
    """Converts detail hashes, concatenated as bytes, to numbers [N, 3]."""
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, _DETAIL_BYTES)
    return np.pad(rows, ((0, 0), (0, 6))).view(np.uint64)


def detail_distances(crops: Words, details: Words) -> npt.NDArray[np.int64]:
    """Returns how many bits each detail hash differs from a picture under its best crop.

    Args:
        crops: of the picture, [81, 3].
        details: of the others, [N, 3].
    """
    return np.bitwise_count(crops[:, None] ^ details[None]).sum(axis=2, dtype=np.int64).min(axis=0)
