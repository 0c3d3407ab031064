"""Fuse: several styles along one panorama (paper, Section 4.3 and Figure 6)."""

import hashlib
import math
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from model.definition import FEW_STYLES, FUSION_PX, Style
from model.errors import InputError
from pipelines.flags import Checkpoint, Formats, RenderFolder, Replace, TileSide, whole_numbers
from pipelines.options import beam_options, own_flags
from pipelines.render import render_written
from pipelines.render_options import RenderOptions
from transforms.requests import RenderRequest
from transforms.storage import join

MOST_STYLES = 1000


def most_styles(width_px: int, height_px: int, fusion_px: int) -> int:
    """How many styles a panorama may have: what a tile costs grows with the square of how many it meets.

    More than a few must have fields of at least the size of the box over which they blend.
    """
    return min(MOST_STYLES, max(FEW_STYLES, width_px * height_px // max(fusion_px, FUSION_PX) ** 2))


def style_seeds(text: str, first: int, most: int) -> tuple[int, ...]:
    """The seeds that --styles names, or as many from the first on as it says; `most` at the most."""
    numbers = whole_numbers("--styles", text, None, "4 or --styles 5,9,10,6")
    as_number = len(numbers) == 1 and "," not in text
    if not 2 <= (numbers[0] if as_number else len(numbers)) <= most:
        raise InputError(
            f"--styles {text[:40]}: give 2 to {most} styles for a panorama of this size, as a number or as seeds with "
            "commas between"
        )
    return tuple(range(first, first + numbers[0])) if as_number else numbers


def lay_out(seeds: Sequence[int], width_px: int, height_px: int) -> tuple[Style, ...]:
    """Styles in the middles of equal fields: in rows, whose number makes the fields nearly square."""
    count = len(seeds)

    def elongation(rows: int) -> float:
        columns = -(-count // rows)
        return abs(math.log((width_px / columns) / (height_px / rows)))

    rows = min(range(1, count + 1), key=elongation)
    styles = []
    for row in range(rows):
        first, end = count * row // rows, count * (row + 1) // rows
        y_px = height_px * (2 * row + 1) // (2 * rows) - height_px // 2
        for place, seed in enumerate(seeds[first:end]):
            styles.append(Style(seed=seed, x_px=width_px * (2 * place + 1) // (2 * (end - first)), y_px=y_px))
    return tuple(styles)


def name_of(seeds: Sequence[int]) -> str:
    """Seeds as part of an id; a checksum of them where they are too many."""
    names = "-".join(map(str, seeds))
    return names if len(names) <= 100 else hashlib.sha256(names.encode()).hexdigest()[:12]


def fuse_command(
    context: typer.Context,
    styles: Annotated[str, typer.Option(metavar="N|SEED,SEED,…", help="How many styles, or the seed of each.")],
    out: RenderFolder,
    width: Annotated[int, typer.Option(help="Width, px.")] = 4096,
    height: Annotated[int, typer.Option(help="Height, px.")] = 512,
    seed: Annotated[int, typer.Option(help="Which world.")] = 7,
    fusion: Annotated[int, typer.Option(help="Side of the box over which styles blend, px; odd.")] = FUSION_PX,
    cyclic: Annotated[bool, typer.Option("--cyclic", help="Its right end meets its left.")] = False,
    checkpoint: Checkpoint = None,
    format: Formats = None,
    tile: TileSide = 256,
    replace: Replace = False,
) -> None:
    """Renders a panorama of several styles; writes the request, too, for changes by hand."""
    flags = beam_options(context.args, own_flags(context))
    for name, value in (("--width", width), ("--height", height)):
        if value < 1:
            raise InputError(f"{name} {value}: give at least 1 pixel")
    seeds = style_seeds(styles, seed, most_styles(width, height, fusion))
    request = RenderRequest(
        id=f"fused-{name_of(seeds)}_seed-{seed}_{width}x{height}" + "_cyclic" * cyclic,
        seed=seed,
        width_px=width,
        height_px=height,
        cyclic=cyclic,
        styles=lay_out(seeds, width, height),
        fusion_px=fusion,
        checkpoint=checkpoint,
        formats=tuple(format or ["png"]),
    )
    options = RenderOptions((request,), out, checkpoint, tile, replace=replace)
    render_written(options, join(out, "requests", f"{request.id}.jsonl"), [request], flags)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["fuse", *sys.argv[1:]])
