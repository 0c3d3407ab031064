"""Render: turns requests into panoramas.

requests -> plans -> shards of tiles -> patches -> patch shards and panoramas -> manifest
"""

import itertools
import operator
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import apache_beam as beam
import typer
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PBegin

from model.bundled import resolve
from model.version import __version__
from pipelines.terminal.job_records import JOB
from pipelines.terminal.jobs import is_detached, is_remote, job
from pipelines.terminal.progress import track
from pipelines.terminal.render_tables import JobNote, show_cautions, show_estimate, show_refused, show_summary
from transforms.panoramas.folder import FOLDERS, PLAN_FILE, begin, existing_shards, plan_folder
from transforms.panoramas.manifest import (
    DONE,
    ManifestRow,
    refused_row,
    stream_manifest,
    write_manifest,
)
from transforms.panoramas.plan import PatchShard, Plan
from transforms.panoramas.requests import RenderRequest, write_requests
from transforms.render.assemble import PANORAMAS_DONE, PANORAMAS_FAILED, AssembleRest
from transforms.render.estimate import estimate
from transforms.render.follow import followed
from transforms.render.index_page import write_index
from transforms.render.intake import first_row
from transforms.render.options import RenderOptions
from transforms.render.planner import Planned, make_plans
from transforms.render.publish import FAILURES, PublishShards
from transforms.render.repair import remove_damaged
from transforms.render.reuse import reuse_patches
from transforms.render.skip_stored import SkipStored
from transforms.render.synthesize import PATCHES_DONE, SynthesizePatches, time_tile
from transforms.render.work import STORAGE_CALLS, CutShards, Work, almost_in_order, remove_unused, survey
from transforms.storage.files import join, remove, remove_leftovers
from transforms.storage.prefetch import for_each
from transforms.storage.retry import retried
from transforms.storage.tally import Tally
from transforms.workers.sight import CheckSight, Sight, look


def render(options: RenderOptions, beam_flags: PipelineOptions | None = None) -> list[ManifestRow]:
    """Renders all requests; returns their rows of the manifest, ordered by id.

    Raises:
        InputError: A request cannot be rendered. Nothing was written.
        OSError: Storage failed in a way that does not concern a single panorama.
    """
    return render_plans(make_plans(options), beam_flags)


def render_plans(planned: Planned, beam_flags: PipelineOptions | None = None) -> list[ManifestRow]:
    """Renders the plans of a job; returns the rows of the manifest for all its requests, ordered by id.

    Raises:
        InputError: No request can be rendered. Nothing was written.
        OSError: Storage failed in a way that does not concern a single panorama.
    """
    options, plans = planned.options, list(planned.networks)
    planned.check_any()
    show_cautions(plans)
    work = start(planned)
    to_do = [each for each in work if not each.is_done]
    for tally in (PATCHES_DONE, PANORAMAS_DONE, PANORAMAS_FAILED):
        tally.reset()
    PANORAMAS_DONE.add(len(work) - len(to_do))
    tiles = sum(each.tiles for each in to_do)
    if to_do:
        sight = look(needs(options, to_do)) if is_remote(beam_flags) else None
        with (
            track("Tiles", tiles, lambda: PATCHES_DONE.count, JobNote(len(plans), len(work) - len(to_do))),
            followed(options.out, [each.plan for each in to_do]),
            job(beam_flags, options.out) as pipeline,
        ):
            build(pipeline, options, to_do, sight, is_detached(beam_flags))
    ids = {plan.request.id for plan in plans} | planned.refused.keys()
    write_index(options.out)
    rows = [row for row in stream_manifest(options.out) if row["id"] in ids]
    if len(rows) < len(ids):
        raise OSError(f"another run wrote the manifest of {options.out} at the same time; run the command again")
    return rows


class RenderPanoramas(beam.PTransform[beam.Pipeline | PBegin, beam.PCollection[ManifestRow]]):
    """Renders requests inside your own pipeline; apply it to a pipeline, or to its beginning.

    The folder is prepared when the transform is applied, and completed when the pipeline runs. Its output is the
    rows of the manifest of the panoramas that did not exist before. It does not write ``index.html``.

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
        planned = make_plans(self.options)
        planned.check_any()
        return build(start_of_pipeline, self.options, [each for each in start(planned) if not each.is_done])


def start(planned: Planned) -> list[Work]:
    """Writes the plans and the initial manifest; returns the work of each plan, whether done or not."""
    work = list(survey(planned, prepare(planned)))
    for_each(partial(remove_unused, planned.options), work, STORAGE_CALLS)
    rows = [*map(first_row, work), *itertools.starmap(refused_row, planned.refused.items())]
    rows.sort(key=operator.itemgetter("id"))
    write_manifest(planned.options.out, rows, anew=planned.options.place(""), left_out=planned.options.left_out())
    return work


def prepare(planned: Planned) -> Mapping[Plan, Sequence[PatchShard]]:
    """Writes the plans and cleans up the folder; returns the damaged shards that a repair has removed."""
    options = planned.options

    def write_down(plan: Plan) -> None:
        retried(begin, options.out, plan, planned.held.get(plan), options.stores_patches(plan))

    if options.replace:
        for plan, held in planned.held.items():
            reuse_patches(options.out, plan, held.others, planned.networks[plan])
    for_each(write_down, planned.networks, STORAGE_CALLS)
    retried(remove_leftovers, options.out, *FOLDERS)
    if not options.repair:
        return {}
    shards = [shard for plan in planned.held for shard in retried(existing_shards, options.out, plan)]
    checked = Tally()
    with track("Shards checked", len(shards), lambda: checked.count):
        return remove_damaged(options.out, shards, checked.add)


def needs(options: RenderOptions, work: Sequence[Work]) -> Iterator[str]:
    """Yields files that the workers of a job must see."""
    for plan in (each.plan for each in work):
        yield resolve(plan.checkpoint_url)
        yield from plan.request.definition.overlay_names
    yield join(plan_folder(options.out, work[0].plan), PLAN_FILE)


def build(
    pipeline: beam.Pipeline | PBegin,
    options: RenderOptions,
    work: Sequence[Work],
    sight: Sight | None = None,
    detached: bool = False,
) -> beam.PCollection[ManifestRow]:
    """Adds the steps of a job to a pipeline; returns the rows of the manifest that they make."""
    to_do = pipeline | "Work" >> beam.Create(list(almost_in_order(work))) | "CheckSight" >> CheckSight(sight)
    rows, _ = make_panoramas(to_do, options)
    _ = (
        rows
        | "All rows" >> beam.combiners.ToList()
        | "Write manifest" >> beam.Map(lambda rows: complete(options.out, rows, detached))
    )
    return rows


def make_panoramas(
    to_do: beam.PCollection[Work], options: RenderOptions
) -> tuple[beam.PCollection[ManifestRow], beam.PCollection[ManifestRow]]:
    """Adds the steps from work to panoramas; returns the rows of all of them, and early those that are finished."""
    # All three use the accelerator: runners cut a pipeline where that changes, and pixels would cross the cut.
    hints = {"accelerator": options.accelerator} if options.accelerator else {}
    skip = SkipStored(options.out, options.keep_patches).with_resource_hints(**hints)
    synthesize = SynthesizePatches(options.model_copies).with_resource_hints(**hints)
    publish = PublishShards(options.out, options.keep_patches, __version__).with_resource_hints(**hints)

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


def complete(out: str, rows: Iterable[ManifestRow], detached: bool) -> None:
    """Writes the manifest and, if the process that submitted the job is gone, what that would write at the end."""
    write_manifest(out, sorted(rows, key=operator.itemgetter("id")))
    if detached:
        write_index(out)
        remove(join(out, JOB))


def render_written(planned: Planned, file: str, requests: Sequence[RenderRequest], flags: PipelineOptions) -> None:
    """Writes requests to a file that `--requests` accepts, and renders the plans of a job.

    Raises:
        InputError: A request is invalid. Nothing was written.
    """
    planned.check_all()
    write_requests(file, requests)
    print(f"Requests written to {file}", file=sys.stderr)
    render_and_report(planned, flags)


def render_and_report(planned: Planned, flags: PipelineOptions) -> None:
    """Renders, prints a summary, and exits with code 1 if something is missing."""
    rows = render_plans(planned, flags)
    if not rows:
        print(f"No request belongs to slice {planned.options.slice}", file=sys.stderr)
        return
    show_summary(planned.options.out, rows)
    if any(row["state"] != DONE for row in rows):
        raise typer.Exit(1)


def say_what_it_costs(planned: Planned) -> None:
    """Prints what rendering the plans of a job would cost; writes nothing.

    Exits with code 2 if a request cannot be rendered.
    """
    if planned.options.source:
        show_refused(planned.refused)
    planned.check_any()
    show_cautions(planned.networks)
    cost = estimate(survey(planned), planned.networks)
    tile_s = time_tile(next(iter(planned.networks))) if cost.tiles else 0.0
    show_estimate(planned.options.out, cost, tile_s, (plan.request.scale for plan in planned.networks))
    if planned.refused:
        raise typer.Exit(2)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["render", *sys.argv[1:]])
