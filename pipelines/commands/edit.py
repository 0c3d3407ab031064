"""The flags of ``infinitygan edit``."""

from typing import Annotated

import typer

from model.errors import InputError
from model.world.definition import FIELDS
from pipelines.terminal.flags import Checkpoint, Quiet, Tile, beam_flags, tile_px


def edit(
    context: typer.Context,
    request: Annotated[str, typer.Argument(help="A panorama's .json file, or a .jsonl file of requests.")],
    box: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="The box to draw again, in world pixels.")] = None,
    fields: Annotated[
        str | None, typer.Option(help="What to draw again: z_l (shapes), noise (grain).", show_default=",".join(FIELDS))
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the new draw.")] = None,
    like: Annotated[
        str | None, typer.Option(metavar="X,Y,W,H", help="Another box, whose statistics of z_l the new draw copies.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Remove the last edit instead.")] = False,
    id: Annotated[str | None, typer.Option(help="Id of the request, if the file holds several.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder or URL of the render job.", show_default="the panorama's folder")
    ] = None,
    checkpoint: Checkpoint = None,
    tile: Tile = None,
    quiet: Quiet = False,
) -> None:
    """Draws a box of a panorama again, or removes the last edit. Writes the request and renders the tiles affected."""
    flags = beam_flags(context)
    from pipelines.edit import check_checkpoint, parse_edit
    from pipelines.render import render_written
    from transforms.applications.edit import find_request, with_edit, without_last_edit
    from transforms.panoramas.plan import REFERENCE
    from transforms.render.options import RenderOptions
    from transforms.render.planner import Planner, check_all

    found = find_request(request, id)
    folder = out or found.out
    if folder is None:
        raise InputError(f"--out is missing: give the folder in which {request} is to be rendered")
    if undo and (box, fields, seed, like) != (None,) * 4:
        raise InputError("--undo cannot be combined with --box, --fields, --seed or --like")
    edited = without_last_edit(found.request) if undo else with_edit(found.request, parse_edit(box, fields, seed, like))
    precision = found.precision or REFERENCE
    options = RenderOptions(
        (edited,), folder, checkpoint, tile_px(tile) or found.tile_px, replace=True, precision=precision
    )
    planner = Planner()
    (plan,) = check_all(options, planner)
    check_checkpoint(found, plan)
    render_written(options, planner, found.file, found.requests(edited), flags)
