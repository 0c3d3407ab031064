"""Assembles panoramas from patches when all of them exist."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.typehints.decorators import no_annotations

from model.errors import one_line
from transforms.formats.layout import cut_strips, with_digest
from transforms.formats.registry import is_written, write_panorama
from transforms.formats.thumbnail import Thumbnail, with_thumbnail
from transforms.panoramas.folder import (
    PanoramaRecord,
    behind_plan,
    panorama_path,
    plan_folder,
    read_record,
    record_path,
    thumbnail_path,
)
from transforms.panoramas.manifest import DONE, FAILED, ManifestRow, manifest_row
from transforms.panoramas.patch_shards import PatchReader
from transforms.panoramas.plan import REFERENCE, Failure, Plan
from transforms.panoramas.seams import SeamAudit, with_audit
from transforms.storage.fence import StaleRunError, check_current
from transforms.storage.files import filesystem, remove, write_bytes, write_json
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.tally import Tally

PANORAMAS_DONE, PANORAMAS_FAILED = Tally("panoramas"), Tally("panoramas that failed")


def assemble_panorama(
    out: str, plan: Plan, failures: Iterable[Failure], version: str, keep_patches: bool = True
) -> ManifestRow | None:
    """Writes a panorama's files if all its patches exist.

    Returns:
        Its row of the manifest; None if another plan has replaced it, which has a row of its own.
    """
    reasons = sorted({f"{failure.part}: {failure.reason}" for failure in failures})
    try:
        record = write_files(out, plan, PatchReader, reasons, version, keep_patches)
    except StaleRunError as error:
        say_once(str(error))
        return None
    except Exception as error:  # any error is recorded as this panorama's state, and the others go on
        PANORAMAS_FAILED.add()
        return manifest_row(plan, FAILED, one_line(error), {})
    PANORAMAS_DONE.add()
    return manifest_row(plan, DONE, None, record)


def write_files(
    out: str,
    plan: Plan,
    reader_of: Callable[[str, Plan], PatchReader],
    reasons: Sequence[str],
    version: str,
    keep_patches: bool,
) -> PanoramaRecord:
    """Writes the files of a panorama that are missing, then its record; returns the record.

    Patches that are not kept are removed last, even if a job that was killed has written the rest.

    Args:
        out: the folder of the job.
        plan: the plan of the panorama; files of another plan are written again.
        reader_of: returns the reader of the plan's patches; called if they are needed.
        reasons: the reasons why patches may be missing.
        version: the version of this package.
        keep_patches: whether to leave the patches on storage.

    Raises:
        FileNotFoundError: patches are missing.
    """
    out = behind_plan(out, plan)
    record = write_missing(out, plan, reader_of, reasons, version)
    if not keep_patches:
        retried(remove, plan_folder(out, plan))
    return record


def write_missing(
    out: str, plan: Plan, reader_of: Callable[[str, Plan], PatchReader], reasons: Sequence[str], version: str
) -> PanoramaRecord:
    """Does what `write_files` does, in a folder behind the plan's fence, but leaves the patches there."""
    record = retried(read_record, out, plan.request.id)
    files = record.get("files", {}) if record.get("plan") == plan.digest else {}
    files = {name: file for name, file in files.items() if retried(is_written, name, panorama_path(out, file))}
    wanted = [name for name in plan.request.formats if name not in files]
    if not wanted:
        return record
    retried(check_current, out, filesystem(out)[0])
    reader = reader_of(out, plan)
    missing = reader.missing()
    if missing:
        raise FileNotFoundError("; ".join([f"{missing} of {plan.tiles} patches are missing", *reasons]))
    for name in wanted:
        files[name] = f"{plan.request.id}.{name}"
        found = retried(write_file, name, panorama_path(out, files[name]), reader, version)
    written: dict[str, Any] = {
        **plan.provenance(),
        "plan": plan.digest,
        "version": version,
        "width_px": plan.request.width_px,
        "height_px": plan.request.height_px,
        "files": dict(sorted(files.items())),
        **found,
    }
    if plan.precision != REFERENCE:
        apart = reader.patch(plan.tiles // 2).difference
        written["precision_difference"] = dataclasses.asdict(apart) if apart else None
    retried(write_json, record_path(out, plan.request.id), written)
    return cast(PanoramaRecord, written)


def write_file(name: str, url: str, reader: PatchReader, version: str) -> dict[str, Any]:
    """Writes a file of a panorama in one pass over its patches; returns the pass's checksum and seam audit."""
    plan, audit, digest = reader.plan, SeamAudit(), hashlib.sha256()
    metadata = {"Software": f"infinitygan {version}", "InfinityGAN": json.dumps(plan.provenance(), sort_keys=True)}
    patches = with_audit(plan, reader.patches(), audit)
    thumbnail = Thumbnail(plan.request.width_px, plan.request.height_px)
    strips = with_digest(cut_strips(plan.layout, (patch.pixels for patch in patches)), digest)
    write_panorama(name, url, plan.layout, with_thumbnail(strips, thumbnail), metadata)
    retried(write_bytes, thumbnail_path(reader.out, plan.request.id), thumbnail.to_jpeg())
    return {"pixel_sha256": digest.hexdigest(), "seam_audit": audit.to_json()}


Inputs = tuple[beam.PCollection[Plan], beam.PCollection[ManifestRow], beam.PCollection[Failure]]


@dataclass(eq=False)
class AssembleRest(beam.PTransform[Inputs, beam.PCollection[ManifestRow]]):
    """Assembles the panoramas that have not been assembled when all shards are finished; outputs rows of the manifest.

    The inputs are the plans, the rows of the panoramas that have been assembled, and the failures.
    """

    out: str
    keep_patches: bool
    version: str

    @no_annotations
    def expand(self, inputs: Inputs) -> beam.PCollection[ManifestRow]:
        """Applies the transform; called by Beam."""
        plans, rows, failures = inputs
        keyed = {
            "plans": plans | "Plans by id" >> beam.WithKeys(lambda plan: plan.request.id),
            "rows": rows | "Rows by id" >> beam.WithKeys(lambda row: row["id"]),
            "failures": failures | "Failures by id" >> beam.WithKeys(lambda failure: failure.request_id),
        }
        return keyed | "Gather" >> beam.CoGroupByKey() | "Assemble" >> beam.FlatMap(self._assemble)

    def _assemble(self, group: tuple[str, dict[str, Iterable[Any]]]) -> Iterator[ManifestRow]:
        plan, *_ = group[1]["plans"]  # a stream may ask for it again
        for row in group[1]["rows"]:
            yield row
            return
        made = assemble_panorama(self.out, plan, group[1]["failures"], self.version, self.keep_patches)
        if made is not None:
            Metrics.counter("infinitygan_render", f"panoramas_{made['state']}").inc()
            yield made
