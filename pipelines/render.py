"""Render: requests in, panoramas out.

requests -> plans -> shards of tiles -> patches -> patch shards -> panoramas -> manifest
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated, Any

import apache_beam as beam
import typer
from apache_beam.options.pipeline_options import PipelineOptions

from model.bundled import BUNDLED, resolve
from model.checkpoint import load_checkpoint
from model.config import GeneratorConfig, check_tileable
from model.definition import Definition, check_definition
from model.engine import PRECISIONS
from model.errors import InputError
from model.overlay import Overlay, check_overlay
from model.version import __version__
from pipelines.options import beam_options, own_flags, storage_errors
from pipelines.progress import track
from pipelines.render_tables import JobNote, show_estimate, show_summary
from transforms.adopt import adopt_patches
from transforms.ahead import map_ahead
from transforms.assemble import PANORAMAS_DONE, PANORAMAS_FAILED, AssemblePanoramas
from transforms.estimate import estimate
from transforms.formats import FORMATS
from transforms.index_page import write_index
from transforms.manifest import DONE, FAILED, MANIFEST, manifest_row, read_manifest, write_manifest
from transforms.overlays import read_overlay
from transforms.patch_shards import NOT_WRITTEN, WritePatchShards
from transforms.plan import MOST_TILES_PER_SHARD, REFERENCE, Plan
from transforms.plan_tiles import Found, PlanTiles, shards_to_do
from transforms.render_folder import PANORAMAS, begin, check_plan, existing_shards, is_complete, known_ids
from transforms.repair import remove_damaged
from transforms.requests import RenderRequest, check_ids, read_requests, write_requests
from transforms.retry import retried
from transforms.storage import exists, filesystem, join, remove_leftovers
from transforms.synthesize import PATCHES_DONE, SynthesizePatches, time_tile
from transforms.tally import Tally

STORAGE_CALLS = 16
"""That are under way at the same time while requests are prepared."""

MOST_SHARD_PX = 2**28


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """What a person asks of a render job.

    Attributes:
        requests: the panoramas.
        out: URL of the folder for everything.
        checkpoint: URL of the generator for requests that name none; None for the bundled one.
        tile_px: side of a tile.
        tiles_per_shard: how many patches go into one file.
        replace: render panoramas anew whose id is known under another plan.
        repair: check the shards that are there, and make the bad ones again.
        precision: of the network's convolutions.
    """

    requests: tuple[RenderRequest, ...]
    out: str
    checkpoint: str | None = None
    tile_px: int = 256
    tiles_per_shard: int = 16
    replace: bool = False
    precision: str = REFERENCE
    repair: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision {self.precision}: choose {', '.join(PRECISIONS)}")
        if not 1 <= self.tiles_per_shard <= MOST_TILES_PER_SHARD:
            raise InputError(f"--tiles-per-shard {self.tiles_per_shard}: give 1 to {MOST_TILES_PER_SHARD}")
        if self.tiles_per_shard * self.tile_px**2 > MOST_SHARD_PX:
            raise InputError(
                f"--tiles-per-shard {self.tiles_per_shard} of --tile {self.tile_px}: a shard, which a worker holds in "
                f"memory, may have {MOST_SHARD_PX} pixels at the most; make one of the two smaller"
            )
        if not self.out:
            raise InputError("--out is empty; give a folder or URL")
        check_ids(self.requests)


def render(options: RenderOptions, beam_flags: PipelineOptions | None = None) -> list[dict[str, Any]]:
    """Renders all requests; returns their rows of the manifest, by id.

    Raises:
        InputError: something asked for cannot be; nothing was written.
        OSError: storage failed where it is no single panorama's matter.
    """
    check_out(options)
    networks = make_plans(options)
    plans = list(networks)
    found = prepare(options, networks)
    unfinished = [
        plan for plan in plans if plan.request.id not in found.known or not retried(is_complete, options.out, plan)
    ]
    write_manifest(options.out, [manifest_row(plan, FAILED, "not finished", {}) for plan in unfinished])
    tiles = sum(
        len(shard.indices)
        for plan in plans
        for shard in shards_to_do(options.out, plan, options.tiles_per_shard, found)
    )
    for tally in (PATCHES_DONE, PANORAMAS_DONE, PANORAMAS_FAILED):
        tally.reset()
    with track("Tiles", tiles, lambda: PATCHES_DONE.count, JobNote(len(plans), options.tile_px)), storage_errors():
        run(options, plans, found, beam_flags or beam_options([]))
    ids = {plan.request.id for plan in plans}
    manifest = retried(read_manifest, options.out)
    retried(write_index, options.out, manifest)
    rows = [row for row in manifest if row["id"] in ids]
    if len(rows) < len(ids):
        raise OSError(f"another run wrote the manifest of {options.out} at the same time; run again")
    return rows


def prepare(options: RenderOptions, networks: Mapping[Plan, GeneratorConfig]) -> Found:
    """Writes the plans down and tidies the folder up; says what is there."""
    known = retried(known_ids, options.out)
    if options.replace:
        for plan, config in networks.items():
            adopt_patches(options.out, plan, config)

    def write_down(plan: Plan) -> None:
        retried(begin, options.out, plan, plan.request.id in known)

    for _ in map_ahead(write_down, networks, threads=STORAGE_CALLS, ahead=2 * STORAGE_CALLS):
        pass
    for folder in (join(options.out, PANORAMAS), options.out):
        retried(remove_leftovers, folder)
    if not options.repair:
        return Found(known)
    shards = [
        shard for plan in networks if plan.request.id in known for shard in retried(existing_shards, options.out, plan)
    ]
    checked = Tally()
    with track("Shards checked", len(shards), lambda: checked.count):
        return Found(known, remove_damaged(options.out, shards, checked.add))


def run(options: RenderOptions, plans: Sequence[Plan], found: Found, beam_flags: PipelineOptions) -> None:
    """Builds the pipeline and runs it to its end."""
    with beam.Pipeline(options=beam_flags) as pipeline:
        planned = pipeline | "Plans" >> beam.Create(plans)
        shards = planned | "PlanTiles" >> PlanTiles(options.out, options.tiles_per_shard, found)
        patches, not_synthesized = shards | "SynthesizePatches" >> SynthesizePatches()
        results = patches | "WritePatchShards" >> WritePatchShards(options.out)
        failures = (not_synthesized, results[NOT_WRITTEN]) | "Failures" >> beam.Flatten()
        rows = (planned, results.written, failures) | "AssemblePanoramas" >> AssemblePanoramas(options.out, __version__)
        _ = (
            rows
            | "All rows" >> beam.combiners.ToList()
            | "Write manifest" >> beam.Map(lambda rows: write_manifest(options.out, rows))
        )


def check_out(options: RenderOptions) -> None:
    """Raises InputError if the folder for everything is a file, or holds a manifest that is none."""
    fs, path = filesystem(options.out)
    if retried(fs.isfile, path):
        raise InputError(f"--out {options.out} is a file; give a folder or URL")
    if retried(exists, join(options.out, MANIFEST)):
        retried(read_manifest, options.out)


def make_plans(options: RenderOptions) -> dict[Plan, GeneratorConfig]:
    """A plan for each request, with the network that it is for.

    Raises:
        InputError: a checkpoint is missing or is none, the tile or the world does not fit it, or an id is known under
            another plan.
    """

    @cache
    def checkpoint(url: str) -> tuple[str, GeneratorConfig]:
        fs, path = filesystem(resolve(url))
        if not retried(fs.isfile, path):
            raise InputError(f"checkpoint {url}: there is no such file")
        found = load_checkpoint(retried(fs.cat_file, path), url)
        check_tileable(found.generator.config, url)
        return found.sha256, found.generator.config

    overlay = lru_cache(maxsize=2)(read_overlay)  # most requests have those of the one before
    plans, known = {}, retried(known_ids, options.out)
    for request in options.requests:
        url = request.checkpoint or options.checkpoint or BUNDLED
        sha256, config = checkpoint(url)
        cell_px = config.cell_px
        if options.tile_px < 1 or options.tile_px % cell_px or options.tile_px > 4096:
            raise InputError(f"--tile {options.tile_px}: give a multiple of {cell_px}, the network's cell, up to 4096")
        try:
            check_definition(request.definition, config)
            overlays = overlay_checksums(request.definition, config, sha256, overlay)
        except InputError as error:
            raise InputError(f"request {request.id}: {error}") from None
        plan = Plan(request, url, sha256, options.tile_px, options.precision, overlays)
        if not options.replace and request.id in known:
            retried(check_plan, options.out, plan)
        plans[plan] = config
    return plans


def overlay_checksums(
    definition: Definition, config: GeneratorConfig, checkpoint_sha256: str, read: Callable[[str], Overlay]
) -> tuple[str, ...]:
    """The sha256 of each overlay of a world, as `read` finds it.

    Raises:
        InputError: one is missing, damaged, or of another checkpoint or coordinate law.
    """
    checksums = []
    for name in definition.overlay_names:
        overlay = read(name)
        check_overlay(overlay, name, config, definition.cyclic_px, checkpoint_sha256)
        checksums.append(overlay.sha256)
    return tuple(checksums)


def render_command(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder or URL for patches, panoramas and manifest.")],
    checkpoint: Annotated[str | None, typer.Option(help="Generator, .safetensors.", show_default="bundled")] = None,
    seed: Annotated[int, typer.Option(help="Which world.")] = 7,
    width: Annotated[int, typer.Option(help="Width, px.")] = 8192,
    height: Annotated[int, typer.Option(help="Height, px.")] = 512,
    origin: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="World pixel of the top left corner.", show_default="0,-height/2"),
    ] = None,
    cyclic: Annotated[bool, typer.Option("--cyclic", help="Its right end meets its left.")] = False,
    requests: Annotated[
        str | None, typer.Option(metavar="FILE", help="Many panoramas: .jsonl, .csv or .parquet, a request a row.")
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile, px; a multiple of the network's cell.")] = 256,
    tiles_per_shard: Annotated[int, typer.Option(help="Patches in one file.")] = 16,
    format: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(FORMATS)}; may be repeated.", show_default="png")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Render ids anew that have another plan.")] = False,
    precision: Annotated[str, typer.Option(help=f"Of the convolutions: {', '.join(PRECISIONS)}.")] = REFERENCE,
    repair: Annotated[bool, typer.Option("--repair", help="Check the shards there are; make bad ones again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all requests, say what they cost, stop.")] = False,
) -> None:
    """Renders panoramas of any size, tile by tile; run again, it does only what is missing."""
    if requests:
        refuse_beside_requests(context)
        asked = read_requests(requests)
    else:
        x_px, y_px = parse_origin(origin)
        name = f"seed-{seed}_{width}x{height}" + (f"_at_{x_px}_{y_px}" if origin else "") + "_cyclic" * cyclic
        values = {"id": name, "seed": seed, "width_px": width, "height_px": height, "formats": format or ["png"]}
        values |= {"origin_x_px": x_px, "origin_y_px": y_px, "cyclic": cyclic}
        asked = [RenderRequest.from_json(values)]
    flags = beam_options(context.args, own_flags(context))
    options = RenderOptions(tuple(asked), out, checkpoint, tile, tiles_per_shard, replace, precision, repair)
    if dry_run:
        say_what_it_costs(options)
        return
    render_and_report(options, flags)


def render_written(
    options: RenderOptions, file: str, requests: Sequence[RenderRequest], flags: PipelineOptions
) -> None:
    """Writes requests down, as a file for `--requests`, and renders those of the options.

    Raises:
        InputError: something is wrong with them; nothing was written.
    """
    make_plans(options)
    write_requests(file, requests)
    print(f"What is asked for stands in {file}", file=sys.stderr)
    render_and_report(options, flags)


def render_and_report(options: RenderOptions, flags: PipelineOptions) -> None:
    """Renders, says what came of it, and exits with code 1 if something is missing."""
    rows = render(options, flags)
    show_summary(options.out, rows)
    if any(row["state"] != DONE for row in rows):
        raise typer.Exit(1)


def say_what_it_costs(options: RenderOptions) -> None:
    """Checks all requests and prints what rendering them would do; writes nothing."""
    check_out(options)
    networks = make_plans(options)
    cost = estimate(options.out, networks, options.tiles_per_shard)
    show_estimate(options.out, cost, time_tile(next(iter(networks))) if cost.tiles else 0.0)


def refuse_beside_requests(context: typer.Context) -> None:
    """Raises InputError for a flag that the rows of --requests would overrule without a word."""
    for name in ("seed", "width", "height", "origin", "cyclic", "format"):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise InputError(f"--{name} stands beside --requests, whose rows say that: give one of the two")


def parse_origin(text: str | None) -> tuple[int, int | None]:
    """X,Y as numbers."""
    if text is None:
        return 0, None
    try:
        x_px, y_px = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--origin {text}: give two whole numbers, such as --origin 0,-256") from None
    return x_px, y_px


if __name__ == "__main__":
    from pipelines.cli import main

    main(["render", *sys.argv[1:]])
