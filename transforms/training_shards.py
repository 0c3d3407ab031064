"""The training set on storage: shards, index, rejects and the ``dataset.json`` that says it is complete.

``dataset.json`` is written last. A folder with it holds a whole set; a folder without it holds none.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa

from model.checks import is_count
from model.errors import InputError
from transforms.samples import SPLITS, Sample
from transforms.sources import Reject
from transforms.storage import exists, join, open_atomic, read_bytes, read_json, write_json
from transforms.tables import read_rows, write_rows

FORMAT_VERSION = 1
INDEX, REJECTS, DATASET = "index.parquet", "rejects.parquet", "dataset.json"

TRAIN_SHARDS = 16
"""The least number of train shards, so that readers on several machines each have some."""

MOST_SAMPLES_PER_SHARD = 1000

_PATCH_TYPE = pa.struct(
    [("x_px", pa.int32()), ("y_px", pa.int32()), ("size_px", pa.int32()), ("vertical_position", pa.float64())]
)
INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("author", pa.string()),
        ("sha256", pa.string()),
        ("perceptual_hash", pa.string()),
        ("original_width_px", pa.int32()),
        ("original_height_px", pa.int32()),
        ("crop_box_px", pa.list_(pa.int32())),
        ("full_size_px", pa.list_(pa.int32())),
        ("stored_width_px", pa.int32()),
        ("stored_height_px", pa.int32()),
        ("split", pa.string()),
        ("full_rows_px", pa.list_(pa.int32())),
        ("patches", pa.list_(_PATCH_TYPE)),
    ]
)
REJECTS_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True)
class StagedSample:
    """A sample whose encoded image waits in the staging folder."""

    sample: Sample
    image_url: str


@dataclass(frozen=True, slots=True)
class TrainingShard:
    """What one shard is to hold, in order."""

    name: str
    samples: tuple[StagedSample, ...]


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard that is on storage.

    Attributes:
        name: its file name.
        sha256: of the file.
        size_bytes: of the file.
        rows: what ``index.parquet`` says of each of its samples.
    """

    name: str
    sha256: str
    size_bytes: int
    rows: tuple[dict[str, Any], ...]


def choose_samples_per_shard(train_samples: int) -> int:
    """As many samples a shard as leave the train split at least 16 shards, and at most 1000."""
    return max(1, min(MOST_SAMPLES_PER_SHARD, train_samples // TRAIN_SHARDS))


def assign_shards(staged: Iterable[StagedSample], samples_per_shard: int | None) -> list[TrainingShard]:
    """Deals samples out in the order of their keys: exactly N a shard, but for the last of a split."""
    by_split: dict[str, list[StagedSample]] = {split: [] for split in SPLITS}
    for item in sorted(staged, key=lambda item: item.sample.key):
        by_split[item.sample.split].append(item)
    count = samples_per_shard or choose_samples_per_shard(len(by_split["train"]))
    return [
        TrainingShard(f"{split}-{start // count:06d}.tar", tuple(items[start : start + count]))
        for split, items in by_split.items()
        for start in range(0, len(items), count)
    ]


def write_shard(out: str, shard: TrainingShard) -> WrittenShard:
    """Writes a shard from its staged images; the same bytes whenever it is done again.

    The tar is what webdataset's ``TarWriter(mtime=0)`` writes. It is written with the standard library, because
    webdataset imports torch, which no worker of this job needs.
    """
    rows = []
    with open_atomic(join(out, shard.name)) as file:
        hashing = _HashingFile(file)
        with tarfile.open(fileobj=cast(IO[bytes], hashing), mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for item in shard.samples:
                image = read_bytes(item.image_url)
                metadata = json.dumps(item.sample.to_json(), ensure_ascii=False, sort_keys=True).encode()
                offset = _add(tar, f"{item.sample.key}.jpg", image)
                _add(tar, f"{item.sample.key}.json", metadata)
                place = {"shard": shard.name, "offset": offset, "size": len(image)}
                rows.append({**place, **item.sample.to_json()})
    return WrittenShard(shard.name, hashing.digest.hexdigest(), hashing.size_bytes, tuple(rows))


def write_tables(
    out: str, shards: Iterable[WrittenShard], rejects: Iterable[Reject], configuration: dict[str, Any]
) -> dict[str, Any]:
    """Writes the index, the rejects and then ``dataset.json``; returns what that says."""
    order = {split: index for index, split in enumerate(SPLITS)}
    shards = sorted(shards, key=lambda shard: (order[shard.name.split("-")[0]], shard.name))
    rejects = sorted(rejects, key=lambda reject: (reject.source, reject.stage, reject.reason))
    rows = [row for shard in shards for row in shard.rows]
    reject_rows = [{name: getattr(reject, name) for name in REJECTS_SCHEMA.names} for reject in rejects]
    write_rows(join(out, INDEX), rows, INDEX_SCHEMA)
    write_rows(join(out, REJECTS), reject_rows, REJECTS_SCHEMA)
    kept = Counter(row["split"] for row in rows)
    dataset = {
        "format_version": FORMAT_VERSION,
        "full_size_px": configuration["full_size_px"],
        "patch_size_px": configuration["patch_size_px"],
        "configuration": configuration,
        "samples": {split: kept[split] for split in SPLITS},
        "rejects": dict(sorted(Counter(reject.reason for reject in rejects).items())),
        "shards": {
            shard.name: {"sha256": shard.sha256, "size_bytes": shard.size_bytes, "samples": len(shard.rows)}
            for shard in shards
        },
    }
    write_json(join(out, DATASET), dataset)
    return dataset


def read_dataset(url: str) -> dict[str, Any]:
    """What ``dataset.json`` of a training set says.

    Raises:
        InputError: there is no training set, one of another format, or a damaged one.
    """
    path = join(url, DATASET)
    if not exists(path):
        raise InputError(f"{url} is no training set (it has no {DATASET}): make one with infinitygan ingest")
    dataset = read_json(path)
    version = dataset.get("format_version") if isinstance(dataset, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format_version {version}; this version reads {FORMAT_VERSION}")
    _check_dataset(path, dataset)
    return dataset


def read_index(url: str) -> list[dict[str, Any]]:
    """The rows of a training set's index, in the order of its shards.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_rows(join(url, INDEX), "index of a training set; copy it again, or ingest again", INDEX_SCHEMA)


def _check_dataset(path: str, dataset: dict[str, Any]) -> None:
    """Raises InputError if a field that readers rely on is missing, of a wrong kind, or contradicts another."""
    fields = {
        "full_size_px": is_count(dataset.get("full_size_px")),
        "patch_size_px": is_count(dataset.get("patch_size_px")),
        "samples": _are_counts(dataset.get("samples")) and set(dataset["samples"]) == set(SPLITS),
        "rejects": _are_counts(dataset.get("rejects")),
        "shards": _are_shards(dataset.get("shards")),
    }
    wrong = [name for name, is_right in fields.items() if not is_right]
    if not wrong and dataset["samples"] != _count_by_split(dataset["shards"]):
        wrong = ["samples, which are not those of the shards"]
    if wrong:
        raise InputError(f"{path} is damaged at {', '.join(wrong)}: copy it again, or ingest the photographs again")


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_count, value.values()))


def _are_shards(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(shard, dict) and is_count(shard.get("samples")) for shard in value.values()
    )


def _count_by_split(shards: dict[str, Any]) -> dict[str, int]:
    return {
        split: sum(shard["samples"] for name, shard in shards.items() if name.startswith(f"{split}-"))
        for split in SPLITS
    }


class _HashingFile:
    """Passes writes on, and keeps their sha256 and number."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.size_bytes += len(content)
        self._file.write(content)
        return len(content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a member that says nothing of when and by whom; returns where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o444
    tar.addfile(member, io.BytesIO(content))
    padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return tar.offset - padded  # type: ignore[attr-defined, no-any-return]
