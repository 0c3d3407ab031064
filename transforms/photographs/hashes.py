"""Hashes of what a picture looks like: near-duplicates share most bits.

All arithmetic is on whole numbers, so that rounding differences between machines decide no bit: where matrices are
multiplied in floating point, every product and sum is a whole number below 2^53.

The test uses two hashes. The *perceptual hash* (64 bits) covers the whole picture; it is cheap to compare and finds
candidates, but confuses some pictures. The *detail hash* (144 bits) covers the picture without its outermost 5%, and
is compared with the other picture's under every crop of 0, 5 or 10% on each side. So a picture is recognised even if
either was cropped by up to 5% a side, and pictures that merely share a sky over similar land are told apart.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

PERCEPTUAL_DISTANCE: Final = 20
"""The largest distance, of 64 bits, at which two pictures may be the same."""

DETAIL_DISTANCE: Final = 30
"""The largest distance, of 144 bits, under the best crop, of the same picture; see ``benchmarks/duplicates.py``."""

_GRID: Final = 32
_PERCEPTUAL_SIDE: Final = 8
_DETAIL_SIDE: Final = 12
_DETAIL_BYTES: Final = _DETAIL_SIDE**2 // 8
_WINDOW: Final = 16
_CROPS: Final = (0.0, 0.05, 0.1)
_WAYS: Final = len(_CROPS) ** 4
CENTRAL: Final = _WAYS // 2
"""The index, among all crops, of the crop that takes the middle one of `_CROPS` on each side."""

_COARSE_SIDE: Final = 5
COARSE_FEATURES: Final = _COARSE_SIDE**2

HASH_BYTES: Final = _PERCEPTUAL_SIDE**2 // 8 + _WAYS * _DETAIL_BYTES
"""The size of a picture's perceptual hash and its detail hashes for all crops together."""

Words = npt.NDArray[np.uint64]


def _cosines(frequencies: int, length: int) -> npt.NDArray[np.int64]:
    frequency = np.arange(frequencies)[:, None]
    position = np.arange(length)[None, :]
    return np.rint(4096 * np.cos(np.pi * frequency * (2 * position + 1) / (2 * length))).astype(np.int64)


_PERCEPTUAL: Final = _cosines(_PERCEPTUAL_SIDE, _GRID).astype(np.float64)


def _cropped_cosines() -> npt.NDArray[np.float64]:
    """Returns the lowest frequencies of a line of `_GRID` pixels under each crop of its two ends."""
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
    """Returns a picture in 32×32 grey levels, the input of all hashes."""
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
    return crops[CENTRAL * _DETAIL_BYTES : (CENTRAL + 1) * _DETAIL_BYTES].hex()


def perceptual_words(hashes: list[str]) -> Words:
    """Converts perceptual hashes to numbers, [N]."""
    return np.array([int(value, 16) for value in hashes], dtype=np.uint64)


def detail_words(content: bytes) -> Words:
    """Converts detail hashes, concatenated as bytes, to numbers [N, 3]."""
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, _DETAIL_BYTES)
    return np.pad(rows, ((0, 0), (0, 6))).view(np.uint64)


def split_hashes(content: bytes) -> tuple[Words, Words, Words]:
    """Converts pictures' hashes, each `HASH_BYTES` long, to numbers.

    Returns:
        The perceptual hashes, [N]; the detail hashes, [N, 3]; and the detail hashes for all crops, [N, 81, 3].
    """
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, HASH_BYTES)
    perceptual = np.ascontiguousarray(rows[:, : HASH_BYTES - _WAYS * _DETAIL_BYTES]).view(">u8").reshape(-1)
    crops = detail_words(rows[:, HASH_BYTES - _WAYS * _DETAIL_BYTES :].tobytes()).reshape(-1, _WAYS, 3)
    return perceptual.astype(np.uint64), crops[:, CENTRAL], crops


def coarse_features(crops: Words) -> npt.NDArray[np.float64]:
    """Returns how clear the sign of each of the lowest 5×5 frequencies is: in how many more crops it is 1 than 0.

    Args:
        crops: the pictures' detail hashes for all crops, [N, 81, 3].

    Returns:
        Whole numbers from −81 to 81, [N, 25]; pictures that look alike have similar ones.
    """
    bits = np.unpackbits(crops.view(np.uint8)[..., :_DETAIL_BYTES], axis=2)
    low = bits.reshape(-1, _WAYS, _DETAIL_SIDE, _DETAIL_SIDE)[:, :, :_COARSE_SIDE, :_COARSE_SIDE]
    return 2.0 * low.sum(axis=1, dtype=np.int64).reshape(-1, COARSE_FEATURES) - _WAYS


def detail_distances(crops: Words, details: Words) -> npt.NDArray[np.uint8]:
    """Returns the number of bits by which each detail hash differs from a picture under its best crop.

    Args:
        crops: the picture's hashes under all crops, [81, 3], or a picture's for each of the others, [N, 81, 3].
        details: the hashes of the other pictures, [N, 3].
    """
    counts = np.bitwise_count(crops[..., 0] ^ details[:, None, 0])
    for word in range(1, details.shape[1]):
        counts += np.bitwise_count(crops[..., word] ^ details[:, None, word])
    return counts.min(axis=1)
