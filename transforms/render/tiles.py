"""Decides which shards of tiles are still to be made."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.typehints.decorators import no_annotations

from transforms.panoramas.folder import existing_shards, is_complete
from transforms.panoramas.plan import PatchShard, Plan
from transforms.storage.retry import retried


@dataclass(frozen=True)
class Found:
    """The content of a run's folder when it begins, so that storage is not queried for requests that are new to it.

    Attributes:
        known: the ids for which any files exist.
        damaged: the shards that a repair removed, by plan.
    """

    known: frozenset[str]
    damaged: Mapping[Plan, Sequence[PatchShard]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """The amount of work on a panorama.

    Attributes:
        shards: the number of shards to make.
        tiles: the number of tiles in them.
    """

    shards: int = 0
    tiles: int = 0


def work_to_do(out: str, plan: Plan, tiles_per_shard: int, found: Found) -> Work:
    """Counts what `shards_to_do` would list, by arithmetic, because a panorama may have millions of shards."""
    if is_known_complete(out, plan, found):
        damaged = found.damaged.get(plan, ())
        return Work(len(damaged), sum(len(shard.indices) for shard in damaged))
    gaps = list(gaps_between(plan, existing(out, plan, found)))
    shards = sum(last // tiles_per_shard - first // tiles_per_shard + 1 for first, last in gaps)
    return Work(shards, sum(last - first + 1 for first, last in gaps))


def shards_to_do(out: str, plan: Plan, tiles_per_shard: int, found: Found) -> Iterable[PatchShard]:
    """Returns the shards to make; for a complete panorama only the damaged ones, even if other patches are gone."""
    if is_known_complete(out, plan, found):
        return found.damaged.get(plan, ())
    return missing_shards(plan, existing(out, plan, found), tiles_per_shard)


def is_known_complete(out: str, plan: Plan, found: Found) -> bool:
    """Returns whether a panorama is complete. Storage is not queried for requests that are new to it."""
    return plan.request.id in found.known and retried(is_complete, out, plan)


def existing(out: str, plan: Plan, found: Found) -> Sequence[PatchShard]:
    """Returns the existing shards of a plan."""
    return retried(existing_shards, out, plan) if plan.request.id in found.known else ()


def missing_shards(plan: Plan, existing: Iterable[PatchShard], tiles_per_shard: int) -> Iterator[PatchShard]:
    """Yields shards of at most `tiles_per_shard` tiles for all tiles that no existing shard holds."""
    for first, last in gaps_between(plan, existing):
        yield from cut(plan, first, last, tiles_per_shard)


def gaps_between(plan: Plan, existing: Iterable[PatchShard]) -> Iterator[tuple[int, int]]:
    """Yields the first and the last of each run of consecutive tiles that no existing shard holds."""
    free = 0
    for shard in sorted(existing, key=lambda shard: shard.first):
        if free < shard.first:
            yield free, shard.first - 1
        free = max(free, shard.last + 1)
    if free < plan.tiles:
        yield free, plan.tiles - 1


def cut(plan: Plan, first: int, last: int, tiles_per_shard: int) -> Iterator[PatchShard]:
    """Yields shards for the tiles first to last, cut where a run in an empty folder would cut."""
    while first <= last:
        end = min(last, first - first % tiles_per_shard + tiles_per_shard - 1)
        yield PatchShard(plan, first, end)
        first = end + 1


@dataclass(eq=False)
class PlanTiles(beam.PTransform):
    """Cuts plans into the shards that are still to be made, in random order.

    So two runs of one job rarely compute the same shards at the same time, and share most of the work.
    """

    out: str
    tiles_per_shard: int
    found: Found

    @no_annotations
    def expand(self, plans: beam.PCollection) -> beam.PCollection:
        """Applies the transform; called by Beam."""
        return plans | "Cut" >> beam.FlatMap(self._missing) | "Share out" >> beam.Reshuffle()

    def _missing(self, plan: Plan) -> Iterable[PatchShard]:
        shards = list(shards_to_do(self.out, plan, self.tiles_per_shard, self.found))
        random.shuffle(shards)
        return shards
