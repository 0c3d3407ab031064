"""The training set on storage: shards, index, rejects and the ``dataset.json`` that says it is complete.

``dataset.json`` is written last. A folder with it holds a whole set; a folder without it holds none.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model.checks import is_count
from model.errors import InputError
from transforms.storage.files import exists, join, read_json, write_json
from transforms.storage.tables import read_rows, write_rows
from transforms.storage.urls import redact
from transforms.training_set.records import Reject
from transforms.training_set.samples import SPLITS

FORMAT_VERSION = 1
INDEX, REJECTS, DATASET, REPORT = "index.parquet", "rejects.parquet", "dataset.json", "report.html"

MOST_IMAGE_BYTES = 256 << 20
"""Of a stored picture: more than any has, even where it cannot be compressed."""

SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-[0-9]+\.tar")

GEOMETRY_TOLERANCE = 0.1
"""Largest difference between the heights that two sets of photographs travel, as a share."""

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


def read_training_set(url: str, dataset: dict[str, Any]) -> TrainingSet:
    """The training set that a ``dataset.json`` describes.

    A run that was cut off while it wrote the tables may have left rows of shards that are not in the set.

    Raises:
        InputError: it is damaged.
    """
    rows = [row for row in read_index(url) if row["shard"] in dataset["shards"]]
    what = "table of rejects of a training set; copy it again, or ingest again"
    rejects = read_rows(join(url, REJECTS), what, REJECTS_SCHEMA, _LATER_COLUMNS)
    return TrainingSet(dataset, rows, [Reject(**row) for row in rejects])


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
    dataset = read_json(path)
    version = dataset.get("format_version") if isinstance(dataset, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format_version {version}; this version reads {FORMAT_VERSION}")
    _check_dataset(path, dataset)
    return dataset


def read_dataset_if_any(url: str) -> dict[str, Any] | None:
    """What ``dataset.json`` says, or None if there is none.

    Raises:
        InputError: the set is of another format, or damaged.
    """
    return read_dataset(url) if exists(join(url, DATASET)) else None


def check_fits(url: str, dataset: dict[str, Any], patch_px: int, full_px: int, processes: int = 1) -> None:
    """Checks that a network can be trained on a training set.

    Args:
        url: URL of the set.
        dataset: what `read_dataset` returned for it.
        patch_px: side of the patches that the network is trained on.
        full_px: height of the photographs that they are cropped from.
        processes: how many processes share the set.

    Raises:
        InputError: it has no training samples, photographs of another height, or fewer shards than processes.
    """
    samples = dataset["samples"]["train"]
    if samples == 0:
        raise InputError(f"{url} holds no training samples; ingest more photographs")
    travel, wanted = dataset["full_size_px"] - patch_px, full_px - patch_px
    if abs(travel - wanted) > GEOMETRY_TOLERANCE * wanted:
        raise InputError(
            f"{url} holds photographs {dataset['full_size_px']} px high, but this preset crops "
            f"{patch_px} px from {full_px}: ingest them with --full-size {full_px} "
            f"--patch-size {patch_px}"
        )
    shards = sum(name.startswith("train-") for name in dataset["shards"])
    if shards < processes:
        raise InputError(
            f"{url} holds {shards} training shards for {processes} processes: start {shards} at most, or "
            f"ingest with --samples-per-shard {max(1, samples // processes)}"
        )


def read_index(url: str) -> list[dict[str, Any]]:
    """The rows of a training set's index, in the order of its shards.

    Raises:
        InputError: it is missing or damaged.
    """
    what = "index of a training set; copy it again, or ingest again"
    rows = read_rows(join(url, INDEX), what, INDEX_SCHEMA, _LATER_COLUMNS)
    for number, row in enumerate(rows):
        if not _is_sample(row):
            raise InputError(f"{join(url, INDEX)} is damaged at row {number}, or no {what}")
    return rows


def _is_sample(row: Mapping[str, Any]) -> bool:
    """Whether a row of the index, which anybody may have written, can be that of a sample."""
    sides = ("original_width_px", "original_height_px", "stored_width_px", "stored_height_px")
    return (
        all(row[name] for name in ("key", "source", "sha256"))
        and SHARD_NAME.fullmatch(row["shard"] or "") is not None
        and row["split"] in SPLITS
        and all((row[name] or 0) > 0 for name in sides)
        and row["offset"] is not None
        and row["offset"] >= 0
        and 0 < (row["size"] or 0) <= MOST_IMAGE_BYTES
    )


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


def shard_lengths(dataset: dict[str, Any], split: str) -> list[int]:
    """How many samples each shard of a split has, in the order of the shards' names."""
    shards = sorted(dataset["shards"].items())
    return [shard["samples"] for name, shard in shards if name.startswith(f"{split}-")]


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_count, value.values()))


def _are_shards(value: Any) -> bool:
    return isinstance(value, dict) and all(
        SHARD_NAME.fullmatch(name)
        and isinstance(shard, dict)
        and is_count(shard.get("samples"))
        and is_count(shard.get("size_bytes"))
        for name, shard in value.items()
    )


def _count_by_split(shards: dict[str, Any]) -> dict[str, int]:
    return {split: sum(shard_lengths({"shards": shards}, split)) for split in SPLITS}


def damaged(what: str, why: str) -> InputError:
    """What is said of a shard or sample that cannot be read."""
    return InputError(f"{what} is damaged ({why}): copy the shard again, or ingest the photographs again")
