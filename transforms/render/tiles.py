"""Which shards of tiles are still to be made."""

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
    """What a run finds in its folder when it begins, so that nothing is asked of storage for requests new to it.

    Attributes:
        known: ids that anything is there of.
        damaged: shards that a repair took away, by plan.
    """

    known: frozenset[str]
    damaged: Mapping[Plan, Sequence[PatchShard]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be made of a panorama.

    Attributes:
        shards: how many.
        tiles: in them.
    """

    shards: int = 0
    tiles: int = 0


def work_to_do(out: str, plan: Plan, tiles_per_shard: int, found: Found) -> Work:
    """Returns how much `shards_to_do` would list. It is reckoned, since a panorama may have millions of shards."""
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
    """Returns whether a panorama is there as a whole. Storage is not asked for requests that are new to it."""
    return plan.request.id in found.known and retried(is_complete, out, plan)


def existing(out: str, plan: Plan, found: Found) -> Sequence[PatchShard]:
    """Returns the shards of a plan that are there."""
    return retried(existing_shards, out, plan) if plan.request.id in found.known else ()


def missing_shards(plan: Plan, existing: Iterable[PatchShard], tiles_per_shard: int) -> Iterator[PatchShard]:
    """Shards of at most so many tiles for all tiles that no existing shard holds."""
    for first, last in gaps_between(plan, existing):
        yield from cut(plan, first, last, tiles_per_shard)


def gaps_between(plan: Plan, existing: Iterable[PatchShard]) -> Iterator[tuple[int, int]]:
    """Yields the first and the last of consecutive tiles that no existing shard holds."""
    free = 0
    for shard in sorted(existing, key=lambda shard: shard.first):
        if free < shard.first:
            yield free, shard.first - 1
        free = max(free, shard.last + 1)
    if free < plan.tiles:
        yield free, plan.tiles - 1


def cut(plan: Plan, first: int, last: int, tiles_per_shard: int) -> Iterator[PatchShard]:
    """Shards for the tiles first to last, cut where a run with nothing there yet would cut."""
    while first <= last:
        end = min(last, first - first % tiles_per_shard + tiles_per_shard - 1)
        yield PatchShard(plan, first, end)
        first = end + 1


@dataclass(eq=False)
class PlanTiles(beam.PTransform):
    """Cuts plans into the shards that are still to be made, in an order of chance.

    So two runs of one job do not compute the same shards at the same time, but most of them once between them.
    """

    out: str
    tiles_per_shard: int
    found: Found

    @no_annotations
    def expand(self, plans: beam.PCollection) -> beam.PCollection:
        """Beam's hook."""
        return plans | "Cut" >> beam.FlatMap(self._missing) | "Share out" >> beam.Reshuffle()

    def _missing(self, plan: Plan) -> Iterable[PatchShard]:
        shards = list(shards_to_do(self.out, plan, self.tiles_per_shard, self.found))
        random.shuffle(shards)
        return shards
