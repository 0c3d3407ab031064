"""The work left on a panorama."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.typehints.decorators import no_annotations

from model.geometry import Window
from transforms.panoramas.folder import Held, PanoramaRecord, existing_shards, is_complete, plan_folder
from transforms.panoramas.plan import PatchShard, Plan
from transforms.render.options import RenderOptions
from transforms.storage.files import remove
from transforms.storage.retry import retried

STORAGE_CALLS = 16
"""The number of calls to storage at the same time, while a job begins."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work left on a panorama.

    Attributes:
        plan: the plan of the panorama.
        record: the panorama's record if all its files exist, otherwise None.
        gaps: the first and the last of consecutive tiles to compute. Shards are cut from them only where they are
            computed, because a panorama may have millions.
        tiles_per_shard: the most tiles in a shard.
    """

    plan: Plan
    record: PanoramaRecord | None
    gaps: tuple[Window, ...]
    tiles_per_shard: int

    @property
    def is_done(self) -> bool:
        """Whether no work is left."""
        return self.record is not None and not self.gaps

    @property
    def tiles(self) -> int:
        """The number of tiles to compute."""
        return sum(last - first + 1 for first, last in self.gaps)

    @property
    def shard_count(self) -> int:
        """The number of shards that they make."""
        return sum(last // self.tiles_per_shard - first // self.tiles_per_shard + 1 for first, last in self.gaps)

    def shards(self) -> Iterator[PatchShard]:
        """Yields the shards to make."""
        for first, last in self.gaps:
            yield from cut(self.plan, first, last, self.tiles_per_shard)


def work_on(options: RenderOptions, plan: Plan, held: Held | None, damaged: Iterable[PatchShard] = ()) -> Work:
    """Returns the work left on a plan.

    Args:
        options: the options of the job.
        plan: the plan.
        held: the contents of the folder under its id; None for an id that is new to it, for which storage is not
            queried.
        damaged: the shards that a repair has removed. Of a complete panorama only these are made again, even if other
            patches are gone.
    """
    tiles_per_shard = options.shard_tiles(plan)
    if held is not None and retried(is_complete, options.out, plan, held.record):
        return Work(plan, held.record, tuple((shard.first, shard.last) for shard in damaged), tiles_per_shard)
    existing = () if held is None else retried(existing_shards, options.out, plan)
    return Work(plan, None, tuple(gaps_between(plan, existing)), tiles_per_shard)


def remove_unused(options: RenderOptions, work: Work) -> None:
    """Removes the patches of a finished panorama, unless they are kept: a job that was killed may have left them."""
    if work.is_done and not options.keep_patches:
        retried(remove, plan_folder(options.out, work.plan))


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
class CutShards(beam.PTransform[beam.PCollection[Work], beam.PCollection[PatchShard]]):
    """Cuts the tiles that are still to be computed into shards, those of a panorama in random order."""

    @no_annotations
    def expand(self, work: beam.PCollection[Work]) -> beam.PCollection[PatchShard]:
        """Applies the transform; called by Beam."""
        return work | "Cut" >> beam.FlatMap(shuffled_shards) | "Share out" >> beam.Reshuffle()


def shuffled_shards(work: Work) -> list[PatchShard]:
    """Returns the shards of some work in random order."""
    shards = list(work.shards())
    random.shuffle(shards)
    return shards
