"""The flags of ``infinitygan render``."""

import os
import sys
from typing import Annotated, Any

import typer

from model.world.definition import LOCAL_TRUNCATION
from pipelines.terminal.flags import (
    Checkpoint,
    Formats,
    KeepPatches,
    LocalTruncation,
    Quiet,
    RenderFolder,
    RenderPrecision,
    Replace,
    Scale,
    Tile,
    Truncation,
    beam_flags,
    scaled,
    tile_px,
    truncated,
    whole_numbers,
)
from transforms.render.slices import AUTO, Slice, array_task, parse_slice

FIELDS = {
    "seed": ("seed",),
    "width": ("width_px",),
    "height": ("height_px",),
    "origin": ("origin_x_px", "origin_y_px"),
    "cyclic": ("cyclic",),
    "truncation": ("truncation",),
    "local_truncation": ("local_truncation",),
    "journey": ("journey",),
    "scale": ("scale",),
    "format": ("formats",),
}
"""The fields of a request that flags give. With --requests they are defaults for rows that omit them."""

PANELS = {
    "The panorama": tuple(flag for flag in FIELDS if flag != "format"),
    "Many panoramas": ("requests", "slice", "watch"),
    "Computation": ("tile", "tiles_per_shard", "precision", "accelerator", "model_copies"),
}
"""The panels of the help page, and the parameters in each; the others are in the first."""


def render(
    context: typer.Context,
    out: RenderFolder,
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 23,
    width: Annotated[int, typer.Option(help="Width of the panorama in pixels.")] = 8192,
    height: Annotated[int, typer.Option(help="Height of the panorama in pixels.")] = 512,
    origin: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="World pixel of the panorama's top left corner.", show_default="0,-height/2"),
    ] = None,
    cyclic: Annotated[bool, typer.Option("--cyclic", help="Make the right end continue into the left.")] = False,
    scale: Scale = 1,
    truncation: Truncation = 1.0,
    local_truncation: LocalTruncation = LOCAL_TRUNCATION,
    journey: Annotated[
        int | None,
        typer.Option(
            metavar="PX", help="Let the style drift along x, with a new one in each PX pixels.", show_default="no"
        ),
    ] = None,
    requests: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Render many panoramas: a .jsonl, .csv or .parquet file with one request per row."
        ),
    ] = None,
    slice: Annotated[
        str | None,
        typer.Option(
            metavar="N/COUNT|auto",
            help="Render only this part of the requests, such as 3/16; auto takes it from the task of a Slurm array or "
            "of a Kubernetes Indexed Job.",
            show_default="all",
        ),
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Keep rendering the files of requests that arrive in a folder, until interrupted."
        ),
    ] = None,
    tile: Tile = None,
    tiles_per_shard: Annotated[
        int | None, typer.Option(help="Number of patches in each shard.", show_default="about a million pixels")
    ] = None,
    format: Formats = None,
    replace: Replace = False,
    keep_patches: KeepPatches = True,
    precision: Annotated[
        RenderPrecision,
        typer.Option(metavar="NAME", help="Precision of the convolutions: float32, bfloat16 or float16."),
    ] = "float32",
    repair: Annotated[bool, typer.Option("--repair", help="Check existing shards; render damaged ones again.")] = False,
    accelerator: Annotated[
        str | None,
        typer.Option(metavar="HINT", help="Accelerator for the workers that render, such as 'type:nvidia-l4;count:1'."),
    ] = None,
    model_copies: Annotated[
        int | None,
        typer.Option(
            help="Number of networks that the processes of a worker machine share.", show_default="one in each process"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all requests, print what they cost, and stop.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Renders panoramas of any size, tile by tile. Run again, it renders only what is missing."""
    flags = beam_flags(context)
    from pipelines.render import render_and_report, say_what_it_costs
    from pipelines.render_watch import check_watch, render_arrivals
    from pipelines.terminal.interrupts import stopped_by_signals
    from transforms.panoramas.requests import RenderRequest, RequestFile
    from transforms.render.look import watched_at
    from transforms.render.options import RenderOptions

    x_px, y_px = (0, None) if origin is None else whole_numbers("--origin", origin, 2, "0,-256")
    values: dict[str, Any] = {"seed": seed, "width_px": width, "height_px": height}
    values |= {"origin_x_px": x_px, "origin_y_px": y_px}
    values |= {"cyclic": cyclic, "formats": format or ["png"]}
    values |= {"scale": scale, "truncation": truncation, "local_truncation": local_truncation}
    values |= {"journey": None if journey is None else {"every_px": journey}}
    given = [field for flag, fields in FIELDS.items() if is_given(context, flag) for field in fields]
    defaults = {field: values[field] for field in given}
    asked: tuple[RenderRequest, ...] | RequestFile
    if watch:
        asked = ()
    elif requests:
        asked = RequestFile(requests, defaults, os.getcwd())
    else:
        name = f"seed-{seed}_{width}x{height}" + (f"_at_{x_px}_{y_px}" if origin else "") + "_cyclic" * cyclic
        name += scaled(scale) + truncated(truncation, local_truncation)
        name += "" if journey is None else f"_journey-{journey}"
        asked = (RenderRequest.from_json({"id": name, **values}),)
    options = RenderOptions(
        requests=asked,
        out=out,
        checkpoint=checkpoint,
        tile_px=tile_px(tile),
        tiles_per_shard=tiles_per_shard,
        replace=replace,
        keep_patches=keep_patches,
        precision=precision,
        repair=repair,
        accelerator=accelerator,
        model_copies=model_copies,
        slice=chosen_slice(slice, requests),
    )
    if watch:
        check_watch({"--requests": requests, "--slice": slice, "--repair": repair, "--dry-run": dry_run})
        with stopped_by_signals() as stop:
            render_arrivals(options, watched_at(watch, out, defaults, os.getcwd()), stop, flags)
        return
    if dry_run:
        say_what_it_costs(options)
    else:
        render_and_report(options, flags)


def chosen_slice(text: str | None, requests: str | None) -> Slice | None:
    """Returns the slice given by --slice, and says which one it is.

    An array's task is not taken for a slice by itself, because each task may have requests of its own.
    """
    task = array_task(os.environ)
    if text is None:
        if task and requests:
            print(f"{task}: renders all requests; with --slice {AUTO} the tasks share them", file=sys.stderr)
        return None
    part = parse_slice(text, os.environ)
    print(f"Renders slice {part} of the requests" + (f" ({task})" if text == AUTO else ""), file=sys.stderr)
    return part


def is_given(context: typer.Context, flag: str) -> bool:
    """Tells whether a flag was given on the command line."""
    source = context.get_parameter_source(flag)
    return source is not None and source.name != "DEFAULT"
