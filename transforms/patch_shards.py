"""Patch shards on storage: a tar of the patches of consecutive tiles, whole or not there."""

import hashlib
import io
import json
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import webdataset as wds
from apache_beam import pvalue
from apache_beam.typehints.decorators import no_annotations
from PIL import Image

from transforms.plan import Failure, PatchShard, Plan
from transforms.render_folder import existing_shards, plan_folder
from transforms.storage import join, open_atomic, read_bytes
from transforms.synthesize import Patch

PNG_LEVEL = 1
SHARDS_KEPT = 4
FIELDS = ("png", "json", "edge.png")
"""The files of a patch: its pixels, what it is, and the strips that it shares with its neighbours."""

NOT_WRITTEN = "not written"


class DamagedShardError(RuntimeError):
    """A shard on storage is not what was written there."""


def write_patch_shard(out: str, shard: PatchShard, patches: Sequence[Patch]) -> None:
    """Writes a shard; the same bytes whenever it is done again."""
    write_files(out, shard, (encode_files(shard.plan, patch) for patch in patches))


def write_files(out: str, shard: PatchShard, files: Iterable[Mapping[str, bytes]]) -> None:
    """Writes a shard of the files of its patches, by field."""
    with (
        open_atomic(join(plan_folder(out, shard.plan), shard.name)) as file,
        wds.TarWriter(file, encoder=False, mtime=0, user="infinitygan", group="infinitygan") as tar,
    ):
        for index, fields in zip(shard.indices, files, strict=True):
            tar.write({"__key__": shard.plan.member(index), **fields})


def encode_files(plan: Plan, patch: Patch) -> dict[str, bytes]:
    """The files of a patch, by field."""
    return {
        "png": encode(patch.pixels),
        "json": json.dumps(describe(plan, patch), sort_keys=True).encode(),
        "edge.png": encode(patch.edges),
    }


def describe(plan: Plan, patch: Patch) -> dict[str, Any]:
    """What stands beside a patch: where in the world it lies, and the checksums of its pixels."""
    (top, _), (left, _) = plan.cropped(plan.tile(patch.index))
    height, width, _ = patch.pixels.shape
    return {
        "index": patch.index,
        "world_x_px": left,
        "world_y_px": top,
        "width_px": width,
        "height_px": height,
        "sha256": pixel_checksum(patch.pixels),
        "edges_sha256": pixel_checksum(patch.edges),
    }


def encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [h,w,3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def decode(content: bytes) -> npt.NDArray[np.uint8]:
    """PNG as uint8 [h,w,3]."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def pixel_checksum(pixels: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of a patch's RGB bytes, row by row."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


class PatchReader:
    """Reads the patches of a plan, in any order; the last few shards stay in memory."""

    def __init__(self, out: str, plan: Plan):
        self.folder, self.plan = plan_folder(out, plan), plan
        self.shards: list[PatchShard] = []
        for shard in existing_shards(out, plan):
            if not self.shards or shard.last > self.shards[-1].last:  # else it adds no tile
                self.shards.append(shard)
        self.members = lru_cache(maxsize=SHARDS_KEPT)(self._members)

    def missing(self) -> int:
        """How many tiles no shard holds."""
        free, missing = 0, 0
        for shard in self.shards:
            missing += max(shard.first - free, 0)
            free = max(free, shard.last + 1)
        return missing + self.plan.tiles - free

    def holds(self, index: int) -> bool:
        """Whether a shard holds a tile."""
        place = self.place(index)
        return place >= 0 and index <= self.shards[place].last

    def files(self, index: int) -> dict[str, bytes]:
        """The files of a tile, by field, checked against their checksums."""
        self.pixels(index)
        self.edges(index)
        return {field: self.member(index, field) for field in FIELDS}

    def pixels(self, index: int) -> npt.NDArray[np.uint8]:
        """The pixels of a tile, checked against their checksum."""
        return self.checked(index, "png", "sha256")

    def edges(self, index: int) -> npt.NDArray[np.uint8]:
        """The strips that a tile shares with its neighbours, checked against their checksum."""
        return self.checked(index, "edge.png", "edges_sha256")

    def checked(self, index: int, field: str, checksum: str) -> npt.NDArray[np.uint8]:
        """A picture of a tile, if it is what was written."""
        content, document = self.member(index, field), self.member(index, "json")
        try:
            pixels = decode(content)
            whole = pixel_checksum(pixels) == json.loads(document)[checksum]
        except Exception:  # what a decoder raises of a damaged file is anybody's guess
            whole = False
        if not whole:
            raise DamagedShardError(f"{self.shard(index)} is damaged at {field} of tile {index}; remove it")
        return pixels

    def member(self, index: int, field: str) -> bytes:
        """A file of a tile."""
        url = self.shard(index)
        name = f"{self.plan.member(index)}.{field}"
        try:
            return self.members(url)[name]
        except (KeyError, tarfile.TarError) as error:
            raise DamagedShardError(f"{url} is damaged ({type(error).__name__}: {error}); remove it") from None

    def shard(self, index: int) -> str:
        """The URL of the shard that holds a tile.

        Raises:
            FileNotFoundError: there is none.
        """
        if not self.holds(index):
            raise FileNotFoundError(f"{self.folder}: tile {index} is not there")
        return join(self.folder, self.shards[self.place(index)].name)

    def place(self, index: int) -> int:
        """Which shard would hold a tile; -1 for one before the first."""
        return bisect_right(self.shards, index, key=lambda shard: shard.first) - 1

    def _members(self, url: str) -> Mapping[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(read_bytes(url)), mode="r:") as tar:
            return {member.name: read_member(tar, member) for member in tar}


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a file in a tar."""
    file = tar.extractfile(member)
    return file.read() if file else b""


@dataclass(eq=False)
class WritePatchShards(beam.PTransform):
    """Writes (shard, patches) pairs; outputs the shards written, and failures."""

    out: str

    @no_annotations
    def expand(self, pairs: beam.PCollection) -> pvalue.DoOutputsTuple:
        """Beam's hook."""
        return pairs | "Write" >> beam.FlatMap(self._write).with_outputs(NOT_WRITTEN, main="written")

    def _write(self, pair: tuple[PatchShard, Sequence[Patch]]) -> Iterator[Any]:
        shard, patches = pair
        try:
            write_patch_shard(self.out, shard, patches)
        except Exception as error:  # stores raise classes of their own; the other shards go on
            failure = Failure(shard.plan.request.id, shard.name, f"cannot be written: {error}")
            yield pvalue.TaggedOutput(NOT_WRITTEN, failure)
        else:
            yield shard
