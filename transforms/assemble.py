"""Panoramas out of patches, when all of them are there."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.typehints.decorators import no_annotations

from model.errors import one_line
from transforms.formats import pixel_sha256, write_panorama
from transforms.manifest import DONE, FAILED, manifest_row
from transforms.patch_shards import PatchReader
from transforms.plan import Failure, PatchShard, Plan
from transforms.render_folder import is_complete, panorama_path, read_record, record_path
from transforms.seams import audit_seams
from transforms.storage import exists, write_json


def assemble_panorama(out: str, plan: Plan, failures: Iterable[Failure], version: str) -> dict[str, Any]:
    """Makes a panorama's files if its patches are all there; returns its row of the manifest.

    What is there already, whole and of this plan, stays. The JSON beside the files is written last.
    """
    reasons = sorted({f"{failure.part}: {failure.reason}" for failure in failures})
    if is_complete(out, plan):
        return manifest_row(plan, DONE, None, read_record(out, plan.request.id))
    try:
        reader = PatchReader(out, plan)
        missing = reader.missing()
        if missing:
            raise FileNotFoundError("; ".join([f"{missing} of {plan.tiles} patches are missing", *reasons]))
        record = write_files(out, plan, reader, version)
    except Exception as error:  # whatever it is, it is this panorama's state, and others go on
        return manifest_row(plan, FAILED, one_line(error), {})
    return manifest_row(plan, DONE, None, record)


def write_files(out: str, plan: Plan, reader: PatchReader, version: str) -> dict[str, Any]:
    """Makes those of a panorama's files that are not there yet, and the JSON beside them; returns that."""
    record = read_record(out, plan.request.id)
    if record.get("plan") != plan.digest:
        record = {}
    there = {name for name in record.get("files", {}) if exists(panorama_path(out, record["files"][name]))}
    wanted = [name for name in plan.request.formats if name not in there]
    columns = plan.shape[1]
    layout, checksum = plan.layout, record.get("pixel_sha256")

    def read_tile(row: int, column: int) -> Any:
        return reader.pixels(row * columns + column)

    metadata = {"Software": f"infinitygan {version}", "InfinityGAN": json.dumps(plan.to_json(), sort_keys=True)}
    for name in wanted:
        url = panorama_path(out, f"{plan.request.id}.{name}")
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
