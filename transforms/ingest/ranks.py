"""Deals samples out to shards by their rank, without gathering them: exactly N a shard, in the order of their keys.

Keys are checksums, so their first bits cut them into *bins* of about equal numbers. The numbers of samples in all
bins give the rank at which each bin begins. A shard gets the samples of all bins that reach into it, and takes those
whose ranks are its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from transforms.ingest.batches import Records, keys_of
from transforms.training_set.dataset import Dataset, shard_lengths, split_of_shard
from transforms.training_set.samples import SPLITS, split_of
from transforms.training_set.shards import choose_samples_per_shard, shard_name

SAMPLES_IN_A_BIN: Final = 16
MOST_BITS: Final = 16

Counts = npt.NDArray[np.int64]
"""The number of samples in each bin of each split, [3, bins]."""


@dataclass(frozen=True, slots=True)
class Shards:
    """Where the numbering of shards begins, and their size.

    Attributes:
        first: for each split, the number of its first new shard.
        samples: the number of samples in each; None to choose one.
        bits: the number of a key's first bits that determine its bin.
    """

    first: tuple[int, ...]
    samples: int | None
    bits: int


def plan_shards(samples_per_shard: int | None, existing: Dataset | None, most_samples: int) -> Shards:
    """Plans the shards of a run.

    Args:
        samples_per_shard: the number in each shard; None to take it over from the existing set, or to choose one.
        existing: the ``dataset.json`` of the set that is extended: numbering continues after its last shard.
        most_samples: the number of samples that there are at most.
    """
    lengths = [shard_lengths(existing["shards"], split) if existing else [] for split in SPLITS]
    known = max((count for counts in lengths for count in counts), default=None)
    bins = max(1, most_samples // SAMPLES_IN_A_BIN)
    return Shards(tuple(map(len, lengths)), samples_per_shard or known, min(MOST_BITS, bins.bit_length()))


def no_counts(bits: int) -> Counts:
    """Returns the counts of no samples."""
    return np.zeros((len(SPLITS), 1 << bits), dtype=np.int64)


def count_bins(records: Records, bits: int) -> Counts:
    """Counts samples by split and bin."""
    counts = no_counts(bits)
    np.add.at(counts, (_splits(records), _bins(records, bits)), 1)
    return counts


def _bins(records: Records, bits: int) -> npt.NDArray[np.int64]:
    return (records["sha256"][:, 0].astype(np.uint64) >> np.uint64(64 - bits)).astype(np.int64)  # bits is at least 1


def _splits(records: Records) -> npt.NDArray[np.int64]:
    names = {split: number for number, split in enumerate(SPLITS)}
    return np.array([names[split_of(f"{first:016x}")] for first in records["sha256"][:, 0].tolist()], dtype=np.int64)


def deal(records: Records, counts: Counts, shards: Shards) -> Iterator[tuple[str, Records]]:
    """Yields shards' names, each with the samples of those that may belong to it."""
    size = shards.samples or choose_samples_per_shard(int(counts[0].sum()))
    splits, bins = _splits(records), _bins(records, shards.bits)
    ends = np.cumsum(counts, axis=1)[splits, bins]
    starts = ends - counts[splits, bins]
    firsts, lasts = starts // size, (ends - 1) // size
    for number, split in enumerate(SPLITS):
        mine = splits == number
        for shard in np.unique(np.concatenate([firsts[mine], lasts[mine], *_between(firsts[mine], lasts[mine])])):
            chosen = mine & (firsts <= shard) & (shard <= lasts)
            yield shard_name(split, shards.first[number] + int(shard)), records[chosen]


def _between(firsts: npt.NDArray[np.int64], lasts: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Returns the shards between the first and the last of bins that reach over more than two."""
    wide = {(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True) if last > first + 1}
    return [np.arange(first + 1, last) for first, last in sorted(wide)]


def take(name: str, records: Records, counts: Counts, shards: Shards) -> Records:
    """Returns a shard's own samples, in order, out of those that may belong to it."""
    size = shards.samples or choose_samples_per_shard(int(counts[0].sum()))
    keys = keys_of(records)
    records = records[sorted(range(len(keys)), key=keys.__getitem__)]
    split = SPLITS.index(split_of_shard(name))
    first = _bins(records[:1], shards.bits)[0]
    rank = int(counts[split, :first].sum())
    begin = (int(name.partition("-")[2].partition(".")[0]) - shards.first[split]) * size
    return records[max(0, begin - rank) : begin - rank + size]
