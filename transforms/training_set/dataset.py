"""The training set on storage: shards, index, rejects, and ``dataset.json``, which marks the set as complete.

``dataset.json`` is written last. A folder with it holds a whole set; a folder without it does not hold a set.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict, cast

import pyarrow as pa
import pyarrow.compute as pc

from model.checks import is_count
from model.errors import InputError
from transforms.storage.files import exists, join, read_json, write_json
from transforms.storage.tables import ROWS_IN_A_GROUP, read_parts, write_parts
from transforms.storage.urls import redact
from transforms.training_set.records import Reject
from transforms.training_set.samples import SPLITS, Sample, SampleJson

FORMAT_VERSION = 2
"""In version 1 ``full_height_px`` was called ``full_size_px``, which in a sample is the size of its full picture in the
original. Training sets of version 1 are read, and become version 2 when they are extended."""

INDEX, REJECTS, DATASET, REPORT = "index.parquet", "rejects.parquet", "dataset.json", "report.html"

MOST_IMAGE_BYTES = 256 << 20
"""The largest size of a stored picture; even an incompressible one is smaller."""

MOST_SAMPLES = 1_000_000
"""The largest number of samples that a shard may have."""

SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-[0-9]+\.tar")

GEOMETRY_TOLERANCE = 0.1
"""The largest difference between two sets' vertical ranges of crops, as a share."""

INDEX_IS = "index of a training set; copy it again, or ingest again"
REJECTS_ARE = "table of rejects of a training set; copy it again, or ingest again"

UNSTATED = "unstated"
"""What stands for the licence of a photograph that has none."""

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
"""Columns that are null in tables written before the columns existed."""

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


class IndexRow(SampleJson):
    """A row of ``index.parquet``: a sample, and the place of its image.

    Attributes:
        shard: the name of the shard.
        offset: the position of the image's first byte in the shard.
        size: the number of its bytes.
    """

    shard: str
    offset: int
    size: int


class ShardRecord(TypedDict):
    """The entry of a shard in ``dataset.json``.

    Attributes:
        sha256: the SHA-256 of the file.
        size_bytes: the size of the file.
        samples: the number of samples in it.
    """

    sha256: str
    size_bytes: int
    samples: int


class Configuration(TypedDict):
    """The options that made a set. There are more than these two; the others are for people.

    Attributes:
        full_height_px: the height of the stored photographs.
        patch_size_px: the side of the planned patches.
    """

    full_height_px: int
    patch_size_px: int


class _Made(TypedDict):
    configuration: Configuration


class SetProvenance(_Made, total=False):
    """The origin of a set: the options of the run that made it, and of the runs that added to it."""

    later_configurations: list[Configuration]


class Dataset(SetProvenance):
    """The content of ``dataset.json``.

    Attributes:
        format_version: `FORMAT_VERSION`.
        full_height_px: the height of the stored photographs.
        patch_size_px: the side of the planned patches.
        samples: the number of samples by split.
        rejects: the number of rejects by reason.
        shards: the shards by name.
    """

    format_version: int
    full_height_px: int
    patch_size_px: int
    samples: dict[str, int]
    rejects: dict[str, int]
    shards: dict[str, ShardRecord]


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard on storage.

    Attributes:
        name: the name of its file.
        sha256: the SHA-256 of the file.
        size_bytes: the size of the file.
        samples: the number of its samples.
    """

    name: str
    sha256: str
    size_bytes: int
    samples: int


def write_tables(
    out: str,
    shards: Sequence[WrittenShard],
    rows_of: Callable[[WrittenShard], pa.Table],
    rejects: Iterable[Reject],
    provenance: SetProvenance,
    existing: Dataset | None = None,
) -> Dataset:
    """Writes the index, the rejects and then ``dataset.json``; returns the content of the latter.

    Tables of any size are written in bounded memory. The samples of an existing set are kept.

    Args:
        out: the folder of the set.
        shards: the shards that were written.
        rows_of: returns the rows of the index for a shard's samples.
        rejects: the sources that are not in the set, in the order of `reject_order`.
        provenance: the ``configuration`` that made the set, and any ``later_configurations`` that added to it.
        existing: the ``dataset.json`` of the set that is extended.
    """
    there: dict[str, ShardRecord] = existing["shards"] if existing else {}
    reasons: Counter[str] = Counter()
    write_parts(join(out, INDEX), _index_parts(out, there, shards, rows_of), INDEX_SCHEMA)
    write_parts(join(out, REJECTS), _reject_parts(rejects, reasons), REJECTS_SCHEMA)
    described: dict[str, ShardRecord] = {
        shard.name: {"sha256": shard.sha256, "size_bytes": shard.size_bytes, "samples": shard.samples}
        for shard in shards
    }
    dataset: Dataset = {
        "format_version": FORMAT_VERSION,
        "full_height_px": provenance["configuration"]["full_height_px"],
        "patch_size_px": provenance["configuration"]["patch_size_px"],
        **provenance,
        "samples": {split: sum(shard_lengths(there | described, split)) for split in SPLITS},
        "rejects": dict(sorted(reasons.items())),
        "shards": there | described,
    }
    write_json(join(out, DATASET), dataset)
    return dataset


def reject_order(reject: Reject) -> tuple[str, str, str]:
    """Returns the place of a reject in the table of rejects."""
    return (reject.source, reject.stage, reject.reason)


def _index_parts(
    out: str, there: Mapping[str, Any], shards: Sequence[WrittenShard], rows_of: Callable[[WrittenShard], pa.Table]
) -> Iterator[pa.Table]:
    """Yields the rows of a set's index: by split, those of the existing shards and then of the new ones."""
    for split in SPLITS:
        if there:
            for part in read_index_parts(out, there):
                yield _redacted(part.filter(pc.equal(part["split"], split)))
        for shard in sorted(shards, key=lambda shard: shard.name):
            if split_of_shard(shard.name) == split:
                yield rows_of(shard)


def _redacted(part: pa.Table) -> pa.Table:
    sources = pa.array([redact(source) for source in part["source"].to_pylist()], pa.string())
    return part.set_column(part.schema.get_field_index("source"), "source", sources)


def _reject_parts(rejects: Iterable[Reject], reasons: Counter[str]) -> Iterator[pa.Table]:
    """Yields the table of rejects in parts, and counts their reasons."""
    rejects = iter(rejects)
    while some := list(islice(rejects, ROWS_IN_A_GROUP)):
        reasons.update(reject.reason for reject in some)
        rows = [{name: getattr(reject, name) for name in REJECTS_SCHEMA.names} for reject in some]
        yield pa.Table.from_pylist(rows, schema=REJECTS_SCHEMA)


def read_index_parts(
    url: str, shards: Collection[str], columns: Sequence[str] | None = None, groups: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Yields the rows of a set's index in parts.

    A run interrupted while it wrote the tables may have left rows of shards that are not in the set.

    Args:
        url: the URL of the set.
        shards: the names of the set's shards.
        columns: the columns to read, among them ``shard``; None for all.
        groups: the row groups to read; None for all.

    Raises:
        InputError: the index is missing or damaged.
    """
    schema = INDEX_SCHEMA if columns is None else pa.schema([INDEX_SCHEMA.field(name) for name in columns])
    names = pa.array(list(shards), pa.string())
    for part in read_parts(join(url, INDEX), INDEX_IS, schema, _LATER_COLUMNS, groups):
        yield part.filter(pc.is_in(part["shard"], names))


def count_licences(url: str, dataset: Dataset) -> Counter[str]:
    """Counts the licences of a set's training samples.

    Raises:
        InputError: the index is missing or damaged.
    """
    counts: Counter[str] = Counter()
    for part in read_index_parts(url, dataset["shards"], ["shard", "split", "licence"]):
        licences = part.filter(pc.equal(part["split"], "train"))["licence"]
        counts.update(licence or UNSTATED for licence in licences.to_pylist())
    return counts


def read_rejects(url: str, groups: Sequence[int] | None = None) -> Iterator[Reject]:
    """Yields the rejects of a set, in the order of its table.

    Raises:
        InputError: the table is missing or damaged.
    """
    for part in read_parts(join(url, REJECTS), REJECTS_ARE, REJECTS_SCHEMA, _LATER_COLUMNS, groups):
        try:
            yield from (Reject(**row) for row in part.to_pylist())
        except TypeError as error:
            raise InputError(f"{join(url, REJECTS)} is damaged ({error}): copy it again, or ingest again") from None


def read_dataset(url: str) -> Dataset:
    """Reads the ``dataset.json`` of a training set.

    Raises:
        InputError: there is no training set, it has another format, or it is damaged.
    """
    path = join(url, DATASET)
    if not exists(path):
        raise InputError(f"{url} is not a training set (it has no {DATASET}): make one with infinitygan ingest")
    return checked_dataset(path, read_json(path))


def checked_dataset(path: str, dataset: Any) -> Dataset:
    """Returns the content of a ``dataset.json`` that this version can read.

    Raises:
        InputError: it has another format, or is damaged.
    """
    version = dataset.get("format_version") if isinstance(dataset, dict) else None
    if version == 1:
        dataset = _upgrade(dataset)
    elif version != FORMAT_VERSION:
        raise InputError(f"{path} has format_version {version}; this version reads 1 to {FORMAT_VERSION}")
    _check_dataset(path, dataset)
    return cast(Dataset, dataset)


def _upgrade(dataset: dict[str, Any]) -> dict[str, Any]:
    """Converts a ``dataset.json`` of version 1 to version 2."""
    renamed = _rename_size(dataset) | {"format_version": FORMAT_VERSION}
    if isinstance(dataset.get("configuration"), dict):
        renamed["configuration"] = _rename_size(dataset["configuration"])
    if isinstance(dataset.get("later_configurations"), list):
        renamed["later_configurations"] = [
            _rename_size(values) if isinstance(values, dict) else values for values in dataset["later_configurations"]
        ]
    return renamed


def _rename_size(values: dict[str, Any]) -> dict[str, Any]:
    return {"full_height_px" if name == "full_size_px" else name: value for name, value in values.items()}


def read_dataset_if_any(url: str) -> Dataset | None:
    """Reads ``dataset.json``; returns None if there is none.

    Raises:
        InputError: the set is of another format, or damaged.
    """
    return read_dataset(url) if exists(join(url, DATASET)) else None


def check_fits(url: str, dataset: Dataset, patch_px: int, full_px: int, processes: int = 1) -> None:
    """Checks that a network can be trained on a training set.

    Args:
        url: the URL of the set.
        dataset: the value that `read_dataset` returned for it.
        patch_px: the side of the patches that the network is trained on.
        full_px: the height of the photographs that they are cropped from.
        processes: the number of processes that share the set.

    Raises:
        InputError: the set has no training samples, photographs of another height, or fewer shards than processes.
    """
    samples = dataset["samples"]["train"]
    if samples == 0:
        raise InputError(f"{url} holds no training samples; ingest more photographs")
    travel, wanted = dataset["full_height_px"] - patch_px, full_px - patch_px
    if abs(travel - wanted) > GEOMETRY_TOLERANCE * wanted:
        raise InputError(
            f"{url} holds photographs {dataset['full_height_px']} px high, but this preset crops "
            f"{patch_px} px from {full_px}: ingest them with --full-size {full_px} "
            f"--patch-size {patch_px}"
        )
    shards = sum(name.startswith("train-") for name in dataset["shards"])
    if shards < processes:
        raise InputError(
            f"{url} holds {shards} training shards for {processes} processes: start at most {shards} processes, or "
            f"ingest with --samples-per-shard {max(1, samples // processes)}"
        )


@dataclass(frozen=True, slots=True)
class IndexRows:
    """Some rows of a set's index. Each iteration reads them again; memory holds only a few.

    Attributes:
        url: the URL of the set.
        dataset: the value that `read_dataset` returned for it.
        splits: the splits that the rows belong to.
        most: the most rows, evenly spaced; None for all.
    """

    url: str
    dataset: Dataset
    splits: tuple[str, ...]
    most: int | None = None

    @property
    def _step(self) -> int:
        return max(1, -(-self._count // (self.most or self._count or 1)))

    @property
    def _count(self) -> int:
        return sum(self.dataset["samples"].get(split, 0) for split in self.splits)

    def __len__(self) -> int:
        """Returns the number of rows, if the index agrees with ``dataset.json``."""
        return -(-self._count // self._step)

    def __iter__(self) -> Iterator[IndexRow]:
        """Yields the rows, in the order of the set's shards.

        Raises:
            InputError: the index is missing or damaged.
        """
        place = 0  # among the rows of the splits
        for part in read_index_parts(self.url, self.dataset["shards"]):
            mine = part.filter(pc.is_in(part["split"], pa.array(self.splits, pa.string())))
            first = -place % self._step
            for number in range(first, len(mine), self._step):
                (row,) = mine.slice(number, 1).to_pylist()
                checked_sample(self.url, row, place + number)
                yield cast(IndexRow, row)
            place += len(mine)


def checked_sample(url: str, row: Mapping[str, Any], number: int) -> Sample:
    """Returns the sample that a row of a set's index describes.

    Raises:
        InputError: a field is missing or out of range.
    """
    try:
        return sample_of(row)
    except InputError as error:
        raise InputError(f"{join(url, INDEX)} is damaged at row {number}, or is not the {INDEX_IS} ({error})") from None


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Returns the sample that a row of the index, which may come from anyone, describes.

    Raises:
        InputError: a field is missing or out of range.
    """
    place = {name: row[name] for name in ("shard", "offset", "size")}
    if not (is_count(place["offset"]) and 0 < (place["size"] or 0) <= MOST_IMAGE_BYTES):
        raise InputError(f"{place} cannot be the place of a picture")
    return Sample.from_json({name: value for name, value in row.items() if name not in place})


def _check_dataset(path: str, dataset: dict[str, Any]) -> None:
    """Raises InputError if a field that readers rely on is missing, of a wrong type, or contradicts another."""
    configuration = dataset.get("configuration")
    fields = {
        "full_height_px": is_count(dataset.get("full_height_px")),
        "patch_size_px": is_count(dataset.get("patch_size_px")),
        "configuration": isinstance(configuration, dict)
        and all(is_count(configuration.get(name)) for name in ("full_height_px", "patch_size_px")),
        "samples": _are_counts(dataset.get("samples")) and set(dataset["samples"]) == set(SPLITS),
        "rejects": _are_counts(dataset.get("rejects")),
        "shards": _are_shards(dataset.get("shards")),
    }
    wrong = [name for name, is_right in fields.items() if not is_right]
    if not wrong and dataset["samples"] != {split: sum(shard_lengths(dataset["shards"], split)) for split in SPLITS}:
        wrong = ["samples, which differ from those of the shards"]
    if wrong:
        raise InputError(f"{path} is damaged ({', '.join(wrong)}): copy it again, or ingest the photographs again")


def split_of_shard(name: str) -> str:
    """Returns the split that a shard belongs to, by its name."""
    return name.partition("-")[0]


def shard_lengths(shards: Mapping[str, ShardRecord], split: str) -> list[int]:
    """Returns how many samples each shard of a split has, in the order of the shards' names."""
    return [shard["samples"] for name, shard in sorted(shards.items()) if name.startswith(f"{split}-")]


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(is_count, value.values()))


def _are_shards(value: object) -> bool:
    return isinstance(value, dict) and all(
        SHARD_NAME.fullmatch(name)
        and isinstance(shard, dict)
        and is_count(shard.get("samples"))
        and shard["samples"] <= MOST_SAMPLES
        and is_count(shard.get("size_bytes"))
        for name, shard in value.items()
    )


def damaged(what: str, why: str) -> InputError:
    """Returns the error for a shard or sample that cannot be read."""
    return InputError(f"{what} is damaged ({why}): copy the shard again, or ingest the photographs again")
