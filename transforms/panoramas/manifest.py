"""The manifest: one row per request, with its state.

Several runs may write it at the same time, to stores without locks. So each run first writes its rows to a separate
part, ``manifest-<stamp>-<random>.part``, and then writes the manifest from the existing manifest and all parts, in the
order of their stamps. A run that afterwards sees a part that it did not know writes the manifest again, and readers of
the manifest read the parts too, so no row is lost, whatever the timing. While a run is at work, a file
``manifest-<stamp>-<random>.writing`` announces it; a run that finishes and sees no such file removes the parts, which
the manifest then contains.
"""

import heapq
import itertools
import operator
import random
import re
import time
import uuid
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, cast

import pyarrow as pa
import pyarrow.compute as pc

from model.errors import InputError
from transforms.formats.registry import FORMATS
from transforms.panoramas.folder import DIGEST, PANORAMAS, PanoramaRecord
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import ID_PATTERN
from transforms.storage.files import ANOTHER_RUN_IS_DEAD_S, exists, join, list_files, remove, version_of, write_bytes
from transforms.storage.notes import say_once
from transforms.storage.retry import pauses, repeat, retried
from transforms.storage.tables import read_parts, write_parts

MANIFEST = "manifest.parquet"
DONE, FAILED, REFUSED = "done", "failed", "refused"
GONE = "gone"
"""The state of a row in a part that removes the row from the manifest."""

ATTEMPTS, ATTEMPT_AFTER_S = 200, 1.0
"""The number of attempts to write a manifest that other runs write too, and the longest pause between them."""

_ROWS_AT_ONCE = 1000

READ_AGAIN_S = (0.0, 0.0, 0.0)
"""The pauses before a manifest is read again, until it is taken for damaged."""

_PART = re.compile(r"manifest-([0-9]+)-[0-9a-f]{8}\.part")
_WRITING = re.compile(r"manifest-([0-9]+)-[0-9a-f]{8}\.writing")
_WHAT = "manifest of render; remove it"

MANIFEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("plan", pa.string()),
        ("checkpoint_sha256", pa.string()),
        ("seed", pa.uint64()),
        ("width_px", pa.int64()),
        ("height_px", pa.int64()),
        ("files", pa.list_(pa.string())),
        ("pixel_sha256", pa.string()),
        ("seam_max_difference", pa.int32()),
        ("seam_differing_share", pa.float64()),
        ("precision_max_difference", pa.int32()),
        ("precision_mean_difference", pa.float64()),
        ("scale", pa.int32()),
    ]
)
_LATER = ("scale",)
"""The columns that manifests of earlier versions lack."""


class ManifestRow(TypedDict):
    """A request's row of the manifest.

    Attributes:
        id: the request's id.
        state: done, failed or refused; within a part also gone.
        reason: why it is not done; None if it is.
        plan: the digest of the plan. This and everything below is None, or empty, for a request that was refused.
        checkpoint_sha256: the SHA-256 of the checkpoint.
        seed: the seed of the world.
        width_px: the panorama's width.
        height_px: the panorama's height.
        files: the paths of its files in the folder.
        pixel_sha256: the SHA-256 of its pixels.
        seam_max_difference: the largest difference between neighbouring tiles, of 255.
        seam_differing_share: the share of the values that differ between neighbouring tiles.
        precision_max_difference: the largest difference from float32, of 255, if it was measured.
        precision_mean_difference: the mean difference from float32.
        scale: the scale of the panorama; None in rows of earlier versions, which is 1.
    """

    id: str
    state: str
    reason: str | None
    plan: str | None
    checkpoint_sha256: str | None
    seed: int | None
    width_px: int | None
    height_px: int | None
    files: list[str]
    pixel_sha256: str | None
    seam_max_difference: int | None
    seam_differing_share: float | None
    precision_max_difference: int | None
    precision_mean_difference: float | None
    scale: int | None


def manifest_row(plan: Plan, state: str, reason: str | None, record: PanoramaRecord) -> ManifestRow:
    """Returns the manifest's row for a request."""
    audit, precision = record.get("seam_audit"), record.get("precision_difference")
    return {
        "id": plan.request.id,
        "state": state,
        "reason": reason,
        "plan": plan.digest,
        "checkpoint_sha256": plan.checkpoint_sha256,
        "seed": plan.request.seed,
        "width_px": plan.request.width_px,
        "height_px": plan.request.height_px,
        "files": [f"panoramas/{file}" for file in record.get("files", {}).values()],
        "pixel_sha256": record.get("pixel_sha256"),
        "seam_max_difference": audit.get("max_difference") if audit else None,
        "seam_differing_share": audit.get("differing_share") if audit else None,
        "precision_max_difference": precision.get("max") if precision else None,
        "precision_mean_difference": precision.get("mean") if precision else None,
        "scale": plan.request.scale,
    }


def refused_row(name: str, reason: str) -> ManifestRow:
    """Returns the manifest's row for a request that cannot be rendered."""
    return _row_without_panorama(name, REFUSED, reason)


def _row_without_panorama(name: str, state: str, reason: str) -> ManifestRow:
    row: dict[str, object] = {
        **dict.fromkeys(MANIFEST_SCHEMA.names),
        "id": name,
        "state": state,
        "reason": reason,
        "files": [],
    }
    return cast(ManifestRow, row)


def write_manifest(
    out: str, rows: Iterable[ManifestRow], replaces: str | None = None, left_out: Container[str] = ()
) -> None:
    """Writes one row per request, by id; keeps other runs' rows. Memory does not grow with the number of rows.

    If there is nothing to write or to remove, the manifest is left as it is.

    Args:
        out: the folder.
        rows: the rows, in the order of their ids; iterated once more if storage fails.
        replaces: the start of ids whose other rows are removed; None for none.
        left_out: ids that begin so, but whose rows are kept.

    Raises:
        InputError: the existing file is damaged or is not a manifest.
        OSError: other runs keep overwriting it.
    """
    with _announced(out):
        is_new = _write_part(out, rows, replaces, left_out)
        if not is_new and not _named(out, _PART) and retried(exists, join(out, MANIFEST)):
            return
        for _ in range(ATTEMPTS):
            parts = _named(out, _PART)
            if retried(_merge, out, parts) and set(_named(out, _PART)) <= set(parts):
                break
            time.sleep(random.uniform(0, ATTEMPT_AFTER_S))
        else:
            raise OSError(f"other runs keep overwriting the manifest of {out}; run again when they have ended")
    _tidy(out)


def read_manifest(out: str) -> list[ManifestRow]:
    """Reads the whole manifest, as `stream_manifest` does."""
    return list(stream_manifest(out))


def stream_manifest(out: str) -> Iterator[ManifestRow]:
    """Yields the manifest's rows, by id, including those that runs at work are about to write.

    Invalid rows are ignored, with a line on stderr.

    Raises:
        InputError: the file is missing, is damaged or is not a manifest.
    """
    if not retried(exists, join(out, MANIFEST)):
        raise InputError(f"{join(out, MANIFEST)} is missing; it should be the {_WHAT}")
    for _ in range(ATTEMPTS):
        merged = _merged(out, _named(out, _PART))
        if merged is not None:
            return merged
    raise OSError(f"other runs keep overwriting the manifest of {out}; try again when they have ended")


def check_manifest(out: str) -> None:
    """Raises InputError if a folder's manifest is damaged or is not a manifest, as far as its columns and ids tell."""
    if retried(exists, join(out, MANIFEST)):
        retried(_is_sorted, join(out, MANIFEST), pa.schema([MANIFEST_SCHEMA.field("id")]))


def version_of_manifest(out: str) -> tuple[object, ...]:
    """Returns what tells whether other rows would be read."""
    return version_of(join(out, MANIFEST)), *_named(out, _PART)


@contextmanager
def _announced(out: str) -> Iterator[None]:
    """Announces to other runs that this one is about to write the manifest."""
    url = join(out, f"manifest-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.writing")
    retried(write_bytes, url, b"a run is about to write the manifest\n")
    try:
        yield
    finally:
        retried(remove, url)


def _named(out: str, pattern: re.Pattern[str]) -> dict[str, int]:
    """Returns the names of files that match a pattern, with their stamps, in the order of the stamps."""
    stamps = {name: int(match[1]) for name in retried(list_files, out) if (match := pattern.fullmatch(name))}
    return dict(sorted(stamps.items(), key=lambda item: (item[1], item[0])))


def _write_part(out: str, rows: Iterable[ManifestRow], replaces: str | None, left_out: Container[str]) -> bool:
    """Writes a run's part with a stamp above all existing ones, whatever the machines' clocks say.

    Returns:
        Whether there is anything to write.
    """
    parts = _named(out, _PART)
    stamp = max(time.time_ns(), *(known + 1 for known in parts.values()), 0)
    url = join(out, f"manifest-{stamp:020d}-{uuid.uuid4().hex[:8]}.part")

    def write() -> bool:
        old = () if replaces is None else _ids(out, parts, replaces)
        gone = (_row_without_panorama(name, GONE, "") for name in old if name not in left_out)
        changed = _last_of_each([gone, iter(rows)])
        first = list(itertools.islice(changed, 1))
        if first:
            _write_rows(url, itertools.chain(first, changed))
        return bool(first)

    return retried(write)


def _ids(out: str, parts: Iterable[str], start: str) -> Iterator[str]:
    """Returns the ids in the manifest and in parts that begin with a text, in order."""
    schema = pa.schema([MANIFEST_SCHEMA.field("id")])

    def of(url: str) -> Iterator[str]:
        try:
            is_sorted = retried(_is_sorted, url, schema)
        except InputError:  # whoever reads the rows says what is wrong
            return iter(())
        parts = read_parts(url, _WHAT, schema)
        found = (name for part in parts for name in part["id"].filter(pc.starts_with(part["id"], start)).to_pylist())
        return found if is_sorted else iter(sorted(found))

    return heapq.merge(*(of(join(out, name)) for name in (MANIFEST, *parts)))


def _write_rows(url: str, rows: Iterator[ManifestRow]) -> None:
    batches = iter(lambda: list(itertools.islice(rows, _ROWS_AT_ONCE)), [])
    write_parts(url, (pa.Table.from_pylist(batch, schema=MANIFEST_SCHEMA) for batch in batches), MANIFEST_SCHEMA)


def _merge(out: str, parts: Iterable[str]) -> bool:
    """Writes the manifest from itself and parts; returns False if another run has just merged one of the parts."""
    merged = _merged(out, parts)
    if merged is not None:
        _write_rows(join(out, MANIFEST), merged)
    return merged is not None


def _merged(out: str, parts: Iterable[str]) -> Iterator[ManifestRow] | None:
    """Returns the rows of the manifest and of parts, by id; None if another run has just merged one of the parts.

    All files are open when it returns, so that the rows can still be read when another run has removed the parts.

    Raises:
        InputError: the manifest is damaged or is not a manifest.
    """
    url = join(out, MANIFEST)
    streams = [_opened_again(url)] if retried(exists, url) else []
    for part in parts:
        url = join(out, part)
        try:
            streams.append(_opened(url, MANIFEST_SCHEMA.names))
        except InputError as error:
            if not retried(exists, url):
                return None
            say_once(f"{error}; it is ignored")
    return (row for row in _last_of_each(streams) if row["state"] != GONE)


def _last_of_each(streams: Sequence[Iterator[ManifestRow]]) -> Iterator[ManifestRow]:
    """Yields the last stream's row for each id, in the order of the ids, from streams in that order."""
    by_id = operator.itemgetter("id")
    merged = heapq.merge(*streams, key=by_id) if len(streams) > 1 else itertools.chain(*streams)
    for _, rows in itertools.groupby(merged, key=by_id):
        *_, last = rows
        yield last


def _opened_again(url: str) -> Iterator[ManifestRow]:
    """Opens the manifest, as `_opened` does, again if it seems to be damaged.

    A store is read in several requests, so a manifest that is replaced meanwhile gives parts of two.
    """
    return repeat(lambda _: _opened(url, ["id"]), pauses(READ_AGAIN_S, lambda error: isinstance(error, InputError)))


def _opened(url: str, checked: Collection[str]) -> Iterator[ManifestRow]:
    """Returns the trusted rows of a file, in the order of their ids, after a look at some columns of the whole file.

    Raises:
        InputError: the file is missing, damaged or not a manifest.
    """
    is_sorted = retried(_is_sorted, url, pa.schema(MANIFEST_SCHEMA.field(name) for name in checked))
    rows = _trusted(url, retried(_begun, url))
    return rows if is_sorted else iter(sorted(rows, key=operator.itemgetter("id")))


def _begun(url: str) -> Iterator[Mapping[str, Any]]:
    """Returns the rows of a file, which is open."""
    rows = _rows(url)
    return itertools.chain(list(itertools.islice(rows, 1)), rows)


def _rows(url: str) -> Iterator[Mapping[str, Any]]:
    for part in read_parts(url, _WHAT, MANIFEST_SCHEMA, _LATER):
        for batch in part.to_batches(_ROWS_AT_ONCE):
            yield from batch.to_pylist()


def _is_sorted(url: str, schema: pa.Schema) -> bool:
    """Returns whether a file is sorted by id, as all are but parts of earlier versions."""
    last = ""
    for part in read_parts(url, _WHAT, schema, _LATER):
        ids = part["id"].to_pylist()
        if None in ids or any(one > other for one, other in itertools.pairwise([last, *ids])):
            return False
        last = ids[-1] if ids else last
    return True


def _tidy(out: str) -> None:
    """Removes the parts, unless another run is about to write the manifest and may not know them yet."""
    parts, writing = _named(out, _PART), _named(out, _WRITING)
    dead_ns = ANOTHER_RUN_IS_DEAD_S * 1e9
    if any(abs(time.time_ns() - stamp) < dead_ns for stamp in writing.values()):
        return
    for name in (*parts, *writing):
        retried(remove, join(out, name))


def _trusted(url: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[ManifestRow]:
    """Yields the rows that can come from a job, because anyone may have put the file there."""
    count = damaged = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007 - it is used below
        checked = _checked(row)
        if checked is None:
            damaged += 1
        else:
            yield checked
    if damaged:
        say_once(f"{url}: {damaged} of its {count} rows are damaged and are ignored")


def _checked(row: Mapping[str, Any]) -> ManifestRow | None:
    """Returns a row with its files named by its id and their formats; None if the row is invalid."""
    if not row["id"] or row["state"] not in (DONE, FAILED, REFUSED, GONE):
        return None
    if row["state"] in (REFUSED, GONE):
        return _row_without_panorama(row["id"], row["state"], row["reason"] or "")
    if not ID_PATTERN.fullmatch(row["id"]) or not DIGEST.fullmatch(row["plan"] or ""):
        return None
    names = (file.rpartition(".")[2] for file in row["files"] or () if file)
    files = [f"{PANORAMAS}/{row['id']}.{name}" for name in names if name in FORMATS]
    return cast(ManifestRow, {**row, "files": files}) if files or row["state"] != DONE else None
