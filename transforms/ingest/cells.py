"""Which samples are compared with which, where there are too many photographs to compare all pairs of blocks.

Some samples, chosen by their checksums, are *pivots*, each the centre of a *cell*. Of n cells, a sample may lose in the
one whose pivot it resembles most, and may win in the √n whose pivots it resembles most. Each cell compares what may win
with what may lose there, so no pair is compared twice. ``benchmarks/duplicates.py`` measures how many likenesses are
missed.

Pivots are dense where pictures are, so cells have similar sizes, unless very many pictures look the same. Each of those
is compared with the ones decided first, until it resembles `LIKENESSES_KEPT` of them. So even such a cell takes time
and memory in proportion to its samples.
"""

from collections.abc import Iterable, Iterator
from math import isqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from transforms.ingest.batches import RECORD, read_hashes
from transforms.ingest.duplicates import LIKENESS, Array, Block, alike
from transforms.ingest.ranges import count_ranges, unpack
from transforms.photographs.hashes import COARSE_FEATURES, coarse_features, split_hashes

COMPARED_EXACTLY: Final = 1_000_000
"""The largest number of photographs of which all pairs of blocks are compared; it takes half an hour of one core."""

LIKENESSES_KEPT: Final = 128
"""The number of samples that a sample resembles in a cell, from which on no more are looked for."""

WINNER: Final = np.dtype([("place", "<u8"), ("key", "<u8"), ("perceptual", "<u8"), ("details", "<u8", (3,))])
"""A sample that may win in a cell: the number of its block and its place there, its key, and its hashes."""

LOSER: Final = np.dtype([("place", "<u8"), ("record", RECORD)])
"""A sample that may lose in a cell: the number of its block and its place there, and its record."""

FOUND: Final = np.dtype([("block", "<u4"), *LIKENESS.descr])
"""A likeness, and the block of the winner."""

UNCROPPED_BITS: Final = 56
"""The largest distance, of 144 bits, at which crops are tried in a cell, where many pairs are roughly alike."""

_LOSERS_COMPARED: Final = 256
_WINNERS_COMPARED: Final = 1024
_RANKED_AT_ONCE: Final = 64


def draw_pivots(block: Block, rows: int) -> bytes:
    """Returns the coarse features of a block's pivots: of `rows` samples, about as many as there are ranges."""
    chosen = block.records["sha256"][:, 2] < count_ranges(rows) / rows * 2.0**64
    return coarse_features(block.crops[chosen]).astype(np.int8).tobytes()


def assign(number: int, block: Block, drawn: Iterable[bytes]) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """Yields for each cell the samples of a block that may win in it, and those that may lose in it, packed."""
    near = nearest_cells(coarse_features(block.crops), _pivots(drawn))
    places = (number << 32) + np.arange(len(near), dtype=np.uint64)
    winners, losers = np.zeros(len(near), dtype=WINNER), np.zeros(len(near), dtype=LOSER)
    winners["place"], winners["key"] = places, block.records["sha256"][:, 0]
    winners["perceptual"], winners["details"] = block.perceptual, block.details
    losers["place"], losers["record"] = places, block.records
    order = np.argsort(near, axis=None, kind="stable")
    cells = near.reshape(-1)[order]
    for cell in np.unique(cells).tolist():
        some = order[np.searchsorted(cells, cell) : np.searchsorted(cells, cell, side="right")] // near.shape[1]
        yield cell, (winners[some].tobytes(), losers[near[:, 0] == cell].tobytes())


def nearest_cells(features: npt.NDArray[np.float64], pivots: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns the cells in which each sample may win, nearest first; of two as near, the one with the lower number.

    Args:
        features: the coarse features of the samples, [N, 25].
        pivots: those of the pivots, [C, 25].
    """
    count, numbers = winning_cells(len(pivots)), np.arange(len(pivots))
    near = np.zeros((len(features), count), dtype=np.int64)
    squares = (pivots**2).sum(axis=1)
    for start in range(0, len(features), _RANKED_AT_ONCE):
        rows = slice(start, start + _RANKED_AT_ONCE)
        distances = (squares - 2 * features[rows] @ pivots.T).astype(np.int64)
        ranked = np.partition(distances * len(pivots) + numbers, count - 1, axis=1)[:, :count]
        near[rows] = np.sort(ranked, axis=1) % len(pivots)
    return near


def winning_cells(cells: int) -> int:
    """Returns the number of cells in which each sample may win."""
    return 1 + isqrt(cells - 1)


def compare_cell(out: str, parts: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yields the likenesses found in a cell, packed, by the block of the loser.

    Args:
        out: the folder of the set.
        parts: what `assign` yielded for the cell.
    """
    winning, losing = zip(*parts, strict=True)
    winners, losers = unpack(winning, WINNER), unpack(losing, LOSER)
    winners, losers = (some[np.argsort(some["place"])] for some in (winners, losers))
    for start in range(0, len(losers), _LOSERS_COMPARED):
        some = losers[start : start + _LOSERS_COMPARED]
        perceptual, _, crops = split_hashes(read_hashes(out, some["record"]))
        before = winners[: np.searchsorted(winners["place"], some["place"][-1])]
        first, second, distances = first_likenesses(before, some["place"], perceptual, crops)
        found = np.zeros(len(first), dtype=FOUND)
        found["block"], found["winner"] = before["place"][first] >> 32, before["place"][first] & 0xFFFFFFFF
        found["key"], found["distance"] = before["key"][first], distances
        found["loser"] = some["place"][second] & 0xFFFFFFFF
        blocks = some["place"][second] >> 32
        for block in np.unique(blocks).tolist():
            yield block, found[blocks == block].tobytes()


def first_likenesses(winners: Array, places: Array, perceptual: Array, crops: Array) -> Array:
    """Returns the first likenesses of each of some samples to those before it, at most `LIKENESSES_KEPT` of each.

    Args:
        winners: `WINNER` rows, sorted by place.
        places: the places of the samples, [N].
        perceptual: their perceptual hashes, [N].
        crops: their detail hashes for all crops, [N, 81, 3].

    Returns:
        The indices of winners, the indices of losers, and the distances, [3, M].
    """
    found = [np.zeros((3, 0), dtype=np.int64)]
    rows: Array = np.arange(len(places))
    counts: Array = np.zeros(len(places), dtype=np.int64)
    for start in range(0, len(winners), _WINNERS_COMPARED):
        some = winners[start : start + _WINNERS_COMPARED]
        pairs = map(np.array, alike(some["perceptual"], some["details"], perceptual, crops, UNCROPPED_BITS))
        likenesses = np.concatenate([found[0], *pairs], axis=1)
        likenesses = likenesses[:, some["place"][likenesses[0]] < places[likenesses[1]]]
        losers = likenesses[1]
        ranks = counts[losers] + np.arange(len(losers)) - np.searchsorted(losers, losers)
        first, second, distances = likenesses[:, ranks < LIKENESSES_KEPT]
        found.append(np.stack([first + start, rows[second], distances]))
        counts += np.bincount(losers, minlength=len(counts))
        if (counts >= LIKENESSES_KEPT).any():
            left = counts < LIKENESSES_KEPT
            rows, counts, places, perceptual, crops = (some[left] for some in (rows, counts, places, perceptual, crops))
    return np.concatenate(found, axis=1)


def _pivots(drawn: Iterable[bytes]) -> npt.NDArray[np.float64]:
    """Returns the coarse features of the pivots in a fixed order, each once; if none was drawn, those of one."""
    features = np.frombuffer(b"".join(drawn), dtype=np.int8).reshape(-1, COARSE_FEATURES)
    return np.unique(features, axis=0).astype(np.float64) if len(features) else np.zeros((1, COARSE_FEATURES))
