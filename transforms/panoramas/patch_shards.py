"""Patch shards on storage: a tar of the patches of consecutive tiles, either complete or absent."""

import io
import json
import tarfile
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import webdataset as wds
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.typehints.decorators import no_annotations

from transforms.panoramas.folder import existing_shards, plan_folder
from transforms.panoramas.patches import ABOUT, EDGES, PIXELS, Difference, EncodedPatch, Patch, decode, pixel_checksum
from transforms.panoramas.plan import Failure, PatchShard, Plan
from transforms.storage.files import join, open_atomic, read_bytes
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried
from transforms.storage.tally import TILES, count_in_beam

SHARDS_KEPT = 2
SHARDS_ON_THEIR_WAY = 2
NOT_WRITTEN = "not written"
EncodedShard = tuple[PatchShard, list[EncodedPatch]]
"""A shard and its encoded patches."""

PICTURE_TILES = 8
"""The area, in tiles, that no stored picture of a tile exceeds; a larger one is not decoded."""


class DamagedShardError(ValueError):
    """Raised for a stored shard that differs from what was written."""


def write_patch_shard(out: str, shard: PatchShard, samples: Iterable[EncodedPatch]) -> None:
    """Writes a shard of encoded patches; writing it again gives the same bytes."""
    with (
        open_atomic(join(plan_folder(out, shard.plan), shard.name)) as file,
        wds.TarWriter(file, encoder=False, mtime=0, user="infinitygan", group="infinitygan") as tar,
    ):
        for sample in samples:
            tar.write(sample)


class StoredShard:
    """A stored shard, read into memory.

    Raises:
        DamagedShardError: the file is not a tar, or is cut short.
    """

    def __init__(self, plan: Plan, url: str):
        self.plan, self.url = plan, url
        try:
            with tarfile.open(fileobj=io.BytesIO(retried(read_bytes, url)), mode="r:") as tar:
                self.files: Mapping[str, bytes] = {member.name: read_member(tar, member) for member in tar}
        except tarfile.TarError as error:
            raise self.damaged(error) from None

    def patch(self, index: int) -> Patch:
        """Reads the patch of a tile and compares it with its checksums."""
        about = self.about(index)
        pixels = self.picture(index, PIXELS, about.get("sha256"))
        (top, bottom), (left, right) = self.plan.cropped(index)
        if pixels.shape[:2] != (bottom - top + 1, right - left + 1):
            raise DamagedShardError(f"{self.url} is damaged at {PIXELS} of tile {index}; remove it")
        edges = self.picture(index, EDGES, about.get("edges_sha256"))
        return Patch(index, left, top, pixels, edges, self.difference(index, about.get("difference")))

    def difference(self, index: int, values: Any) -> Difference | None:
        """Reads a patch's difference from full precision."""
        if values is None:
            return None
        numbers: list[Any] = [values.get(name) if isinstance(values, dict) else None for name in ("max", "mean")]
        if not all(isinstance(number, int | float) and 0 <= number <= 255 for number in numbers):
            raise DamagedShardError(f"{self.url} is damaged at {ABOUT} of tile {index}; remove it")
        return Difference(*numbers)

    def about(self, index: int) -> dict[str, Any]:
        """Reads a patch's metadata."""
        try:
            document = json.loads(self.file(index, ABOUT))
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise DamagedShardError(f"{self.url} is damaged at {ABOUT} of tile {index}; remove it")
        return document

    def picture(self, index: int, file: str, checksum: Any) -> npt.NDArray[np.uint8]:
        """Reads a picture of a tile and compares it with its checksum."""
        content = self.file(index, file)
        try:
            pixels = decode(content, PICTURE_TILES * self.plan.tile_area)
            whole = pixel_checksum(pixels) == checksum
        except Exception:  # decoders raise errors of any type on damaged files
            whole = False
        if not whole:
            raise DamagedShardError(f"{self.url} is damaged at {file} of tile {index}; remove it")
        return pixels

    def file(self, index: int, file: str) -> bytes:
        """Returns the content of one of a tile's files."""
        try:
            return self.files[f"{self.plan.member(index)}.{file}"]
        except KeyError as error:
            raise self.damaged(error) from None

    def damaged(self, error: Exception) -> DamagedShardError:
        """Returns the error for a shard that cannot be read."""
        return DamagedShardError(f"{self.url} is damaged ({type(error).__name__}: {error}); remove it")


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Reads a file in a tar; returns nothing for a sparse one, which may claim any size."""
    file = None if member.issparse() else tar.extractfile(member)
    return file.read() if file else b""


class PatchReader:
    """Reads the patches of a plan."""

    def __init__(self, out: str, plan: Plan):
        self.out, self.folder, self.plan = out, plan_folder(out, plan), plan
        self.shards: list[PatchShard] = []
        for shard in retried(existing_shards, out, plan):
            if not self.shards or shard.last > self.shards[-1].last:  # otherwise it adds no tile
                self.shards.append(shard)
        self.stored = lru_cache(maxsize=SHARDS_KEPT)(self._stored)

    def missing(self) -> int:
        """Returns the number of tiles that no shard holds."""
        return self.plan.tiles - sum(len(indices) for _, indices in self.parts())

    def parts(self) -> Iterator[tuple[PatchShard, range]]:
        """Yields each shard, and the tiles to take from it: shards of several sizes may overlap."""
        free = 0
        for shard in self.shards:
            yield shard, range(max(free, shard.first), shard.last + 1)
            free = shard.last + 1

    def patch(self, index: int) -> Patch:
        """Reads the patch of a tile; the last few shards read stay in memory.

        Raises:
            FileNotFoundError: the patch does not exist.
            DamagedShardError: it differs from what was written.
        """
        place = bisect_right(self.shards, index, key=lambda shard: shard.first) - 1
        if place < 0 or self.shards[place].last < index:
            raise FileNotFoundError(f"{self.folder}: tile {index} is missing")
        return self.stored(self.shards[place]).patch(index)

    def patches(self) -> Iterator[Patch]:
        """Yields all existing patches, by index. Each shard is read once, while the previous one is decoded.

        Raises:
            DamagedShardError: a patch differs from what was written.
        """
        read = map_ahead(lambda part: (self._stored(part[0]), part[1]), self.parts(), threads=1, ahead=1)
        return map_ahead(
            lambda place: place[0].patch(place[1]), ((shard, i) for shard, indices in read for i in indices)
        )

    def _stored(self, shard: PatchShard) -> StoredShard:
        return StoredShard(self.plan, join(self.folder, shard.name))


@dataclass(eq=False)
class WritePatchShards(beam.PTransform[beam.PCollection[EncodedShard], pvalue.DoOutputsTuple]):
    """Writes shards and their encoded patches, (shard, samples); outputs the shards written, and failures."""

    out: str

    @no_annotations
    def expand(self, pairs: beam.PCollection[EncodedShard]) -> pvalue.DoOutputsTuple:
        """Applies the transform; called by Beam."""
        return pairs | "Write" >> beam.ParDo(_Write(self.out)).with_outputs(NOT_WRITTEN, main="written")


class _Write(beam.DoFn):
    """Writes a few shards at a time while the next ones are computed; a bundle ends when all its shards are written.

    A bundle that is tried again writes the same files.
    """

    def __init__(self, out: str):
        self.out = out

    def setup(self) -> None:
        self.pool = ThreadPoolExecutor(SHARDS_ON_THEIR_WAY)

    def start_bundle(self) -> None:
        self.pending: deque[Future[Any]] = deque()

    def process(self, pair: EncodedShard) -> Iterator[Any]:
        self.pending.append(self.pool.submit(self.write, *pair))
        if len(self.pending) > SHARDS_ON_THEIR_WAY:
            yield self.counted(self.pending.popleft().result())

    def finish_bundle(self) -> Iterator[Any]:
        for future in self.pending:
            result = self.counted(future.result())
            if isinstance(result, pvalue.TaggedOutput):
                yield pvalue.TaggedOutput(result.tag, GlobalWindows.windowed_value(result.value))
            else:
                yield GlobalWindows.windowed_value(result)

    def teardown(self) -> None:
        self.pool.shutdown()

    def counted(self, result: Any) -> Any:
        """Returns a result, and counts it in Beam's metrics, which the writing threads cannot do."""
        if isinstance(result, PatchShard):
            Metrics.counter("infinitygan_render", "tiles_written").inc(len(result.indices))
            count_in_beam(TILES, len(result.indices))
        else:
            Metrics.counter("infinitygan_render", "shards_not_written").inc()
        return result

    def write(self, shard: PatchShard, samples: Sequence[EncodedPatch]) -> Any:
        """Writes a shard; returns it, or the failure."""
        try:
            retried(write_patch_shard, self.out, shard, samples)
        except Exception as error:  # stores raise errors of their own classes; the other shards go on
            failure = Failure(shard.plan.request.id, shard.name, f"cannot be written: {error}")
            return pvalue.TaggedOutput(NOT_WRITTEN, failure)
        return shard
