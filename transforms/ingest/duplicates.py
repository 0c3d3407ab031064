"""Decides which of several photographs of the same thing is kept.

Pictures already in the set are always kept. Of the rest, the largest original wins, then the smallest key. A picture
only loses to a picture that is kept, so of a chain in which each resembles the next, some are kept.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from transforms.photographs.hashes import (
    DETAIL_DISTANCE,
    PERCEPTUAL_DISTANCE,
    detail_distances,
    detail_words,
    perceptual_words,
)
from transforms.training_set.dataset import IndexRow
from transforms.training_set.records import Reject, internal_reject
from transforms.training_set.samples import Sample, as_copy
from transforms.training_set.shards import StagedSample

DEDUP_WAYS = ("near", "exact", "off")


def drop_duplicates(
    staged: Iterable[StagedSample], existing: Iterable[IndexRow], dedup: str
) -> Iterator[StagedSample | Reject]:
    """Decides on each staged sample: itself if it is kept, or the row that names the winner.

    Args:
        staged: the run's samples, in any order.
        existing: the index rows of the samples that are in the set.
        dedup: near, exact, or off, which keeps copies under the keys ``key-1``, ``key-2``, ...
    """
    existing = list(existing)
    order = sorted(staged, key=lambda item: (-_pixels(item.sample), item.sample.key, item.sample.source))
    if dedup == "off":
        yield from _number_copies(order, existing)
        return
    winners = {row["sha256"]: row["key"] for row in existing}
    known = _KnownPictures(existing, len(order)) if dedup == "near" else None

    def decide(item: StagedSample) -> StagedSample | Reject:
        sample = item.sample
        winner = winners.get(sample.sha256)
        if winner is not None:
            return _loser(item, "duplicate", f"the same bytes as {winner}")
        like = known.find(item) if known else None
        if like is not None:
            return _loser(item, "near_duplicate", f"looks like {like.key}: {like.distance} of 144 bits differ")
        if known:
            known.add(item)
        winners[sample.sha256] = sample.key
        return item

    for item in order:
        try:
            yield decide(item)
        except Exception as error:  # a fault of this program, which affects this picture alone
            yield internal_reject(item.photograph(), "deduplicate", error)


def _pixels(sample: Sample) -> int:
    return sample.original_width_px * sample.original_height_px


def _loser(item: StagedSample, reason: str, message: str) -> Reject:
    return item.photograph().reject("deduplicate", reason, message)


def _number_copies(order: list[StagedSample], existing: list[IndexRow]) -> Iterator[StagedSample]:
    """Gives the second and further copies of a photograph separate keys, in the order of their sources."""
    copies: dict[str, int] = {}
    for row in existing:
        copies[row["sha256"]] = copies.get(row["sha256"], 0) + 1
    for item in sorted(order, key=lambda item: item.sample.source):
        number = copies.get(item.sample.sha256, 0)
        copies[item.sample.sha256] = number + 1
        yield replace(item, sample=as_copy(item.sample, number)) if number else item


@dataclass(frozen=True, slots=True)
class _Like:
    key: str
    distance: int


class _KnownPictures:
    """The hashes of the pictures that are kept, in arrays with room for all that may come."""

    def __init__(self, existing: list[IndexRow], room: int) -> None:
        rows = [row for row in existing if row["detail_hash"]]  # older sets have no detail hashes
        self._keys = [row["key"] for row in rows]
        self._perceptual = np.zeros(len(rows) + room, dtype=np.uint64)
        self._details = np.zeros((len(rows) + room, 3), dtype=np.uint64)
        if rows:
            self._perceptual[: len(rows)] = perceptual_words([row["perceptual_hash"] for row in rows])
            self._details[: len(rows)] = detail_words(bytes.fromhex("".join(row["detail_hash"] or "" for row in rows)))

    def find(self, item: StagedSample) -> _Like | None:
        """Returns the picture that looks most like this one, if any looks the same."""
        perceptual = perceptual_words([item.sample.perceptual_hash])
        count = len(self._keys)
        near = np.flatnonzero(np.bitwise_count(self._perceptual[:count] ^ perceptual) <= PERCEPTUAL_DISTANCE)
        if not len(near):
            return None
        distances = detail_distances(detail_words(item.crop_hashes), self._details[near])
        best = int(distances.argmin())
        if distances[best] > DETAIL_DISTANCE:
            return None
        return _Like(self._keys[near[best]], int(distances[best]))

    def add(self, item: StagedSample) -> None:
        """Adds a picture that is kept."""
        place = len(self._keys)
        self._keys.append(item.sample.key)
        self._perceptual[place] = perceptual_words([item.sample.perceptual_hash])[0]
        self._details[place] = detail_words(bytes.fromhex(item.sample.detail_hash or ""))[0]
