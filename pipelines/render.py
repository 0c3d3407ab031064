"""Render: turns requests into panoramas.

requests -> plans -> shards of tiles -> patches -> patch shards -> panoramas -> manifest
"""

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
import typer
from apache_beam.options.pipeline_options import PipelineOptions

from model.config import GeneratorConfig
from model.version import __version__
from pipelines.terminal.beam_flags import beam_options, storage_errors
from pipelines.terminal.progress import track
from pipelines.terminal.render_tables import JobNote, show_cautions, show_estimate, show_refused, show_summary
from transforms.panoramas.folder import FOLDERS, begin, existing_shards, known_ids
from transforms.panoramas.manifest import DONE, FAILED, manifest_row, read_manifest, refused_row, write_manifest
from transforms.panoramas.patch_shards import NOT_WRITTEN, WritePatchShards
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import RenderRequest, write_requests
from transforms.render.assemble import PANORAMAS_DONE, PANORAMAS_FAILED, AssemblePanoramas
from transforms.render.estimate import estimate
from transforms.render.index_page import write_index
from transforms.render.options import RenderOptions
from transforms.render.planner import check_out, check_requests, make_plans
from transforms.render.repair import remove_damaged
from transforms.render.reuse import adopt_patches
from transforms.render.skip_stored import SkipStored
from transforms.render.synthesize import PATCHES_DONE, SynthesizePatches, time_tile
from transforms.render.tiles import Found, PlanTiles, is_known_complete, work_to_do
from transforms.storage.files import remove_leftovers
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried
from transforms.storage.tally import Tally

STORAGE_CALLS = 16
"""The number of concurrent storage calls while requests are prepared."""


def render(options: RenderOptions, beam_flags: PipelineOptions | None = None) -> list[dict[str, Any]]:
    """Renders all requests; returns their rows of the manifest, ordered by id.

    Raises:
        InputError: A request cannot be rendered. Nothing was written.
        OSError: Storage failed in a way that does not concern a single panorama.
    """
    check_out(options)
    planned = make_plans(options)
    planned.check(options.source)
    plans = list(planned.networks)
    show_cautions(plans)
    found = prepare(options, planned.networks)
    unfinished = [plan for plan in plans if not is_known_complete(options.out, plan, found)]
    refused = [refused_row(name, reason) for name, reason in planned.refused.items()]
    rows = [manifest_row(plan, FAILED, "not finished", {}) for plan in unfinished]
    write_manifest(options.out, rows + refused, anew=options.place(""))
    tiles = sum(work_to_do(options.out, plan, options.tiles_per_shard, found).tiles for plan in plans)
    for tally in (PATCHES_DONE, PANORAMAS_DONE, PANORAMAS_FAILED):
        tally.reset()
    with track("Tiles", tiles, lambda: PATCHES_DONE.count, JobNote(len(plans), options.tile_px)), storage_errors():
        run(options, plans, found, beam_flags or beam_options([]))
    ids = {plan.request.id for plan in plans} | planned.refused.keys()
    manifest = retried(read_manifest, options.out)
    retried(write_index, options.out, manifest)
    rows = [row for row in manifest if row["id"] in ids]
    if len(rows) < len(ids):
        raise OSError(f"another run wrote the manifest of {options.out} at the same time; run the command again")
    return rows


def prepare(options: RenderOptions, networks: Mapping[Plan, GeneratorConfig]) -> Found:
    """Writes the plans and cleans up the folder; returns what already exists."""
    known = retried(known_ids, options.out)
    if options.replace:
        for plan, config in networks.items():
            adopt_patches(options.out, plan, config)

    def write_down(plan: Plan) -> None:
        retried(begin, options.out, plan, plan.request.id in known)

    for _ in map_ahead(write_down, networks, threads=STORAGE_CALLS, ahead=2 * STORAGE_CALLS):
        pass
    retried(remove_leftovers, options.out, *FOLDERS)
    if not options.repair:
        return Found(known)
    shards = [
        shard for plan in networks if plan.request.id in known for shard in retried(existing_shards, options.out, plan)
    ]
    checked = Tally()
    with track("Shards checked", len(shards), lambda: checked.count):
        return Found(known, remove_damaged(options.out, shards, checked.add))


def run(options: RenderOptions, plans: Sequence[Plan], found: Found, beam_flags: PipelineOptions) -> None:
    """Builds the pipeline and runs it."""
    with beam.Pipeline(options=beam_flags) as pipeline:
        build(pipeline, options, plans, found)


def build(pipeline: beam.Pipeline, options: RenderOptions, plans: Sequence[Plan], found: Found) -> None:
    """Adds the steps of a job to a pipeline."""
    # All three use the accelerator: runners cut a pipeline where that changes, and pixels would cross the cut.
    hints = {"accelerator": options.accelerator} if options.accelerator else {}
    skip = SkipStored(options.out).with_resource_hints(**hints)
    synthesize = SynthesizePatches(options.model_copies).with_resource_hints(**hints)
    write = WritePatchShards(options.out).with_resource_hints(**hints)

    planned = pipeline | "Plans" >> beam.Create(random.sample(plans, len(plans)))
    shards = planned | "PlanTiles" >> PlanTiles(options.out, options.tiles_per_shard, found)
    patches, not_synthesized = shards | "SkipStored" >> skip | "SynthesizePatches" >> synthesize
    results = patches | "WritePatchShards" >> write
    failures = (not_synthesized, results[NOT_WRITTEN]) | "Failures" >> beam.Flatten()
    rows = (planned, results.written, failures) | "AssemblePanoramas" >> AssemblePanoramas(options.out, __version__)
    _ = (
        rows
        | "All rows" >> beam.combiners.ToList()
        | "Write manifest" >> beam.Map(lambda rows: write_manifest(options.out, rows))
    )


def render_written(
    options: RenderOptions, file: str, requests: Sequence[RenderRequest], flags: PipelineOptions
) -> None:
    """Writes requests to a file that `--requests` accepts, and renders those in the options.

    Raises:
        InputError: A request is invalid. Nothing was written.
    """
    check_requests(options)
    write_requests(file, requests)
    print(f"Requests written to {file}", file=sys.stderr)
    render_and_report(options, flags)


def render_and_report(options: RenderOptions, flags: PipelineOptions) -> None:
    """Renders, prints a summary, and exits with code 1 if something is missing."""
    rows = render(options, flags)
    show_summary(options.out, rows)
    if any(row["state"] != DONE for row in rows):
        raise typer.Exit(1)


def say_what_it_costs(options: RenderOptions) -> None:
    """Checks all requests and prints what rendering them would cost; writes nothing.

    Exits with code 2 if a request cannot be rendered.
    """
    check_out(options)
    planned = make_plans(options)
    if options.source:
        show_refused(planned.refused)
    planned.check(options.source)
    show_cautions(planned.networks)
    cost = estimate(options.out, planned.networks, options.tiles_per_shard)
    show_estimate(options.out, cost, time_tile(next(iter(planned.networks))) if cost.tiles else 0.0)
    if planned.refused:
        raise typer.Exit(2)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["render", *sys.argv[1:]])
