"""The manifest: one row a request, with its state."""

import random
import time
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from transforms.plan import Plan
from transforms.retry import retried
from transforms.storage import exists, join
from transforms.tables import read_rows, write_rows

MANIFEST = "manifest.parquet"
DONE, FAILED, REFUSED = "done", "failed", "refused"
ATTEMPTS, ATTEMPT_AFTER_S = 8, 1.0
"""How often a manifest is written that another run writes too, and the longest wait between."""

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


def manifest_row(plan: Plan, state: str, reason: str | None, record: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of a request."""
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
    """What the manifest says of a request that cannot be rendered as it is."""
    return {**dict.fromkeys(MANIFEST_SCHEMA.names), "id": name, "state": REFUSED, "reason": reason, "files": []}


def write_manifest(out: str, rows: Iterable[dict[str, Any]], anew: str | None = None) -> None:
    """Writes one row a request, by id, keeping those of earlier runs, but not those whose id begins with `anew`.

    Another run may write it at the same moment: what is there afterwards is read again, and rows that the other did not
    know of, or says are unfinished though they are done, are put back.

    Raises:
        OSError: others write it all the time.
    """
    ours = {row["id"]: row for row in rows}
    path = join(out, MANIFEST)
    for _ in range(ATTEMPTS):
        earlier = retried(read_manifest, out) if retried(exists, path) else []
        kept = (row for row in earlier if anew is None or not row["id"].startswith(anew))
        merged = {row["id"]: row for row in kept} | ours
        retried(write_rows, path, [merged[key] for key in sorted(merged)], MANIFEST_SCHEMA)
        there = {row["id"]: row["state"] for row in retried(read_manifest, out)}
        if all(there.get(key) in (row["state"], DONE) for key, row in ours.items()):
            return
        time.sleep(random.uniform(0, ATTEMPT_AFTER_S))
    raise OSError(f"other runs write the manifest of {out} all the time; run again when they have ended")


def read_manifest(out: str) -> list[dict[str, Any]]:
    """The manifest's rows, by id.

    Raises:
        InputError: the file is damaged, or no manifest of ours.
    """
    return read_rows(join(out, MANIFEST), "manifest of render; remove it", MANIFEST_SCHEMA)
