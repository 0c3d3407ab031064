"""Edit: a box of a panorama drawn anew. Only the tiles that it touches are computed."""

import sys
from typing import Annotated

import typer

from model.definition import FIELDS, Box, Edit
from model.errors import InputError
from pipelines.flags import Checkpoint, whole_numbers
from pipelines.options import beam_options, own_flags
from pipelines.render import render_written
from pipelines.render_options import RenderOptions
from pipelines.render_plans import make_plans
from transforms.edit import Edited, find_request, with_edit, without_last_edit
from transforms.plan import REFERENCE


def parse_edit(box: str | None, fields: str | None, seed: int | None, like: str | None) -> Edit:
    """The edit that the flags ask for."""
    if box is None or seed is None:
        raise InputError("give --box X,Y,W,H and --seed N, or --undo")
    return Edit(
        box_px=parse_box("--box", box),
        seed=seed,
        fields=FIELDS if fields is None else tuple(fields.split(",")),
        like_box_px=None if like is None else parse_box("--like", like),
    )


def parse_box(flag: str, text: str) -> Box:
    """X,Y,W,H as numbers."""
    x, y, width, height = whole_numbers(flag, text, 4, "900,-128,256,128")
    return x, y, width, height


def edit_command(
    context: typer.Context,
    request: Annotated[str, typer.Argument(help="A panorama's .json, or a .jsonl of requests.")],
    box: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="What is drawn anew, in world pixels.")] = None,
    fields: Annotated[
        str | None, typer.Option(help="What of it: z_l (shapes), noise (grain).", show_default=",".join(FIELDS))
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the new draw.")] = None,
    like: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="Another box, whose statistics of z_l are taken over.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last edit back instead.")] = False,
    id: Annotated[str | None, typer.Option(help="Which request, if the file holds several.")] = None,
    out: Annotated[str | None, typer.Option(help="Of the render job.", show_default="the panorama's")] = None,
    checkpoint: Checkpoint = None,
    tile: Annotated[int | None, typer.Option(help="Side of a tile, px.", show_default="as it was")] = None,
) -> None:
    """Draws a box of a panorama anew, or takes that back; writes the request and renders what it touches."""
    flags = beam_options(context.args, own_flags(context))
    found = find_request(request, id)
    folder = out or found.out
    if folder is None:
        raise InputError(f"--out is missing: where {request} has been or is to be rendered")
    if undo and (box, fields, seed, like) != (None,) * 4:
        raise InputError("--undo stands alone: leave --box, --fields, --seed and --like away")
    edited = without_last_edit(found.request) if undo else with_edit(found.request, parse_edit(box, fields, seed, like))
    precision = found.precision or REFERENCE
    options = RenderOptions(
        (edited,), folder, checkpoint, tile or found.tile_px or 256, replace=True, precision=precision
    )
    check_checkpoint(found, options)
    render_written(options, found.file, found.requests(edited), flags)


def check_checkpoint(found: Edited, options: RenderOptions) -> None:
    """Raises InputError if a panorama would be rendered by another checkpoint than it was."""
    planned = make_plans(options)
    planned.check(options.source)
    (plan,) = planned.networks
    if found.checkpoint_sha256 not in (None, plan.checkpoint_sha256):
        raise InputError(
            f"panorama {found.request.id} was rendered by checkpoint {found.checkpoint_sha256[:12]}, not by "
            f"{plan.checkpoint_url}; give it by --checkpoint"
        )


if __name__ == "__main__":
    from pipelines.cli import main

    main(["edit", *sys.argv[1:]])
