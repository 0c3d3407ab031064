"""Skips shards that another run of the job, or an earlier attempt at the same bundle, has made in the meantime."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.typehints.decorators import no_annotations
from apache_beam.utils.windowed_value import WindowedValue

from transforms.panoramas.folder import is_complete, is_stored, read_record
from transforms.panoramas.plan import PatchShard
from transforms.storage.retry import retried
from transforms.storage.tally import TILES, count_in_beam

LOOKED_UP_AHEAD = 2


def is_wanted(out: str, keep_patches: bool, shard: PatchShard) -> bool:
    """Returns whether a shard is still to be made, as far as storage can tell."""
    try:
        if retried(is_stored, out, shard):
            return False
        # Without its patches, only the panorama itself can tell that they have been made.
        return keep_patches or not is_complete(out, shard.plan, retried(read_record, out, shard.plan.request.id))
    except Exception:  # making it again does no harm, and writing it will show the error
        return True


@dataclass(eq=False)
class SkipStored(beam.PTransform[beam.PCollection[PatchShard], beam.PCollection[PatchShard]]):
    """Passes on the shards that do not exist when their turn comes."""

    out: str
    keep_patches: bool

    @no_annotations
    def expand(self, shards: beam.PCollection[PatchShard]) -> beam.PCollection[PatchShard]:
        """Applies the transform; called by Beam."""
        return shards | "Look" >> beam.ParDo(_LookUp(self.out, self.keep_patches))


class _LookUp(beam.DoFn):
    """Looks the next shards up while one is computed."""

    def __init__(self, out: str, keep_patches: bool):
        self.out, self.keep_patches = out, keep_patches

    def setup(self) -> None:
        self.pool = ThreadPoolExecutor(LOOKED_UP_AHEAD)

    def start_bundle(self) -> None:
        self.pending: deque[tuple[WindowedValue, Future[bool]]] = deque()

    def process(
        self, shard: PatchShard, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        wanted = self.pool.submit(is_wanted, self.out, self.keep_patches, shard)
        self.pending.append((WindowedValue(shard, timestamp, (window,)), wanted))
        if len(self.pending) > LOOKED_UP_AHEAD:
            yield from self.oldest()

    def finish_bundle(self) -> Iterator[Any]:
        while self.pending:
            yield from self.oldest()

    def teardown(self) -> None:
        self.pool.shutdown()

    def oldest(self) -> Iterator[WindowedValue]:
        """Yields the shard that has waited longest, in its window, if it is wanted."""
        shard, wanted = self.pending.popleft()
        if wanted.result():
            yield shard
        else:
            count_in_beam(TILES, len(shard.value.indices))
