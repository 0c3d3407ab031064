"""The manifest: one row per request, with its state.

Several runs may write it at the same time, to stores without locks. So each run first writes its rows to a separate
part, ``manifest-<stamp>-<random>.part``, and then writes the manifest from the existing manifest and all parts, in the
order of their stamps. A run that afterwards sees a part that it did not know writes the manifest again, and readers of
the manifest read the parts too, so no row is lost, whatever the timing. While a run is at work, a file
``manifest-<stamp>-<random>.writing`` announces it; a run that finishes and sees no such file removes the parts, which
the manifest then contains.
"""

import random
import re
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, cast

import pyarrow as pa

from model.errors import InputError
from transforms.formats.registry import FORMATS
from transforms.panoramas.folder import DIGEST, PANORAMAS, PanoramaRecord
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import ID_PATTERN
from transforms.storage.files import ANOTHER_RUN_IS_DEAD_S, exists, join, list_files, remove, write_bytes
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.tables import read_rows, write_rows

MANIFEST = "manifest.parquet"
DONE, FAILED, REFUSED = "done", "failed", "refused"
GONE = "gone"
"""The state of a row in a part that removes the row from the manifest."""

ATTEMPTS, ATTEMPT_AFTER_S = 16, 1.0
"""The number of attempts to write a manifest that other runs write too, and the longest pause between them."""

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
    out: str, rows: Iterable[ManifestRow], anew: str | None = None, left_out: Collection[str] = ()
) -> None:
    """Writes one row per request, by id; keeps other runs' rows, except those whose id begins with `anew`.

    Of these, it keeps the rows of the ids in `left_out`.

    Raises:
        InputError: the existing file is damaged or is not a manifest.
        OSError: other runs keep overwriting it.
    """
    with _announced(out):
        _write_part(out, list(rows), anew, left_out)
        for _ in range(ATTEMPTS):
            parts = _named(out, _PART)
            merged = _merged(out, parts)
            if merged is not None:
                rows = [merged[key] for key in sorted(merged)]
                retried(write_rows, join(out, MANIFEST), rows, MANIFEST_SCHEMA)
                if set(_named(out, _PART)) <= set(parts):
                    break
            time.sleep(random.uniform(0, ATTEMPT_AFTER_S))
        else:
            raise OSError(f"other runs keep overwriting the manifest of {out}; run again when they have ended")
    _tidy(out)


def read_manifest(out: str) -> list[ManifestRow]:
    """Reads the manifest's rows, by id, including those that runs at work are about to write.

    Invalid rows are ignored, with a line on stderr.

    Raises:
        InputError: the file is missing, is damaged or is not a manifest.
    """
    if not retried(exists, join(out, MANIFEST)):
        raise InputError(f"{join(out, MANIFEST)} is missing; it should be the {_WHAT}")
    for _ in range(ATTEMPTS):
        merged = _merged(out, _named(out, _PART))
        if merged is not None:
            return [merged[key] for key in sorted(merged)]
    raise OSError(f"other runs keep overwriting the manifest of {out}; try again when they have ended")


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


def _write_part(out: str, rows: list[ManifestRow], anew: str | None, left_out: Collection[str]) -> None:
    """Writes a run's part with a stamp above all existing ones, whatever the machines' clocks say."""
    parts = _named(out, _PART)
    if anew is not None:
        ours, known = {row["id"] for row in rows}, _merged(out, parts) or {}
        old = (key for key in known if key.startswith(anew) and key not in ours and key not in left_out)
        rows = [*rows, *(_row_without_panorama(key, GONE, "") for key in old)]
    stamp = max(time.time_ns(), *(known + 1 for known in parts.values()), 0)
    url = join(out, f"manifest-{stamp:020d}-{uuid.uuid4().hex[:8]}.part")
    retried(write_rows, url, rows, MANIFEST_SCHEMA)


def _merged(out: str, parts: Iterable[str]) -> dict[str, ManifestRow] | None:
    """Returns the rows of the manifest and of parts, by id; None if another run has just merged one of the parts.

    Raises:
        InputError: the manifest is damaged or is not a manifest.
    """
    url = join(out, MANIFEST)
    there = retried(read_rows, url, _WHAT, MANIFEST_SCHEMA, _LATER) if retried(exists, url) else []
    merged = {row["id"]: row for row in _trusted(url, there)}
    for part in parts:
        url = join(out, part)
        try:
            rows = retried(read_rows, url, _WHAT, MANIFEST_SCHEMA, _LATER)
        except InputError as error:
            if not retried(exists, url):
                return None
            say_once(f"{error}; it is ignored")
            continue
        merged |= {row["id"]: row for row in _trusted(url, rows)}
    return {key: row for key, row in merged.items() if row["state"] != GONE}


def _tidy(out: str) -> None:
    """Removes the parts, unless another run is about to write the manifest and may not know them yet."""
    parts, writing = _named(out, _PART), _named(out, _WRITING)
    dead_ns = ANOTHER_RUN_IS_DEAD_S * 1e9
    if any(abs(time.time_ns() - stamp) < dead_ns for stamp in writing.values()):
        return
    for name in (*parts, *writing):
        retried(remove, join(out, name))


def _trusted(url: str, rows: Sequence[Mapping[str, Any]]) -> list[ManifestRow]:
    """Returns the rows that can come from a job, because anyone may have put the file there."""
    trusted = [row for row in map(_checked, rows) if row is not None]
    if len(trusted) < len(rows):
        say_once(f"{url}: {len(rows) - len(trusted)} of its {len(rows)} rows are damaged and are ignored")
    return trusted


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
