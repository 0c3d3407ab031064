"""The training set on storage: shards, index, rejects and the ``dataset.json`` that says it is complete.

``dataset.json`` is written last. A folder with it holds a whole set; a folder without it holds none.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa

from model.checks import is_count
from model.errors import InputError
from transforms.pieces import Piece, read_pieces
from transforms.records import Reject
from transforms.samples import SPLITS, Sample
from transforms.storage import exists, join, open_atomic, read_json, write_json
from transforms.tables import read_rows, write_rows
from transforms.urls import redact

FORMAT_VERSION = 1
INDEX, REJECTS, DATASET, REPORT = "index.parquet", "rejects.parquet", "dataset.json", "report.html"

TRAIN_SHARDS = 16
"""The least number of train shards, so that readers on several machines each have some."""

MOST_SAMPLES_PER_SHARD = 1000
MOST_SAMPLES_READ = 1_000_000
"""Of one shard; what claims more is damaged."""

SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{6,}}\.tar")

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
        ("title", pa.string()),
        ("detail_hash", pa.string()),
    ]
)
_LATER_COLUMNS = ("title", "detail_hash", "licence", "author", "archive", "archive_offset", "archive_size")
"""Null where a table was written before there were such columns."""

REJECTS_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("licence", pa.string()),
        ("author", pa.string()),
        ("title", pa.string()),
        ("archive", pa.string()),
        ("archive_offset", pa.int64()),
        ("archive_size", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class StagedSample:
    """A sample whose encoded image lies in a tar: a staged one, or a shard that is to be dealt out anew.

    Attributes:
        sample: its metadata.
        image: where its bytes are.
        crop_hashes: its detail hashes under all crops.
        origin: where the photograph's own bytes are, if it came out of an archive.
    """

    sample: Sample
    image: Piece
    crop_hashes: bytes = b""
    origin: Piece | None = None

    @property
    def source(self) -> str:
        """The photograph's URL or path."""
        return self.sample.source


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


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A whole set as its tables describe it.

    Attributes:
        dataset: what ``dataset.json`` says.
        rows: of the index, those of the shards that ``dataset.json`` names.
        rejects: what is not in it.
    """

    dataset: dict[str, Any]
    rows: list[dict[str, Any]]
    rejects: list[Reject]

    def shards_of(self, split: str) -> list[int]:
        """How many samples each shard of a split has, in order."""
        shards = sorted(self.dataset["shards"].items())
        return [shard["samples"] for name, shard in shards if name.startswith(f"{split}-")]


def read_training_set(url: str, dataset: dict[str, Any]) -> TrainingSet:
    """The training set that a ``dataset.json`` describes.

    A run that was cut off while it wrote the tables may have left rows of shards that are not in the set.

    Raises:
        InputError: it is damaged.
    """
    rows = [row for row in read_index(url) if row["shard"] in dataset["shards"]]
    what = "table of rejects of a training set; copy it again, or ingest again"
    rejects = read_rows(join(url, REJECTS), what, REJECTS_SCHEMA, _LATER_COLUMNS)
    try:
        return TrainingSet(dataset, rows, [Reject(**row) for row in rejects])
    except TypeError as error:
        raise InputError(f"{join(url, REJECTS)} is damaged ({error}): copy it again, or ingest again") from None


def assign_shards(
    staged: Iterable[StagedSample], samples_per_shard: int | None, existing: TrainingSet | None = None
) -> list[TrainingShard]:
    """Deals samples out in the order of their keys: exactly N a shard, but for the last of a split.

    The names go on where an existing set's end, and its N is taken over if none is given.
    """
    by_split: dict[str, list[StagedSample]] = {split: [] for split in SPLITS}
    for item in sorted(staged, key=lambda item: item.sample.key):
        by_split[item.sample.split].append(item)
    first = {split: existing.shards_of(split) if existing else [] for split in SPLITS}
    known = max((count for counts in first.values() for count in counts), default=None)
    count = samples_per_shard or known or choose_samples_per_shard(len(by_split["train"]))
    return [
        TrainingShard(f"{split}-{len(first[split]) + start // count:06d}.tar", tuple(items[start : start + count]))
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
            images = read_pieces(item.image for item in shard.samples)
            for item, image in zip(shard.samples, images, strict=True):
                metadata = json.dumps(item.sample.to_json(), ensure_ascii=False, sort_keys=True).encode()
                offset = add_member(tar, f"{item.sample.key}.{_suffix(image)}", image)
                add_member(tar, f"{item.sample.key}.json", metadata)
                place = {"shard": shard.name, "offset": offset, "size": len(image)}
                rows.append({**place, **item.sample.to_json()})
    return WrittenShard(shard.name, hashing.digest.hexdigest(), hashing.size_bytes, tuple(rows))


def write_tables(
    out: str,
    shards: Iterable[WrittenShard],
    rejects: Iterable[Reject],
    provenance: dict[str, Any],
    existing: TrainingSet | None = None,
    mended: Collection[str] = (),
) -> dict[str, Any]:
    """Writes the index, the rejects and then ``dataset.json``; returns what that says.

    What an existing set says stays, but for the rejects of sources that have now been tried again.

    Args:
        out: the set's folder.
        shards: that were written.
        rejects: the sources that are not in it.
        provenance: the ``configuration`` that made the set, and perhaps ``later_configurations`` that added to it.
        existing: the set that is added to.
        mended: sources that it rejected, and that are not rejected any more.
    """
    order = {split: index for index, split in enumerate(SPLITS)}
    shards, rejects = list(shards), list(rejects)
    rows = [row for shard in shards for row in shard.rows]
    described = {
        shard.name: {"sha256": shard.sha256, "size_bytes": shard.size_bytes, "samples": len(shard.rows)}
        for shard in shards
    }
    if existing:
        tried = {row["source"] for row in rows} | {reject.source for reject in rejects} | set(mended)
        rejects += [reject for reject in existing.rejects if reject.source not in tried]
        rows = [{**row, "source": redact(row["source"])} for row in existing.rows] + rows
        described = existing.dataset["shards"] | described
    rows.sort(key=lambda row: (order[row["split"]], row["shard"], row["offset"]))
    rejects.sort(key=lambda reject: (reject.source, reject.stage, reject.reason))
    reject_rows = [{name: getattr(reject, name) for name in REJECTS_SCHEMA.names} for reject in rejects]
    write_rows(join(out, INDEX), rows, INDEX_SCHEMA)
    write_rows(join(out, REJECTS), reject_rows, REJECTS_SCHEMA)
    kept = Counter(row["split"] for row in rows)
    dataset = {
        "format_version": FORMAT_VERSION,
        "full_size_px": provenance["configuration"]["full_size_px"],
        "patch_size_px": provenance["configuration"]["patch_size_px"],
        **provenance,
        "samples": {split: kept[split] for split in SPLITS},
        "rejects": dict(sorted(Counter(reject.reason for reject in rejects).items())),
        "shards": described,
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
    return checked_dataset(path, read_json(path))


def checked_dataset(path: str, dataset: Any) -> dict[str, Any]:
    """What a file says, if it is a ``dataset.json`` that this version can read.

    Raises:
        InputError: it is of another format, or damaged.
    """
    version = dataset.get("format_version") if isinstance(dataset, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format_version {version}; this version reads {FORMAT_VERSION}")
    _check_dataset(path, dataset)
    return dataset


def read_index(url: str) -> list[dict[str, Any]]:
    """The rows of a training set's index, in the order of its shards. Each describes a sample.

    Raises:
        InputError: it is missing or damaged.
    """
    what = "index of a training set; copy it again, or ingest again"
    rows = read_rows(join(url, INDEX), what, INDEX_SCHEMA, _LATER_COLUMNS)
    for number, row in enumerate(rows, start=1):
        try:
            sample_of(row)
        except InputError as error:
            raise InputError(
                f"{join(url, INDEX)} is damaged at row {number} ({error}): {what.partition('; ')[2]}"
            ) from None
    return rows


def sample_of(row: dict[str, Any]) -> Sample:
    """The sample that a row of an index describes.

    Raises:
        InputError: it does not describe one, or not where one is.
    """
    places = {"offset": row["offset"], "size": row["size"]}
    wrong = next((name for name, value in places.items() if not is_count(value)), None)
    if wrong or not SHARD_NAME.fullmatch(row["shard"] or ""):
        raise InputError(f"{wrong or 'shard'} is {row[wrong or 'shard']!r}")
    return Sample.from_json({name: value for name, value in row.items() if name not in ("shard", *places)})


def _check_dataset(path: str, dataset: dict[str, Any]) -> None:
    """Raises InputError if a field that readers rely on is missing, of a wrong kind, or contradicts another."""
    configuration = dataset.get("configuration")
    fields = {
        "full_size_px": is_count(dataset.get("full_size_px")),
        "patch_size_px": is_count(dataset.get("patch_size_px")),
        "configuration": isinstance(configuration, dict)
        and all(is_count(configuration.get(name)) for name in ("full_size_px", "patch_size_px")),
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
        SHARD_NAME.fullmatch(name)
        and isinstance(shard, dict)
        and _are_counts({key: shard.get(key) for key in ("samples", "size_bytes")})
        and shard["samples"] <= MOST_SAMPLES_READ
        for name, shard in value.items()
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


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Adds a member that says nothing of when and by whom; returns where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o444
    tar.addfile(member, io.BytesIO(content))
    padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return tar.offset - padded  # type: ignore[attr-defined, no-any-return]


def _suffix(image: bytes) -> str:
    """What the name of a stored image ends in, by how its bytes begin."""
    return {b"\x89P": "png", b"RI": "webp"}.get(image[:2], "jpg")
