"""The manifest: one row a request, with its state.

Several runs may write it at the same time, to stores that know no locks. So each writes its rows first to a part of its
own, ``manifest-<stamp>-<random>.part``, and then the manifest out of what is there: the manifest and all parts, in the
order of their stamps. Whoever sees a part afterwards that it did not know of does that again, and whoever reads the
manifest reads the parts too; so no row is lost, whatever the moments. While a run is at it, a file
``manifest-<stamp>-<random>.writing`` says so; whoever ends and sees none removes the parts, which all are in by then.
"""

import random
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from model.errors import InputError
from transforms.formats.registry import FORMATS
from transforms.panoramas.folder import DIGEST, PANORAMAS
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import ID_PATTERN
from transforms.storage.files import ANOTHER_RUN_IS_DEAD_S, exists, join, list_files, remove, write_bytes
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.tables import read_rows, write_rows

MANIFEST = "manifest.parquet"
DONE, FAILED, REFUSED = "done", "failed", "refused"
GONE = "gone"
"""The state of a row in a part that is to be taken out of the manifest."""

ATTEMPTS, ATTEMPT_AFTER_S = 16, 1.0
"""How often a manifest is written that other runs write too, and the longest wait between."""

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
    ]
)


def manifest_row(plan: Plan, state: str, reason: str | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the manifest says of a request."""
    audit, precision = record.get("seam_audit", {}), record.get("precision_difference") or {}
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
        "seam_max_difference": audit.get("max_difference"),
        "seam_differing_share": audit.get("differing_share"),
        "precision_max_difference": precision.get("max"),
        "precision_mean_difference": precision.get("mean"),
    }


def refused_row(name: str, reason: str) -> dict[str, Any]:
    """Returns what the manifest says of a request that cannot be rendered as it is."""
    return {**dict.fromkeys(MANIFEST_SCHEMA.names), "id": name, "state": REFUSED, "reason": reason, "files": []}


def write_manifest(out: str, rows: Iterable[dict[str, Any]], anew: str | None = None) -> None:
    """Writes one row a request, by id, keeping those of other runs, but not those whose id begins with `anew`.

    Raises:
        InputError: what is there is damaged, or no manifest of ours.
        OSError: others write it all the time.
    """
    with _announced(out):
        _write_part(out, list(rows), anew)
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
            raise OSError(f"other runs write the manifest of {out} all the time; run again when they have ended")
    _tidy(out)


def read_manifest(out: str) -> list[dict[str, Any]]:
    """Returns the manifest's rows, by id, with those of runs that are about to write theirs.

    Rows that cannot be ours are passed over, with a line on stderr.

    Raises:
        InputError: there is none, or the file is damaged, or no manifest of ours.
    """
    if not retried(exists, join(out, MANIFEST)):
        raise InputError(f"{join(out, MANIFEST)} is missing; it should be the {_WHAT}")
    for _ in range(ATTEMPTS):
        merged = _merged(out, _named(out, _PART))
        if merged is not None:
            return [merged[key] for key in sorted(merged)]
    raise OSError(f"other runs write the manifest of {out} all the time; try again when they have ended")


@contextmanager
def _announced(out: str) -> Iterator[None]:
    """Says to others that this run is about to write the manifest."""
    url = join(out, f"manifest-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.writing")
    retried(write_bytes, url, b"a run is about to write the manifest\n")
    try:
        yield
    finally:
        retried(remove, url)


def _named(out: str, pattern: re.Pattern[str]) -> dict[str, int]:
    """Returns the files of a pattern and their stamps, by stamp."""
    stamps = {name: int(match[1]) for name in retried(list_files, out) if (match := pattern.fullmatch(name))}
    return dict(sorted(stamps.items(), key=lambda item: (item[1], item[0])))


def _write_part(out: str, rows: list[dict[str, Any]], anew: str | None) -> None:
    """Writes the part of a run, whose stamp is above all that are there, whatever the clocks of machines say."""
    parts = _named(out, _PART)
    if anew is not None:
        ours, known = {row["id"] for row in rows}, _merged(out, parts) or {}
        old = (key for key in known if key.startswith(anew) and key not in ours)
        rows = [*rows, *({**refused_row(key, ""), "state": GONE} for key in old)]
    stamp = max(time.time_ns(), *(known + 1 for known in parts.values()), 0)
    url = join(out, f"manifest-{stamp:020d}-{uuid.uuid4().hex[:8]}.part")
    retried(write_rows, url, rows, MANIFEST_SCHEMA)


def _merged(out: str, parts: Iterable[str]) -> dict[str, dict[str, Any]] | None:
    """Returns the rows of the manifest and of parts, by id; None if a part has just been merged by another run.

    Raises:
        InputError: the manifest is damaged, or none of ours.
    """
    url = join(out, MANIFEST)
    there = retried(read_rows, url, _WHAT, MANIFEST_SCHEMA) if retried(exists, url) else []
    merged = {row["id"]: row for row in _trusted(url, there)}
    for part in parts:
        url = join(out, part)
        try:
            rows = retried(read_rows, url, _WHAT, MANIFEST_SCHEMA)
        except InputError as error:
            if not retried(exists, url):
                return None
            say_once(f"{error}; it is passed over")
            continue
        merged |= {row["id"]: row for row in _trusted(url, rows)}
    return {key: row for key, row in merged.items() if row["state"] != GONE}


def _tidy(out: str) -> None:
    """Removes the parts, unless another run is about to write the manifest: it may not know of them yet."""
    parts, writing = _named(out, _PART), _named(out, _WRITING)
    dead_ns = ANOTHER_RUN_IS_DEAD_S * 1e9
    if any(abs(time.time_ns() - stamp) < dead_ns for stamp in writing.values()):
        return
    for name in (*parts, *writing):
        retried(remove, join(out, name))


def _trusted(url: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows that a job can have written: anybody may have put the file there."""
    trusted = [row for row in map(_checked, rows) if row is not None]
    if len(trusted) < len(rows):
        say_once(f"{url}: {len(rows) - len(trusted)} of its {len(rows)} rows are damaged and are passed over")
    return trusted


def _checked(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a row, its files named anew by its id and their formats; nothing if it is no row of ours."""
    if not row["id"] or row["state"] not in (DONE, FAILED, REFUSED, GONE):
        return None
    if row["state"] in (REFUSED, GONE):
        return {**refused_row(row["id"], row["reason"] or ""), "state": row["state"]}
    if not ID_PATTERN.fullmatch(row["id"]) or not DIGEST.fullmatch(row["plan"] or ""):
        return None
    names = (file.rpartition(".")[2] for file in row["files"] or () if file)
    files = [f"{PANORAMAS}/{row['id']}.{name}" for name in names if name in FORMATS]
    return {**row, "files": files} if files or row["state"] != DONE else None
