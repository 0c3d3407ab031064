"""Patch shards on storage: a tar of the patches of consecutive tiles, either complete or absent."""

import io
import json
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import webdataset as wds

from transforms.panoramas.folder import existing_shards, plan_folder
from transforms.panoramas.patches import ABOUT, EDGES, PIXELS, Difference, EncodedPatch, Patch, decode, pixel_checksum
from transforms.panoramas.plan import PatchShard, Plan
from transforms.storage.files import join, open_atomic, read_bytes
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried

SHARDS_KEPT = 2
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

    Args:
        plan: the plan of the panorama.
        url: the URL of the shard.
        samples: its encoded patches, if they need not be read.

    Raises:
        DamagedShardError: the file is not a tar, or is cut short.
    """

    def __init__(self, plan: Plan, url: str, samples: Sequence[EncodedPatch] | None = None):
        self.plan, self.url = plan, url
        self.files = self._read() if samples is None else files_of(samples)

    def _read(self) -> Mapping[str, bytes]:
        try:
            with tarfile.open(fileobj=io.BytesIO(retried(read_bytes, self.url)), mode="r:") as tar:
                return {member.name: read_member(tar, member) for member in tar}
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


def files_of(samples: Sequence[EncodedPatch]) -> dict[str, bytes]:
    """Returns the files of a shard, by name, as its tar holds them."""
    names = (PIXELS, EDGES, ABOUT)
    return {f"{sample['__key__']!s}.{name}": cast(bytes, sample[name]) for sample in samples for name in names}


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Reads a file in a tar; returns nothing for a sparse one, which may claim any size."""
    file = None if member.issparse() else tar.extractfile(member)
    return file.read() if file else b""


class PatchReader:
    """Reads the patches of a plan.

    Args:
        out: the folder of the job.
        plan: the plan.
        samples: the encoded patches of all its tiles, if they need not be read.
    """

    def __init__(self, out: str, plan: Plan, samples: Sequence[EncodedPatch] | None = None):
        self.out, self.folder, self.plan = out, plan_folder(out, plan), plan
        self.shards: list[PatchShard] = []
        existing = retried(existing_shards, out, plan) if samples is None else [PatchShard(plan, 0, plan.tiles - 1)]
        for shard in existing:
            if not self.shards or shard.last > self.shards[-1].last:  # otherwise it adds no tile
                self.shards.append(shard)
        # Their owner must not be in the cache, or it would keep all this in memory until garbage is collected.
        self.stored = lru_cache(maxsize=SHARDS_KEPT)(partial(stored_shard, self.folder, samples))

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
        stored = self.stored.__wrapped__
        read = map_ahead(lambda part: (stored(part[0]), part[1]), self.parts(), threads=1, ahead=1)
        return map_ahead(
            lambda place: place[0].patch(place[1]), ((shard, i) for shard, indices in read for i in indices)
        )


def stored_shard(folder: str, samples: Sequence[EncodedPatch] | None, shard: PatchShard) -> StoredShard:
    """Returns a shard in a plan's folder; its patches need not be read if they are given."""
    return StoredShard(shard.plan, join(folder, shard.name), samples)
