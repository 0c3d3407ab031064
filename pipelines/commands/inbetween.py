"""The flags of ``infinitygan inbetween``."""

from typing import Annotated

import typer

from model.bundled import BUNDLED
from model.errors import InputError
from pipelines.terminal.flags import (
    Checkpoint,
    Formats,
    Paste,
    PhotographSeed,
    Quiet,
    RenderFolder,
    Replace,
    Scale,
    Size,
    Steps,
    Tile,
    beam_flags,
    size_px,
    split_flags,
    tile_px,
)


def inbetween(
    context: typer.Context,
    photographs: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Photographs, from left to right.")],
    out: RenderFolder,
    width: Annotated[int, typer.Option(help="Width of the panorama in pixels.")],
    height: Annotated[
        int | None, typer.Option(help="Height of the panorama in pixels.", show_default="the tallest photograph's")
    ] = None,
    cyclic: Annotated[
        bool, typer.Option("--cyclic", help="Make the right end continue into the left; one photograph is enough.")
    ] = False,
    steps: Steps = 500,
    paste: Paste = True,
    size: Size = None,
    scale: Scale = 1,
    seed: PhotographSeed = 0,
    checkpoint: Checkpoint = None,
    format: Formats = None,
    tile: Tile = None,
    replace: Replace = False,
    quiet: Quiet = False,
) -> None:
    """Makes one panorama from several photographs, or a cyclic one from a single photograph."""
    paths, unknown = split_flags(photographs)
    flags = beam_flags(context, unknown)
    if len(paths) < (1 if cyclic else 2):
        raise InputError("give two or more photographs, or one with --cyclic")
    from model.inversion import InversionConfig
    from pipelines.inbetween import placed
    from pipelines.invert import invert_all, name_of, overlay_paths
    from pipelines.render_inverted import Overlays, render_inverted
    from transforms.applications.arrange import panorama
    from transforms.applications.invert import InversionJob
    from transforms.panoramas.requests import RenderRequest
    from transforms.render.options import RenderOptions
    from transforms.storage.files import join

    config = InversionConfig(steps=steps, seed=seed)
    files = overlay_paths(paths, join(out, "overlays"))
    jobs = [
        InversionJob(
            photograph=photograph,
            out=file,
            checkpoint=checkpoint or BUNDLED,
            config=config,
            size_px=size_px(size),
            scale=scale,
        )
        for photograph, file in zip(paths, files, strict=True)
    ]
    jobs, tallest_px = placed(jobs, width, cyclic)
    name = "_".join(map(name_of, paths))[:180] + "_cyclic" * cyclic
    height_px = tallest_px if height is None else height
    box = (0, -(height_px // scale // 2) * scale, width, height_px)  # so that photographs of this height fill it

    def requests(overlays: Overlays) -> list[RenderRequest]:
        return [panorama(name, overlays, box, seed, paste, checkpoint, format or ["png"], scale)]

    options = RenderOptions((), out, checkpoint, tile_px(tile), replace=replace)
    render_inverted(options, requests, lambda: list(zip(files, invert_all(jobs), strict=True)), name, flags)
