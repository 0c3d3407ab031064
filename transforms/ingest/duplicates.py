"""Decides which of several photographs of the same thing is kept.

Pictures already in the set are always kept. Of the rest, the largest original wins, then the smallest key. A picture
only loses to a picture that is kept, so of a chain in which each resembles the next, some are kept.

The samples are cut into *blocks*, each a range of the order in which they are decided. All pairs of blocks are
compared, each by any worker; a comparison yields the *likenesses* between two blocks. Then the rule is applied to one
block after the other, for which one worker holds a byte for each photograph and the likenesses of one pair of blocks.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from transforms.ingest.batches import Records, keys_of, read_hashes, read_rows
from transforms.photographs.hashes import (
    CENTRAL,
    DETAIL_DISTANCE,
    PERCEPTUAL_DISTANCE,
    Words,
    detail_distances,
    split_hashes,
)
from transforms.training_set.records import Reject

DEDUP_WAYS = ("near", "exact", "off")

LIKENESS: Final = np.dtype([("winner", "<u4"), ("loser", "<u4"), ("distance", "u1"), ("key", "<u8"), ("copy", "<u4")])
"""Two samples that look alike, by their places in their blocks: the one decided first, with its key, and the other."""

LOSS: Final = np.dtype([("loser", "<u4"), ("distance", "u1"), ("key", "<u8"), ("copy", "<u4")])
"""A sample that is dropped, and the kept sample that it looks most like."""

KNOWN: Final = np.dtype([("pixels", "<u8"), ("sha256", "<u8", (4,)), ("copy", "<u4"), ("place", "<u8")])
"""A sample that is in the set already, and its place in the index."""

_ROWS_COMPARED: Final = 16
_PAIRS_COMPARED: Final = 256
"""Few enough that what is computed for them, less than a mebibyte, stays in a processor's cache."""

Array = npt.NDArray[Any]


def order_of(records: Records) -> Array:
    """Returns for each sample 16 bytes that sort in the order in which samples are decided."""
    order = np.empty((len(records), 2), dtype=">u8")
    order[:, 0] = ~records["pixels"]
    order[:, 1] = records["sha256"][:, 0]
    return order.view("S16").reshape(-1)


@dataclass(frozen=True, slots=True)
class Exact:
    """The samples of a block, by whether others have the same bytes.

    Attributes:
        first: the first sample with its bytes, in the order in which samples are decided.
        copies: further samples.
        copied: for each copy, the index of the first sample with its bytes.
        known: the samples whose bytes are in the set already.
        winners: for each of these, the key in the set.
    """

    first: Records
    copies: Records
    copied: Array
    known: Records
    winners: list[str]


def find_copies(out: str, records: Records, known: Records) -> Exact:
    """Finds the samples of a block with equal bytes; of those, the first by its source comes first."""
    records = sort_copies(out, records)
    known = known[np.argsort(known["place"])]
    keys = {_bytes(row): key for row, key in zip(known, keys_of(known), strict=True)}
    winners = [keys.get(_bytes(record)) for record in records] if keys else [None] * len(records)
    is_known = np.array([winner is not None for winner in winners], dtype=bool)
    fresh = records[~is_known]
    is_copy = np.zeros(len(fresh), dtype=bool)
    is_copy[1:] = (fresh["sha256"][1:] == fresh["sha256"][:-1]).all(axis=1)
    copied = np.cumsum(~is_copy) - 1
    return Exact(
        fresh[~is_copy],
        fresh[is_copy],
        copied[is_copy],
        records[is_known],
        [winner for winner in winners if winner is not None],
    )


def sort_copies(out: str, records: Records) -> Records:
    """Sorts samples in the order in which they are decided, and those with equal bytes by source."""
    sha256 = records["sha256"]
    records = records[np.lexsort((*(sha256[:, word] for word in (3, 2, 1, 0)), ~records["pixels"]))]
    same = (records["sha256"][1:] == records["sha256"][:-1]).all(axis=1)
    several = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    if len(several):
        sources = [row.sample["source"] for row in read_rows(out, records[several])]
        group = np.cumsum(np.concatenate([[True], ~same]))[several]
        order = sorted(range(len(several)), key=lambda index: (group[index], sources[index]))
        records[several] = records[several][order]
    return records


def number_copies(out: str, records: Records, known: Records) -> Records:
    """Gives the second and further copies of a photograph separate keys, in the order of their sources."""
    records = sort_copies(out, records)
    there: dict[bytes, int] = {}
    for row in known:
        there[_bytes(row)] = there.get(_bytes(row), 0) + 1
    for record in records:
        number = there.get(_bytes(record), 0)
        there[_bytes(record)] = number + 1
        record["copy"] = number
    return records


def _bytes(record: Any) -> bytes:
    return bytes(record["sha256"].tobytes())


@dataclass(frozen=True, slots=True)
class Block:
    """What is compared of the samples of a block, or of some samples in the set.

    Attributes:
        records: the samples, in the order in which they are decided.
        perceptual: their perceptual hashes, [N].
        details: their detail hashes, [N, 3].
        crops: their detail hashes for all crops, [N, 81, 3]; empty for samples in the set, which never lose.
        copies: the samples with the same bytes as one of these.
        copied: for each copy, the index of that sample.
    """

    records: Records
    perceptual: Words
    details: Words
    crops: Words
    copies: Records
    copied: Array

    def to_bytes(self) -> bytes:
        """Returns the block as the content of a file; `from_bytes` reads it back."""
        return save_arrays({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Block":
        """Reads a block."""
        return cls(**load_arrays(content))

    @classmethod
    def before(cls, content: bytes) -> "Block":
        """Reads what is compared of a block that is decided before another, or of samples in the set."""
        arrays = load_arrays(content, ("records", "perceptual", "details"))
        return cls(**arrays, crops=NOTHING, copies=arrays["records"][:0], copied=NOTHING)


NOTHING: Final = np.zeros(0, dtype=np.uint64)


def save_arrays(arrays: dict[str, Array]) -> bytes:
    """Returns arrays as the content of a file."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def load_arrays(content: bytes, names: Iterable[str] | None = None) -> dict[str, Array]:
    """Reads arrays, all or those with the given names; nothing is unpickled."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in names or file.files}


def make_block(out: str, exact: Exact) -> Block:
    """Returns a block with the hashes of its samples."""
    perceptual, details, crops = split_hashes(read_hashes(out, exact.first))
    return Block(exact.first, perceptual, details, crops, exact.copies, exact.copied)


def compare(one: Block, two: Block | None = None) -> Array:
    """Returns the likenesses between the samples of two blocks, or within one.

    Args:
        one: the block that is decided first.
        two: the other block; None to compare the first with itself.
    """
    later = one if two is None else two
    found = [np.zeros(0, dtype=LIKENESS)]
    for winners, losers, distances in alike(one.perceptual, one.details, later.perceptual, later.crops):
        earlier = winners < losers if two is None else slice(None)
        likenesses = np.zeros(len(winners[earlier]), dtype=LIKENESS)
        likenesses["winner"], likenesses["loser"] = winners[earlier], losers[earlier]
        likenesses["distance"] = distances[earlier]
        likenesses["key"] = one.records["sha256"][likenesses["winner"], 0]
        likenesses["copy"] = one.records["copy"][likenesses["winner"]]
        found.append(likenesses)
    return np.concatenate(found)


def alike(
    perceptual: Words, details: Words, other_perceptual: Words, crops: Words, uncropped_bits: int | None = None
) -> Iterator[tuple[Array, Array, Array]]:
    """Yields the pairs of pictures that look alike, sorted by the second picture, then by the first.

    Args:
        perceptual: the perceptual hashes of the pictures that may come first in a pair, [N].
        details: their detail hashes, [N, 3].
        other_perceptual: the perceptual hashes of those that may come second, [M].
        crops: their detail hashes for all crops, [M, 81, 3].
        uncropped_bits: the largest distance of detail hashes at which other crops are tried at all; None to try always.

    Yields:
        The indices of some first pictures, of the second ones, and the distances of their detail hashes.
    """
    for start in range(0, len(other_perceptual), _ROWS_COMPARED):
        rows = other_perceptual[start : start + _ROWS_COMPARED]
        candidates = np.flatnonzero(np.bitwise_count(rows[:, None] ^ perceptual[None]) <= PERCEPTUAL_DISTANCE)
        if uncropped_bits is not None:
            second, first = np.divmod(candidates, len(perceptual))
            uncropped = crops[start : start + _ROWS_COMPARED, CENTRAL, None]
            candidates = candidates[detail_distances(uncropped[second], details[first]) <= uncropped_bits]
        for part in range(0, len(candidates), _PAIRS_COMPARED):
            second, first = np.divmod(candidates[part : part + _PAIRS_COMPARED], len(perceptual))
            second += start
            distances = detail_distances(crops[second], details[first])
            near = distances <= DETAIL_DISTANCE
            if near.any():
                yield first[near], second[near], distances[near]


class Decisions:
    """Applies the rule to one block after the other.

    Attributes:
        kept: for each block that is decided, which of its samples are kept.
    """

    def __init__(self) -> None:
        self.kept: list[npt.NDArray[np.bool_]] = []

    def decide(self, count: int, likenesses: Iterable[tuple[int | None, Array]]) -> Array:
        """Decides on the next block; returns its losses.

        Args:
            count: the number of its samples.
            likenesses: the likenesses to samples in the set, with None, in the order of the index; then those to blocks
                decided before, with the places of these; and last those within the block, with its own place.
        """
        best = np.zeros(count, dtype=LOSS)
        best["loser"], best["distance"] = np.arange(count), NOT_LIKE
        place = len(self.kept)
        within = np.zeros(0, dtype=LIKENESS)
        for other, found in likenesses:
            if other == place:
                within = found
            else:
                _improve(best, found if other is None else found[self.kept[other][found["winner"]]])
        self.kept.append(best["distance"] == NOT_LIKE)
        for alike in _by_loser(within):
            alike = alike[self.kept[place][alike["winner"]]]
            if len(alike):
                _improve(best, alike)
                self.kept[place][alike["loser"][0]] = False
        return best[~self.kept[place]]


def _by_loser(likenesses: Array) -> Iterator[Array]:
    """Yields the likenesses of one sample after the other, in the order in which they are decided."""
    likenesses = likenesses[np.argsort(likenesses["loser"], kind="stable")]
    losers, starts = np.unique(likenesses["loser"], return_index=True)
    yield from np.split(likenesses, starts[1:]) if len(losers) else ()


NOT_LIKE: Final = 255


def _improve(best: Array, likenesses: Array) -> None:
    """Takes over the likenesses that are nearer than the best so far; of equal ones, the first."""
    order = np.lexsort((likenesses["winner"], likenesses["distance"], likenesses["loser"]))
    likenesses = likenesses[order]
    losers, firsts = np.unique(likenesses["loser"], return_index=True)
    nearest = likenesses[firsts]
    better = nearest["distance"] < best["distance"][losers]
    for name in ("distance", "key", "copy"):
        best[name][losers[better]] = nearest[name][better]


def same_bytes(out: str, records: Records, winners: Sequence[str]) -> Iterator[Reject]:
    """Yields the rejects of samples with the same bytes as others."""
    for row, winner in zip(read_rows(out, records), winners, strict=True):
        yield row.photograph().reject("deduplicate", "duplicate", f"the same bytes as {winner}")


def lost(out: str, block: Block, losses: Array) -> tuple[Records, Iterator[Reject]]:
    """Returns the samples of a block that are kept, and the rejects of all others."""
    messages: dict[int, str] = {}
    for loss in losses:
        key = f"{loss['key']:016x}" + (f"-{loss['copy']}" if loss["copy"] else "")
        messages[int(loss["loser"])] = f"looks like {key}: {loss['distance']} of 144 bits differ"
    kept = np.ones(len(block.records), dtype=bool)
    kept[losses["loser"]] = False

    def rejects() -> Iterator[Reject]:
        losers = sorted(messages)
        yield from _rejects(out, block.records[losers], lambda index: messages[losers[index]])
        is_near = ~kept[block.copied]
        near = block.copied[is_near].tolist()
        yield from _rejects(out, block.copies[is_near], lambda index: messages[near[index]])
        firsts = keys_of(block.records[block.copied[~is_near]])
        yield from same_bytes(out, block.copies[~is_near], firsts)

    return block.records[kept], rejects()


def _rejects(out: str, records: Records, message: Callable[[int], str]) -> Iterator[Reject]:
    for index, row in enumerate(read_rows(out, records)):
        yield row.photograph().reject("deduplicate", "near_duplicate", message(index))
