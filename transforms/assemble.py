"""Panoramas out of patches, when all of them are there; and the manifest that says which are."""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.typehints.decorators import no_annotations

from model.errors import InputError
from transforms.formats import pixel_sha256, write_panorama
from transforms.patch_shards import PatchReader
from transforms.plan import PatchShard, Plan, read_record, record_path
from transforms.seams import audit_seams
from transforms.storage import exists, join, read_bytes, write_bytes, write_json
from transforms.synthesize import Failure
from transforms.tally import Tally

PANORAMAS_DONE = Tally()
MANIFEST = "manifest.parquet"
DONE, INCOMPLETE = "done", "failed"
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
    ]
)


def assemble_panorama(out: str, plan: Plan, failures: Iterable[Failure], version: str) -> dict[str, Any]:
    """Makes a panorama's files if its patches are all there; returns its row of the manifest.

    What is there already, whole and of this plan, stays. The JSON beside the files is written last.
    """
    reasons = sorted({f"{failure.part}: {failure.reason}" for failure in failures})
    try:
        reader = PatchReader(out, plan)
        missing = reader.missing()
        if missing:
            raise FileNotFoundError("; ".join([f"{missing} of {plan.tiles} patches are missing", *reasons]))
        record = write_files(out, plan, reader, version)
    except Exception as error:  # whatever it is, it is this panorama's state, and others go on
        return manifest_row(plan, INCOMPLETE, " ".join(str(error).split()) or type(error).__name__, {})
    finally:
        PANORAMAS_DONE.add()
    return manifest_row(plan, DONE, None, record)


def write_files(out: str, plan: Plan, reader: PatchReader, version: str) -> dict[str, Any]:
    """Makes those of a panorama's files that are not there yet, and the JSON beside them; returns that."""
    record = read_record(out, plan.request.id)
    if record.get("plan") != plan.digest:
        record = {}
    there = {name for name in record.get("files", {}) if exists(join(out, "panoramas", record["files"][name]))}
    wanted = [name for name in plan.request.formats if name not in there]
    if not wanted:
        return record
    columns = plan.shape[1]
    layout, checksum = plan.layout, record.get("pixel_sha256")

    def read_tile(row: int, column: int) -> Any:
        return reader.pixels(row * columns + column)

    metadata = {"Software": f"infinitygan {version}", "InfinityGAN": json.dumps(plan.to_json(), sort_keys=True)}
    for name in wanted:
        url = join(out, "panoramas", f"{plan.request.id}.{name}")
        checksum = write_panorama(name, url, layout, read_tile, metadata) or checksum
    record = {
        **plan.to_json(),
        "plan": plan.digest,
        "version": version,
        "width_px": plan.request.width_px,
        "height_px": plan.request.height_px,
        "files": {name: f"{plan.request.id}.{name}" for name in sorted(there | set(wanted))},
        "pixel_sha256": checksum or pixel_sha256(layout, read_tile),
        "seam_audit": record.get("seam_audit") or audit_seams(plan, reader.edges).to_json(),
    }
    write_json(record_path(out, plan.request.id), record)
    return record


def manifest_row(plan: Plan, state: str, reason: str | None, record: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of a request."""
    audit = record.get("seam_audit", {})
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
    }


def write_manifest(out: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Writes one row a request, by id, keeping those of earlier runs; returns the rows given, by id."""
    path = join(out, MANIFEST)
    given = sorted(rows, key=lambda row: row["id"])
    earlier = read_manifest(out) if exists(path) else []
    merged = {row["id"]: row for row in [*earlier, *given]}
    table = pa.Table.from_pylist([merged[key] for key in sorted(merged)], schema=MANIFEST_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_bytes(path, buffer.getvalue())
    return given


def read_manifest(out: str) -> list[dict[str, Any]]:
    """The manifest's rows, by id.

    Raises:
        InputError: the file is damaged, or no manifest of ours.
    """
    path = join(out, MANIFEST)
    content = read_bytes(path)
    try:
        return pq.read_table(io.BytesIO(content)).select(MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA).to_pylist()
    except (ValueError, KeyError, OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no manifest of render; remove it: {' '.join(str(error).split())}") from None


@dataclass(eq=False)
class AssemblePanoramas(beam.PTransform):
    """Makes each panorama when all its shards have been dealt with; outputs rows of the manifest.

    Takes the plans, the shards written or found, and the failures; only these small values are shuffled.
    """

    out: str
    version: str

    @no_annotations
    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection, beam.PCollection]) -> beam.PCollection:
        """Beam's hook."""
        plans, written, failures = inputs
        keyed = {
            "plans": plans | "Plans by id" >> beam.WithKeys(lambda plan: plan.request.id),
            "written": written | "Shards by id" >> beam.Map(shard_by_id),
            "failures": failures | "Failures by id" >> beam.WithKeys(lambda failure: failure.request_id),
        }
        return keyed | "Gather" >> beam.CoGroupByKey() | "Assemble" >> beam.Map(self._assemble)

    def _assemble(self, group: tuple[str, dict[str, Iterable[Any]]]) -> dict[str, Any]:
        (plan,) = group[1]["plans"]
        return assemble_panorama(self.out, plan, group[1]["failures"], self.version)


def shard_by_id(shard: PatchShard) -> tuple[str, str]:
    """A shard's name under its request's id: all that assembly waits for."""
    return shard.plan.request.id, shard.name
