"""The flags of ``infinitygan outpaint``."""

import sys
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
    tile_px,
)

MOST_VARIANTS = 1000


def outpaint(
    context: typer.Context,
    photograph: Annotated[str, typer.Argument(metavar="PHOTO", help="A photograph, or an overlay made by invert.")],
    out: RenderFolder,
    left: Annotated[int, typer.Option(help="Pixels to add on the left.")] = 0,
    right: Annotated[int, typer.Option(help="Pixels to add on the right.")] = 0,
    up: Annotated[int, typer.Option(help="Pixels to add at the top.")] = 0,
    down: Annotated[int, typer.Option(help="Pixels to add at the bottom.")] = 0,
    variants: Annotated[int, typer.Option(help="Number of different results.")] = 1,
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
    """Continues a photograph on any side, as far as wanted."""
    flags = beam_flags(context)
    if not 1 <= variants <= MOST_VARIANTS:
        raise InputError(f"--variants {variants}: give 1 to {MOST_VARIANTS}")
    from model.inversion import InversionConfig
    from pipelines.invert import name_of
    from pipelines.outpaint import box_of, overlay_of
    from pipelines.render_inverted import Overlays, render_inverted
    from transforms.applications.arrange import grown, panorama
    from transforms.applications.contact_sheet import write_contact_sheet
    from transforms.applications.invert import SUFFIX, InversionJob
    from transforms.panoramas.folder import panorama_path
    from transforms.panoramas.requests import RenderRequest
    from transforms.render.options import RenderOptions
    from transforms.storage.files import join

    sides = left, right, up, down
    name = name_of(photograph)
    job = InversionJob(
        photograph=photograph,
        out=join(out, "overlays", f"{name}{SUFFIX}"),
        checkpoint=checkpoint or BUNDLED,
        config=InversionConfig(steps=steps, seed=seed),
        size_px=size_px(size),
        scale=scale,
    )
    formats, box = format or ["png"], grown(box_of(job), *sides)

    def requests(overlays: Overlays) -> list[RenderRequest]:
        return [
            panorama(f"{name}-{number + 1}", overlays, box, seed + number, paste, checkpoint, formats, scale)
            for number in range(variants)
        ]

    options = RenderOptions((), out, checkpoint, tile_px(tile), replace=replace)
    ready = render_inverted(options, requests, lambda: [overlay_of(job)], name, flags)
    if "png" in formats:
        sheet = join(out, f"{name}.jpg")
        if write_contact_sheet(sheet, [panorama_path(out, f"{request.id}.png") for request in ready]):
            print(f"Contact sheet of all variants: {sheet}", file=sys.stderr)
