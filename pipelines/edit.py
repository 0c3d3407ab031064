"""Edit: draws a box of a panorama again. Only the tiles that it touches are computed."""

import sys

from model.errors import InputError
from model.world.definition import FIELDS, Box, Edit
from pipelines.terminal.flags import whole_numbers
from transforms.applications.edit import Edited
from transforms.panoramas.plan import Plan


def parse_edit(box: str | None, fields: str | None, seed: int | None, like: str | None) -> Edit:
    """Returns the edit that the flags ask for."""
    if box is None or seed is None:
        raise InputError("give --box X,Y,W,H and --seed N, or --undo")
    return Edit(
        box_px=parse_box("--box", box),
        seed=seed,
        fields=FIELDS if fields is None else tuple(fields.split(",")),
        like_box_px=None if like is None else parse_box("--like", like),
    )


def parse_box(flag: str, text: str) -> Box:
    """Parses X,Y,W,H as whole numbers."""
    x, y, width, height = whole_numbers(flag, text, 4, "900,-128,256,128")
    return x, y, width, height


def check_checkpoint(found: Edited, plan: Plan) -> None:
    """Raises InputError if a panorama would be rendered by a different checkpoint than before."""
    if found.checkpoint_sha256 not in (None, plan.checkpoint_sha256):
        raise InputError(
            f"panorama {found.request.id} was rendered by checkpoint {found.checkpoint_sha256[:12]}, not by "
            f"{plan.checkpoint_url}; give that one with --checkpoint"
        )


if __name__ == "__main__":
    from pipelines.cli import main

    main(["edit", *sys.argv[1:]])
