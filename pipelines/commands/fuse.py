"""The flags of ``infinitygan fuse``."""

from typing import Annotated

import typer

from model.errors import InputError
from model.world.definition import FUSION_PX, LOCAL_TRUNCATION
from pipelines.terminal.flags import (
    Checkpoint,
    Formats,
    LocalTruncation,
    Quiet,
    RenderFolder,
    Replace,
    Scale,
    Tile,
    Truncation,
    beam_flags,
    scaled,
    tile_px,
    truncated,
)


def fuse(
    context: typer.Context,
    styles: Annotated[str, typer.Option(metavar="N|SEED,SEED,…", help="Number of styles, or the seed of each.")],
    out: RenderFolder,
    width: Annotated[int, typer.Option(help="Width of the panorama in pixels.")] = 4096,
    height: Annotated[int, typer.Option(help="Height of the panorama in pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 7,
    fusion: Annotated[
        int | None,
        typer.Option(help="Side in pixels of the box over which styles blend; odd.", show_default=str(FUSION_PX)),
    ] = None,
    cyclic: Annotated[bool, typer.Option("--cyclic", help="Make the right end continue into the left.")] = False,
    scale: Scale = 1,
    truncation: Truncation = 1.0,
    local_truncation: LocalTruncation = LOCAL_TRUNCATION,
    checkpoint: Checkpoint = None,
    format: Formats = None,
    tile: Tile = None,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Renders a panorama of several styles. Also writes the request, to be changed by hand."""
    flags = beam_flags(context)
    for name, value in (("--width", width), ("--height", height)):
        if value < 1:
            raise InputError(f"{name} {value}: give at least 1 pixel")
    from pipelines.fuse import lay_out, most_styles, name_of, style_seeds
    from pipelines.render import render_written
    from transforms.panoramas.requests import RenderRequest
    from transforms.render.options import RenderOptions
    from transforms.render.planner import Planner, check_all
    from transforms.storage.files import join

    fusion_px = FUSION_PX * scale if fusion is None else fusion
    seeds = style_seeds(styles, seed, most_styles(width, height, fusion_px))
    suffix = scaled(scale) + truncated(truncation, local_truncation)
    request = RenderRequest(
        id=f"fused-{name_of(seeds)}_seed-{seed}_{width}x{height}" + "_cyclic" * cyclic + suffix,
        seed=seed,
        width_px=width,
        height_px=height,
        cyclic=cyclic,
        styles=lay_out(seeds, width, height),
        fusion_px=fusion_px,
        checkpoint=checkpoint,
        formats=tuple(format or ["png"]),
        truncation=truncation,
        scale=scale,
        local_truncation=local_truncation,
    )
    options = RenderOptions((request,), out, checkpoint, tile_px(tile), replace=replace)
    planner = Planner()
    check_all(options, planner)
    render_written(options, planner, join(out, "requests", f"{request.id}.jsonl"), [request], flags)
