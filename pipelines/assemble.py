"""Assemble: writes panoramas in other formats from their stored patches, without rendering.

manifest -> plans -> panoramas -> manifest
"""

import operator
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from model.errors import InputError
from model.version import __version__
from pipelines.terminal.job_folders import folder_of_job
from pipelines.terminal.jobs import is_detached, is_remote, job
from pipelines.terminal.progress import track
from pipelines.terminal.render_tables import show_cautions
from transforms.formats.registry import FORMATS
from transforms.panoramas.folder import stored_plan
from transforms.panoramas.manifest import MANIFEST, ManifestRow, stream_manifest, write_manifest
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import cautions
from transforms.render.assemble import PANORAMAS_DONE, PANORAMAS_FAILED, assemble_panorama
from transforms.render.index_page import write_index
from transforms.storage.files import exists, join, remove
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.runs import Runs
from transforms.workers.listed import ReadListed
from transforms.workers.sight import CheckSight, look


def assemble(
    out: str, formats: Sequence[str], ids: Sequence[str] = (), beam_flags: PipelineOptions | None = None
) -> list[ManifestRow]:
    """Writes panoramas in other formats from their patches; returns their rows of the manifest, ordered by id.

    Args:
        out: The folder of a render job.
        formats: The formats to add to those that exist.
        ids: The ids of the panoramas; empty for all.
        beam_flags: The options of the Beam runner.

    Raises:
        InputError: There is no such panorama, or a format cannot hold one. Nothing was written.
    """
    plans = plans_to_assemble(out, formats, ids)
    show_cautions(Counter(caution for plan in plans for caution in cautions(plan.request)))
    for tally in (PANORAMAS_DONE, PANORAMAS_FAILED):
        tally.reset()
    with (
        folder_of_job(out, beam_flags) as folder,
        track("Panoramas", len(plans), lambda: PANORAMAS_DONE.count + PANORAMAS_FAILED.count),
        job(beam_flags, out) as pipeline,
    ):
        build(pipeline, out, formats, plans, folder.url, is_remote(beam_flags), is_detached(beam_flags))
    write_index(out)
    wanted = {plan.request.id for plan in plans}
    return [row for row in stream_manifest(out) if row["id"] in wanted]


def build(
    pipeline: beam.Pipeline,
    out: str,
    formats: Sequence[str],
    plans: Sequence[Plan],
    folder: str,
    remote: bool,
    detached: bool,
) -> None:
    """Adds the steps of the job to a pipeline; its panoramas are listed in the folder of the job."""
    keys: Runs[tuple[str, str]] = Runs(folder, operator.itemgetter(0), list, tuple)
    listed = keys.write((plan.request.id, plan.digest) for plan in plans)

    def assembled(key: tuple[str, str]) -> Iterator[ManifestRow]:
        try:
            plan = retried(stored_plan, out, *key, formats)
        except InputError as error:  # another run has replaced it since it was listed
            say_once(str(error))
            return
        row = assemble_panorama(out, plan, (), __version__)
        if row is not None:
            yield row

    def finish(rows: list[ManifestRow]) -> None:
        write_manifest(out, sorted(rows, key=operator.itemgetter("id")))
        if detached:
            retried(remove, folder)

    _ = (
        pipeline
        | "Panoramas" >> ReadListed(keys, listed)
        | CheckSight(look([listed, join(out, MANIFEST)]) if remote else None)
        | "Assemble" >> beam.FlatMap(assembled)
        | "All rows" >> beam.combiners.ToList()
        | "Write manifest" >> beam.Map(finish)
    )


def plans_to_assemble(out: str, formats: Sequence[str], ids: Sequence[str]) -> list[Plan]:
    """Returns the plans of panoramas, each with all the formats it will have."""
    if not formats:
        raise InputError(f"--format is missing; give one or more of {', '.join(FORMATS)}")
    if not retried(exists, join(out, MANIFEST)):
        raise InputError(f"{out} does not contain {MANIFEST}; give the --out of a render job")
    digests = {row["id"]: row["plan"] for row in stream_manifest(out) if row["plan"]}
    if not digests:
        raise InputError(f"{out} does not contain a panorama; render one first")
    unknown = sorted(set(ids) - set(digests))
    if unknown:
        raise InputError(f"--id {unknown[0]}: {join(out, MANIFEST)} does not list this panorama")
    wanted = [(key, digest) for key, digest in digests.items() if not ids or key in ids]
    return [retried(stored_plan, out, key, digest, formats) for key, digest in wanted]


if __name__ == "__main__":
    from pipelines.cli import main

    main(["assemble", *sys.argv[1:]])
