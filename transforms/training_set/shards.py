"""The shards of a training set: how samples are assigned to them, and how their files are written."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, cast

from transforms.storage.byte_ranges import Piece, read_pieces
from transforms.storage.files import join, open_atomic
from transforms.training_set.dataset import Dataset, IndexRow, WrittenShard, shard_lengths
from transforms.training_set.records import Photograph
from transforms.training_set.samples import SPLITS, Sample

TRAIN_SHARDS = 16
"""The least number of train shards, so that readers on several machines each have some."""

MOST_SAMPLES_PER_SHARD = 1000


@dataclass(frozen=True, slots=True)
class StagedSample:
    """A sample whose encoded image is in a tar: a staging file, or a shard that is being repacked.

    Attributes:
        sample: its metadata.
        image: the place of its bytes.
        crop_hashes: its detail hashes for all crops.
        origin: the place of the photograph's own bytes, if it came from an archive.
    """

    sample: Sample
    image: Piece
    crop_hashes: bytes = b""
    origin: Piece | None = None

    @property
    def source(self) -> str:
        """The photograph's URL or path."""
        return self.sample.source

    def photograph(self) -> Photograph:
        """Returns the photograph that the sample was made from."""
        sample = self.sample
        return Photograph(
            source=sample.source,
            licence=sample.licence,
            author=sample.author,
            title=sample.title,
            piece=self.origin,
        )


@dataclass(frozen=True, slots=True)
class TrainingShard:
    """The intended contents of one shard, in order."""

    name: str
    samples: tuple[StagedSample, ...]


def choose_samples_per_shard(train_samples: int) -> int:
    """Returns the shard size that gives the train split at least 16 shards, and at most 1000 samples each."""
    return max(1, min(MOST_SAMPLES_PER_SHARD, train_samples // TRAIN_SHARDS))


def assign_shards(
    staged: Iterable[StagedSample], samples_per_shard: int | None, existing: Dataset | None = None
) -> list[TrainingShard]:
    """Assigns samples to shards in the order of their keys: exactly N per shard, except for the last of a split.

    Args:
        staged: the samples, in any order.
        samples_per_shard: N; None to take it over from the existing set or, if there is none, to choose it.
        existing: the ``dataset.json`` of the set that is added to: numbering continues after its last shard.
    """
    by_split: dict[str, list[StagedSample]] = {split: [] for split in SPLITS}
    for item in sorted(staged, key=lambda item: item.sample.key):
        by_split[item.sample.split].append(item)
    first = {split: shard_lengths(existing["shards"], split) if existing else [] for split in SPLITS}
    known = max((count for counts in first.values() for count in counts), default=None)
    count = samples_per_shard or known or choose_samples_per_shard(len(by_split["train"]))
    return [
        TrainingShard(f"{split}-{len(first[split]) + start // count:06d}.tar", tuple(items[start : start + count]))
        for split, items in by_split.items()
        for start in range(0, len(items), count)
    ]


def write_shard(out: str, shard: TrainingShard) -> WrittenShard:
    """Writes a shard from its staged images; writing it again gives the same bytes.

    The tar is what webdataset's ``TarWriter(mtime=0)`` writes. It is written with the standard library, because
    webdataset imports torch, which no worker of this job needs.
    """
    rows: list[IndexRow] = []
    with open_atomic(join(out, shard.name)) as file:
        hashing = _HashingFile(file)
        with tarfile.open(fileobj=cast(IO[bytes], hashing), mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            images = read_pieces(item.image for item in shard.samples)
            for item, image in zip(shard.samples, images, strict=True):
                metadata = json.dumps(item.sample.to_json(), ensure_ascii=False, sort_keys=True).encode()
                offset = add_member(tar, f"{item.sample.key}.{_suffix(image)}", image)
                add_member(tar, f"{item.sample.key}.json", metadata)
                rows.append({"shard": shard.name, "offset": offset, "size": len(image), **item.sample.to_json()})
    return WrittenShard(shard.name, hashing.digest.hexdigest(), hashing.size_bytes, tuple(rows))


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
