"""Render: turns requests into panoramas.

requests -> plans -> shards of tiles -> patches -> patch shards and panoramas -> manifest
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import apache_beam as beam
import typer
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PBegin
from apache_beam.typehints.decorators import no_annotations

from model.bundled import resolve
from model.version import __version__
from pipelines.terminal.job_folders import folder_of_job
from pipelines.terminal.job_records import JOB
from pipelines.terminal.jobs import is_detached, is_remote, is_template
from pipelines.terminal.jobs import job as beam_job
from pipelines.terminal.progress import track
from pipelines.terminal.render_tables import JobNote, Summary, show_cautions, show_estimate, show_refused, show_summary
from transforms.panoramas.folder import FOLDERS
from transforms.panoramas.manifest import ManifestRow, write_manifest
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import RenderRequest, RequestFile, cautions, write_requests
from transforms.render.assemble import PANORAMAS_DONE, PANORAMAS_FAILED, AssembleRest
from transforms.render.estimate import Estimate, total
from transforms.render.find_work import FindWork, TakeRequests
from transforms.render.follow import followed
from transforms.render.index_page import write_index
from transforms.render.intake import CAUTIONS, DONE_BEFORE, TAKEN, TILES_TO_MAKE, planner_of
from transforms.render.job_folder import JobFolder, Merged, StoreRows, new_job_folder
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner, check_any
from transforms.render.publish import FAILURES, PublishShards
from transforms.render.skip_stored import SkipStored
from transforms.render.synthesize import PATCHES_DONE, SynthesizePatches, time_tile
from transforms.render.work import CutShards, Work
from transforms.storage.files import join, remove, remove_leftovers
from transforms.storage.retry import retried
from transforms.workers.sight import Sight, look


def render(options: RenderOptions, beam_flags: PipelineOptions | None = None) -> list[ManifestRow]:
    """Renders all requests; returns their rows of the manifest, ordered by id.

    Raises:
        InputError: No request can be rendered. Nothing was written.
        OSError: Storage failed in a way that does not concern a single panorama.
    """
    with rendered(options, beam_flags) as rows:
        return list(rows)


@contextmanager
def rendered(
    options: RenderOptions, beam_flags: PipelineOptions | None = None, planner: Planner | None = None
) -> Iterator[Iterator[ManifestRow]]:
    """Renders all requests; yields their rows of the manifest, ordered by id.

    Args:
        options: The options of the job.
        beam_flags: Beam's options.
        planner: The planner that has checked the requests, if one has.

    Raises:
        InputError: No request can be rendered. Nothing was written.
        OSError: Storage failed in a way that does not concern a single panorama.
    """
    planner = planner or Planner()
    first = check_any(options, planner)
    with folder_of_job(options.out, beam_flags) as job:
        planner_of(job.url, planner)
        file = job.store(options.requests, is_remote(beam_flags))
        shown = set(cautions(first.request)) if first else set()
        show_cautions(dict.fromkeys(shown, 1))
        run(options, file, job, first, beam_flags)
        show_cautions(
            {caution: count for caution, count in CAUTIONS.named().items() if count > 1 or caution not in shown}
        )
        if TAKEN.count > TAKEN.named().get(DONE_BEFORE, 0):  # where nothing was left to do, nothing is left to clean
            retried(remove_leftovers, options.out, *FOLDERS)
        if is_template(beam_flags):
            yield iter(())
        else:
            write_index(options.out)
            yield job.rows(options.out)


def run(
    options: RenderOptions, file: RequestFile, job: JobFolder, first: Plan | None, flags: PipelineOptions | None
) -> None:
    """Runs the job, and shows its progress.

    Args:
        options: The options of the job.
        file: Its requests, as workers read them.
        job: Its folder.
        first: One of its plans, if there is one.
        flags: Beam's options.
    """
    for tally in (PATCHES_DONE, PANORAMAS_DONE, PANORAMAS_FAILED, TAKEN, TILES_TO_MAKE, CAUTIONS):
        tally.reset()
    sight = look(needs(file, first)) if is_remote(flags) and first is not None else None
    with (
        track("Tiles", lambda: TILES_TO_MAKE.count, lambda: PATCHES_DONE.count, JobNote()),
        followed(options.out, job),
        beam_job(flags, options.out) as pipeline,
    ):
        rows = build(pipeline, options, file, job, sight)
        completed = complete(pipeline, rows, options.out, job)
        if is_detached(flags):
            _ = completed | "Finish" >> beam.Map(lambda _: finish_detached(options.out, job))


class RenderPanoramas(beam.PTransform[beam.Pipeline | PBegin, beam.PCollection[ManifestRow]]):
    """Renders requests inside your own pipeline; apply it to a pipeline, or to its beginning.

    The requests are stored in the folder when the transform is applied; everything else happens when the pipeline runs.
    Its output is the rows of the manifest of the panoramas that did not exist before. It does not write ``index.html``.

    Args:
        options: The options of the render job.

    Raises:
        InputError: No request can be rendered. Nothing was written.
    """

    def __init__(self, options: RenderOptions):
        super().__init__()
        self.options = options

    def expand(self, start_of_pipeline: beam.Pipeline | PBegin) -> beam.PCollection[ManifestRow]:
        """Adds the steps of the job to the pipeline."""
        job = new_job_folder(self.options.out)
        check_any(self.options, planner_of(job.url))
        file = job.store(self.options.requests, copies=True)
        rows = build(start_of_pipeline, self.options, file, job)
        completed = complete(start_of_pipeline, rows, self.options.out, job)
        _ = completed | "Remove the job's folder" >> beam.Map(lambda _: retried(remove, job.url))
        return rows


def needs(file: RequestFile, plan: Plan) -> Iterator[str]:
    """Yields files that the workers of a job must see."""
    yield file.stored_at or file.url
    yield resolve(plan.checkpoint_url)
    yield from plan.request.definition.overlay_names


def build(
    pipeline: beam.Pipeline | PBegin,
    options: RenderOptions,
    file: RequestFile,
    job: JobFolder,
    sight: Sight | None = None,
) -> beam.PCollection[ManifestRow]:
    """Adds the steps of a job to a pipeline; returns the rows of the manifest that they make."""
    to_do = pipeline | "FindWork" >> FindWork(TakeRequests(options.without_requests(), file, job, sight=sight))
    rows, _ = make_panoramas(to_do, options, job)
    return rows


def make_panoramas(
    to_do: beam.PCollection[Work], options: RenderOptions, job: JobFolder | None = None
) -> tuple[beam.PCollection[ManifestRow], beam.PCollection[ManifestRow]]:
    """Adds the steps from work to panoramas; returns the rows of all of them, and early those that are finished.

    The early rows are also in the log of the job's folder, if there is one.
    """
    # All three use the accelerator: runners cut a pipeline where that changes, and pixels would cross the cut.
    hints = {"accelerator": options.accelerator} if options.accelerator else {}
    skip = SkipStored(options.out, options.keep_patches).with_resource_hints(**hints)
    synthesize = SynthesizePatches(options.model_copies).with_resource_hints(**hints)
    publish = PublishShards(options.out, options.keep_patches, __version__, job).with_resource_hints(**hints)

    plans = to_do | "Plans" >> beam.Map(lambda each: each.plan)
    patches, not_synthesized = (
        to_do | "CutShards" >> CutShards() | "SkipStored" >> skip | "SynthesizePatches" >> synthesize
    )
    published = patches | "PublishShards" >> publish
    failures = (not_synthesized, published[FAILURES]) | "Failures" >> beam.Flatten()
    rows = (plans, published.rows, failures) | "AssembleRest" >> AssembleRest(
        options.out, options.keep_patches, __version__
    )
    return rows, published.rows


def complete(
    pipeline: beam.Pipeline | PBegin, rows: beam.PCollection[ManifestRow], out: str, job: JobFolder
) -> beam.PCollection[None]:
    """Adds the steps that complete the manifest; returns one element, once that is done."""
    runs = rows | "Store rows" >> beam.ParDo(StoreRows(job)) | "View runs" >> beam.Map(lambda url: url)
    completed: beam.PCollection[None] = (
        pipeline
        | "Once at the end" >> beam.Impulse()
        | "Complete" >> beam.Map(complete_manifest, beam.pvalue.AsIter(runs), out, job)
    )
    return completed


@no_annotations
def complete_manifest(_: bytes, runs: Iterable[str], out: str, job: JobFolder) -> None:
    """Adds the rows of all panoramas that were made to the manifest."""
    write_manifest(out, Merged(job.made, frozenset(runs)))


def finish_detached(out: str, job: JobFolder) -> None:
    """Ends a job whose submitter is gone."""
    write_index(out)
    remove(join(out, JOB))
    retried(remove, job.url)


def render_written(
    options: RenderOptions, planner: Planner, file: str, requests: Sequence[RenderRequest], flags: PipelineOptions
) -> None:
    """Writes requests to a file that `--requests` accepts, and renders those of the options.

    Args:
        options: The options of the job.
        planner: The planner that has checked its requests.
        file: The URL of the file.
        requests: The content of the file.
        flags: Beam's options.
    """
    write_requests(file, requests)
    print(f"Requests written to {file}", file=sys.stderr)
    render_and_report(options, flags, planner)


def render_and_report(options: RenderOptions, flags: PipelineOptions, planner: Planner | None = None) -> None:
    """Renders, prints a summary, and exits with code 1 if something is missing."""
    with rendered(options, flags, planner) as rows:
        summary = Summary.of(rows)
    if summary.count:
        show_summary(options.out, summary)
    elif options.slice:
        print(f"No request belongs to slice {options.slice}", file=sys.stderr)
    else:
        print("Nothing is rendered before the template is run", file=sys.stderr)
    if summary.done < summary.count or not (summary.count or options.slice):
        raise typer.Exit(1)


def say_what_it_costs(options: RenderOptions) -> None:
    """Prints what rendering the requests would cost; writes nothing.

    Exits with code 2 if a request cannot be rendered.
    """
    CAUTIONS.reset()
    costs: list[dict[str, Any]] = []
    refused = 0
    with TemporaryDirectory() as folder:
        job = JobFolder(folder)
        planner = planner_of(job.url)
        with beam_job(None, folder) as pipeline:
            file = job.store(options.requests, copies=False)
            _ = pipeline | TakeRequests(options.without_requests(), file, job, begins=False)
        for each in job.requests():
            if "estimate" in each:
                costs.append(each)
            else:
                refused += 1
                if isinstance(options.requests, RequestFile):
                    show_refused(each["name"], each["reason"])
    first = check_any(options, planner)
    show_cautions(CAUTIONS.named())
    cost = total(Estimate(**each["estimate"]) for each in costs)
    tile_s = time_tile(first) if first and cost.tiles else 0.0
    show_estimate(options.out, cost, tile_s, {scale for each in costs for scale in each["scales"]})
    if refused:
        raise typer.Exit(2)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["render", *sys.argv[1:]])
