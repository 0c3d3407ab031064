"""The shards of a training set: how many samples they have, and how their files are written."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from typing import IO, cast

import pyarrow as pa

from transforms.storage.files import join, open_atomic
from transforms.training_set.dataset import INDEX_SCHEMA, IndexRow, WrittenShard
from transforms.training_set.samples import SampleJson

TRAIN_SHARDS = 16
"""The least number of train shards, so that readers on several machines each have some."""

MOST_SAMPLES_PER_SHARD = 1000


def choose_samples_per_shard(train_samples: int) -> int:
    """Returns the shard size that gives the train split at least 16 shards, and at most 1000 samples each."""
    return max(1, min(MOST_SAMPLES_PER_SHARD, train_samples // TRAIN_SHARDS))


def shard_name(split: str, number: int) -> str:
    """Returns the file name of a shard."""
    return f"{split}-{number:06d}.tar"


def write_shard(out: str, name: str, samples: Iterable[tuple[bytes, SampleJson]]) -> tuple[WrittenShard, pa.Table]:
    """Writes a shard; writing it again gives the same bytes.

    The tar is what webdataset's ``TarWriter(mtime=0)`` writes. It is written with the standard library, because
    webdataset imports torch, which no worker of this job needs.

    Args:
        out: the folder of the set.
        name: the shard's file name.
        samples: the encoded image of each sample, and its metadata as `Sample.to_json` returns them.

    Returns:
        The shard, and the rows of ``index.parquet`` for its samples.
    """
    rows: list[IndexRow] = []
    with open_atomic(join(out, name)) as file:
        hashing = _HashingFile(file)
        with tarfile.open(fileobj=cast(IO[bytes], hashing), mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for image, sample in samples:
                metadata = json.dumps(sample, ensure_ascii=False, sort_keys=True).encode()
                offset = add_member(tar, f"{sample['key']}.{_suffix(image)}", image)
                add_member(tar, f"{sample['key']}.json", metadata)
                rows.append({"shard": name, "offset": offset, "size": len(image), **sample})
    written = WrittenShard(name, hashing.digest.hexdigest(), hashing.size_bytes, len(rows))
    return written, pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


class _HashingFile:
    """A file that passes writes on, and keeps their SHA-256 and total size."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.size_bytes += len(content)
        self._file.write(content)
        return len(content)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a member without time or owner; returns the position of its first byte."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o444
    tar.addfile(member, io.BytesIO(content))
    padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return tar.offset - padded  # type: ignore[attr-defined, no-any-return]


def _suffix(image: bytes) -> str:
    """Returns the suffix of a stored image's name, by its first bytes."""
    return {b"\x89P": "png", b"RI": "webp"}.get(image[:2], "jpg")
