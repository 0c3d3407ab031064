"""Inbetween: photographs along one panorama, with the world between them; a circle, if wanted (paper, Appendix H)."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from model.bundled import BUNDLED
from model.config import GeneratorConfig
from model.definition import Definition, check_definition
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
    split_flags,
)
from pipelines.invert import default_network, invert_all, name_of, overlay_paths
from pipelines.options import beam_options, own_flags
from pipelines.render import render_written
from pipelines.render_options import RenderOptions
from pipelines.render_plans import check_requests
from transforms.arrange import panorama, spread
from transforms.invert import InversionJob, load_generator, read_target
from transforms.requests import RenderRequest
from transforms.storage import join


def placed(jobs: Sequence[InversionJob], width_px: int, cyclic: bool) -> tuple[list[InversionJob], int]:
    """Jobs with their places along a panorama, and its height: that of the tallest photograph."""
    config: GeneratorConfig = load_generator(jobs[0].checkpoint).generator.config
    turn_px = width_px if cyclic else None
    check_definition(Definition(0, turn_px), config)
    boxes = [read_target(job, config).box_px for job in jobs]
    lefts = spread([box[2] for box in boxes], width_px, cyclic, config)
    moved = [dataclasses.replace(job, x_px=x, cyclic_px=turn_px) for job, x in zip(jobs, lefts, strict=True)]
    return moved, max(box[3] for box in boxes)


def inbetween_command(
    context: typer.Context,
    photographs: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="From left to right.")],
    out: RenderFolder,
    width: Annotated[int, typer.Option(help="Of the panorama, px.")],
    height: Annotated[int | None, typer.Option(help="Of the panorama, px.", show_default="the photographs'")] = None,
    cyclic: Annotated[bool, typer.Option("--cyclic", help="Its ends meet; one photograph is enough.")] = False,
    steps: Steps = 500,
    paste: Keep = True,
    size: Size = None,
    seed: PhotographSeed = 0,
    checkpoint: Checkpoint = None,
    format: Formats = None,
    tile: TileSide = 256,
    replace: Replace = False,
) -> None:
    """Makes one panorama of several photographs, or a circle of one."""
    paths, unknown = split_flags(photographs)
    flags = beam_options([*unknown, *context.args], own_flags(context))
    if len(paths) < (1 if cyclic else 2):
        raise InputError("give two photographs or more; one is enough for a circle, by --cyclic")
    config = InversionConfig(steps=steps, seed=seed, network=default_network())
    files = overlay_paths(paths, join(out, "overlays"))
    jobs = [
        InversionJob(
            photograph=photograph, out=file, checkpoint=checkpoint or BUNDLED, config=config, size_px=size_px(size)
        )
        for photograph, file in zip(paths, files, strict=True)
    ]
    jobs, tallest_px = placed(jobs, width, cyclic)
    name = "_".join(map(name_of, paths))[:180] + "_cyclic" * cyclic
    height_px = tallest_px if height is None else height
    box = (0, -(height_px // 2), width, height_px)

    def request(overlays: Sequence[tuple[str, Overlay]]) -> RenderRequest:
        return panorama(name, overlays, box, seed, paste, checkpoint, format or ["png"])

    # What is wrong is said before the photographs are inverted.
    check_requests(RenderOptions((request([]),), out, checkpoint, tile, replace=True))
    ready = request(list(zip(files, invert_all(jobs), strict=True)))
    options = RenderOptions((ready,), out, checkpoint, tile, replace=replace)
    render_written(options, join(out, "requests", f"{name}.jsonl"), [ready], flags)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["inbetween", *sys.argv[1:]])
