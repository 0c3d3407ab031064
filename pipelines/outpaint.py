"""Outpaint: the world around a photograph, in as many variants as wanted (paper, Figures 9 and 21)."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from model.bundled import BUNDLED
from model.definition import Box
from model.errors import InputError
from model.inversion import InversionConfig
from model.overlay import Overlay
from pipelines.flags import (
    Checkpoint,
    Formats,
    Keep,
    PhotographSeed,
    RenderFolder,
    Replace,
    Size,
    Steps,
    TileSide,
    size_px,
)
from pipelines.invert import default_network, invert_all, name_of
from pipelines.options import beam_options, own_flags
from pipelines.render import render_written
from pipelines.render_options import RenderOptions
from pipelines.render_plans import check_requests
from transforms.arrange import grown, panorama
from transforms.contact_sheet import write_contact_sheet
from transforms.invert import SUFFIX, InversionJob, load_generator, read_target
from transforms.overlays import read_overlay
from transforms.render_folder import panorama_path
from transforms.requests import RenderRequest
from transforms.storage import join

MOST_VARIANTS = 1000


def box_of(job: InversionJob) -> Box:
    """Where a photograph, or an overlay in its place, lies in the world."""
    if job.photograph.endswith(SUFFIX):
        return read_overlay(job.photograph).box_px
    return read_target(job, load_generator(job.checkpoint).generator.config).box_px


def overlay_of(job: InversionJob) -> tuple[str, Overlay]:
    """The overlay of a photograph, which may be one already, and where it is."""
    if job.photograph.endswith(SUFFIX):
        return job.photograph, read_overlay(job.photograph)
    (overlay,) = invert_all([job])
    return job.out, overlay


def outpaint_command(
    context: typer.Context,
    photograph: Annotated[str, typer.Argument(metavar="PHOTO", help="A photograph, or an overlay that invert made.")],
    out: RenderFolder,
    left: Annotated[int, typer.Option(help="How far to go on to the left, px.")] = 0,
    right: Annotated[int, typer.Option(help="To the right, px.")] = 0,
    up: Annotated[int, typer.Option(help="Upwards, px.")] = 0,
    down: Annotated[int, typer.Option(help="Downwards, px.")] = 0,
    variants: Annotated[int, typer.Option(help="How many different results.")] = 1,
    steps: Steps = 500,
    paste: Keep = True,
    size: Size = None,
    seed: PhotographSeed = 0,
    checkpoint: Checkpoint = None,
    format: Formats = None,
    tile: TileSide = 256,
    replace: Replace = False,
) -> None:
    """Continues a photograph on any side, as far as wanted."""
    flags = beam_options(context.args, own_flags(context))
    if not 1 <= variants <= MOST_VARIANTS:
        raise InputError(f"--variants {variants}: give 1 to {MOST_VARIANTS}")
    sides = left, right, up, down
    name = name_of(photograph)
    job = InversionJob(
        photograph=photograph,
        out=join(out, "overlays", f"{name}{SUFFIX}"),
        checkpoint=checkpoint or BUNDLED,
        config=InversionConfig(steps=steps, seed=seed, network=default_network()),
        size_px=size_px(size),
    )
    formats, box = format or ["png"], grown(box_of(job), *sides)

    def requests(overlays: Sequence[tuple[str, Overlay]]) -> tuple[RenderRequest, ...]:
        return tuple(
            panorama(f"{name}-{number + 1}", overlays, box, seed + number, paste, checkpoint, formats)
            for number in range(variants)
        )

    # What is wrong is said before the photograph is inverted.
    check_requests(RenderOptions(requests([]), out, checkpoint, tile, replace=True))
    ready = requests([overlay_of(job)])
    options = RenderOptions(ready, out, checkpoint, tile, replace=replace)
    render_written(options, join(out, "requests", f"{name}.jsonl"), ready, flags)
    if "png" in formats:
        sheet = join(out, f"{name}.jpg")
        if write_contact_sheet(sheet, [panorama_path(out, f"{request.id}.png") for request in ready]):
            print(f"All of them at a glance: {sheet}", file=sys.stderr)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["outpaint", *sys.argv[1:]])
