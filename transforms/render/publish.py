"""Writes patch shards, and assembles each panorama as soon as its last patches are there."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.typehints.decorators import no_annotations
from apache_beam.utils.windowed_value import WindowedValue

from model.errors import one_line
from transforms.panoramas.folder import behind_plan
from transforms.panoramas.manifest import DONE, ManifestRow, manifest_row
from transforms.panoramas.patch_shards import EncodedShard, PatchReader, write_patch_shard
from transforms.panoramas.patches import EncodedPatch
from transforms.panoramas.plan import Failure, PatchShard, Plan
from transforms.render.assemble import PANORAMAS_DONE, write_files
from transforms.render.follow import RowLog
from transforms.render.job_folder import JobFolder
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.tally import TILES, count_in_beam

SHARDS_ON_THEIR_WAY, PANORAMAS_ON_THEIR_WAY = 2, 4
FAILURES = "failures"

At = tuple[Any, tuple[Any]]
"""The timestamp and the window of an element, for its outputs."""

LISTING_SHARE = 20
"""Listings take at most one part in this of a worker's time."""

MOST_LISTINGS = 1000
"""The most panoramas whose listings are kept. Those that other workers complete would otherwise be kept for ever."""


@dataclass(eq=False)
class PublishShards(beam.PTransform[beam.PCollection[EncodedShard], pvalue.DoOutputsTuple]):
    """Writes shards and their encoded patches, (shard, samples), and assembles the panoramas that they complete.

    A panorama of one shard is assembled from memory. Outputs the manifest's rows of the panoramas assembled, and
    failures. Of panoramas whose shards several workers write, some may be left; `AssembleRest` assembles them.

    Attributes:
        out: the folder of the job.
        keep_patches: whether to leave the patches of finished panoramas on storage; those of one shard are then not
            written at all.
        version: the version of this package.
        job: the folder of the job, whose log gets the rows as the panoramas are made; None for no log.
    """

    out: str
    keep_patches: bool
    version: str
    job: JobFolder | None = None

    @no_annotations
    def expand(self, pairs: beam.PCollection[EncodedShard]) -> pvalue.DoOutputsTuple:
        """Applies the transform; called by Beam."""
        return pairs | "Publish" >> beam.ParDo(_Publish(self)).with_outputs(FAILURES, main="rows")


class _Publish(beam.DoFn):
    """Writes a few shards, and assembles a panorama, while the next shards are computed.

    A bundle ends when all of this is done. A bundle that is tried again writes the same files.
    """

    def __init__(self, options: PublishShards):
        self.options = options

    def setup(self) -> None:
        self.writers, self.assembler = ThreadPoolExecutor(SHARDS_ON_THEIR_WAY), ThreadPoolExecutor(1)
        self.remaining = Remaining(self.options.out)
        self.log = self.options.job and RowLog(self.options.job)

    def start_bundle(self) -> None:
        self.remaining.complete.clear()  # an earlier attempt at the bundle may not have assembled them
        self.shards: deque[tuple[Future[Result], At]] = deque()
        self.panoramas: deque[tuple[Future[Result], At]] = deque()

    def process(
        self, pair: EncodedShard, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        self.shards.append((self.writers.submit(self.publish, *pair), (timestamp, (window,))))
        yield from self.finished(SHARDS_ON_THEIR_WAY, PANORAMAS_ON_THEIR_WAY)

    def finish_bundle(self) -> Iterator[Any]:
        yield from self.finished(0, 0)
        if self.log:
            self.log.pause()

    def teardown(self) -> None:
        self.writers.shutdown()
        self.assembler.shutdown()

    def finished(self, most_shards: int, most_panoramas: int) -> Iterator[Any]:
        """Yields the outputs of what has ended, and waits until no more than this is left."""
        while self.shards and (len(self.shards) > most_shards or self.shards[0][0].done()):
            future, at = self.shards.popleft()
            result = future.result()
            if result.completed is not None:
                self.panoramas.append((self.assembler.submit(self.assemble, result.completed, None), at))
            yield from result.outputs(at)
        while self.panoramas and (len(self.panoramas) > most_panoramas or self.panoramas[0][0].done()):
            future, at = self.panoramas.popleft()
            yield from future.result().outputs(at)

    def publish(self, shard: PatchShard, samples: Sequence[EncodedPatch]) -> "Result":
        """Writes a shard, and assembles its panorama if that is all of it."""
        whole = len(shard.indices) == shard.plan.tiles
        if self.options.keep_patches or not whole:
            try:
                out = behind_plan(self.options.out, shard.plan)
                retried(write_patch_shard, out, shard, samples)
            except Exception as error:  # stores raise errors of their own classes; the other shards go on
                reason = f"cannot be written: {error}"
                return Result(failure=Failure(shard.plan.request.id, shard.name, reason), shards_not_written=1)
        if whole:
            return self.assemble(shard.plan, samples)
        completed = shard.plan if self.remaining.is_last(shard) else None
        return Result(tiles=len(shard.indices), completed=completed)

    def assemble(self, plan: Plan, samples: Sequence[EncodedPatch] | None) -> "Result":
        """Assembles a panorama; on an error, `AssembleRest` tries again, and says what is wrong."""
        tiles, options = 0 if samples is None else plan.tiles, self.options
        try:
            reader_of = partial(PatchReader, samples=samples)
            record = write_files(options.out, plan, reader_of, (), options.version, options.keep_patches)
        except Exception as error:
            failure = Failure(plan.request.id, "panorama", one_line(error))
            say_once(f"{failure.request_id} cannot be assembled: {failure.reason}; it is tried again at the end")
            return Result(tiles=tiles, failure=failure)
        row = manifest_row(plan, DONE, None, record)
        if self.log:
            self.log.add(row)
        return Result(tiles=tiles, row=row)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a shard or a panorama.

    Attributes:
        tiles: the number of tiles written.
        shards_not_written: the number of shards that could not be written.
        row: the row of the panorama that was assembled.
        failure: what could not be made.
        completed: the plan of a panorama that can be assembled now.
    """

    tiles: int = 0
    shards_not_written: int = 0
    row: ManifestRow | None = None
    failure: Failure | None = None
    completed: Plan | None = None

    def outputs(self, at: At) -> Iterator[Any]:
        """Yields what Beam is given, and counts in its metrics, which other threads than the bundle's cannot do."""
        counts = {"tiles_written": self.tiles, "shards_not_written": self.shards_not_written}
        for name, count in {**counts, "panoramas_done": int(self.row is not None)}.items():
            if count:
                Metrics.counter("infinitygan_render", name).inc(count)
        count_in_beam(TILES, self.tiles)
        if self.row is not None:
            PANORAMAS_DONE.add()
            yield WindowedValue(self.row, *at)
        if self.failure is not None:
            yield pvalue.TaggedOutput(FAILURES, WindowedValue(self.failure, *at))


class Remaining:
    """Tells when a worker has written the last shard of a panorama.

    Other workers' shards are seen by listing the panorama's folder: when this worker's own shards may have been the
    last, and otherwise now and then. So the last shard of all may be missed, if several workers write.
    """

    def __init__(self, out: str):
        self.out = out
        self.lists: dict[Plan, Listing] = {}
        self.complete: deque[Plan] = deque(maxlen=2 * SHARDS_ON_THEIR_WAY)
        """Panoramas that have just become complete, of which a shard may still be on its way."""
        self.lock = threading.Lock()  # of two shards written at once, exactly one must be the last

    def is_last(self, shard: PatchShard) -> bool:
        """Returns whether all patches of a panorama exist, after this shard has been written."""
        with self.lock:
            return self._is_last(shard)

    def _is_last(self, shard: PatchShard) -> bool:
        if shard.plan in self.complete:
            return False
        known = self.lists.get(shard.plan)
        if known is not None and not known.is_due(len(shard.indices)):
            return False
        start = time.monotonic()
        missing = PatchReader(self.out, shard.plan).missing()
        now = time.monotonic()
        if missing == 0:
            self.lists.pop(shard.plan, None)
            self.complete.append(shard.plan)
        else:
            self.lists[shard.plan] = Listing(missing, now + LISTING_SHARE * (now - start))
            if len(self.lists) > MOST_LISTINGS:
                del self.lists[next(iter(self.lists))]
        return missing == 0


@dataclass(slots=True)
class Listing:
    """What a listing of a panorama's folder said.

    Attributes:
        missing: the number of tiles that were missing, less those that this worker has written since.
        next_at: the time from which it is worth the effort to list the folder again.
    """

    missing: int
    next_at: float

    def is_due(self, written: int) -> bool:
        """Returns whether to list the folder again, after this worker has written more tiles."""
        self.missing -= written
        return self.missing <= 0 or time.monotonic() >= self.next_at
