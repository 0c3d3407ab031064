"""Flags that several commands have in common, and how their values are read."""

from collections.abc import Sequence
from typing import Annotated

import typer

from model.errors import InputError
from transforms.retry import retried
from transforms.storage import filesystem

Checkpoint = Annotated[str | None, typer.Option(help="Generator, .safetensors.", show_default="bundled")]
RenderFolder = Annotated[str, typer.Option("--out", help="Folder or URL for patches, panoramas and manifest.")]
Formats = Annotated[list[str] | None, typer.Option("--format", help="png or tif; may be repeated.", show_default="png")]
TileSide = Annotated[int, typer.Option("--tile", help="Side of a tile, px; a multiple of the network's cell.")]
Replace = Annotated[bool, typer.Option("--replace", help="Render ids anew that have another plan.")]
Steps = Annotated[int, typer.Option(help="Of the optimisation of each photograph.")]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Scale and cut photographs to this, px.", show_default="the network's height"),
]
PhotographSeed = Annotated[int, typer.Option(help="Of the world around, and of the optimisation's start.")]
Keep = Annotated[bool, typer.Option("--paste/--no-paste", help="Show the photograph's own pixels in its place.")]


def whole_numbers(flag: str, text: str, count: int | None, example: str, separator: str = ",") -> tuple[int, ...]:
    """The whole numbers of a flag's value.

    Args:
        flag: its name.
        text: its value.
        count: how many there must be; None for any number.
        example: of a right value.
        separator: between them.

    Raises:
        InputError: there are others.
    """
    try:
        numbers = tuple(int(part) for part in text.split(separator))
    except ValueError:
        numbers = ()
    if not numbers or count not in (None, len(numbers)):
        wanted = "whole numbers" if count is None else f"{count} whole numbers"
        raise InputError(f"{flag} {text}: give {wanted}, such as {flag} {example}")
    return numbers


def size_px(text: str | None) -> tuple[int, int] | None:
    """Width and height of --size."""
    if text is None:
        return None
    width, height = whole_numbers("--size", text.lower(), 2, "256x128", "x")
    return width, height


def check_folder(out: str) -> None:
    """Raises InputError if --out can be no folder, before anything is computed for it."""
    if not out:
        raise InputError("--out is empty; give a folder or URL")
    fs, path = filesystem(out)
    if retried(fs.isfile, path):
        raise InputError(f"--out {out} is a file; give a folder or URL")


def split_flags(values: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments and Beam's flags apart: the parser leaves flags that it does not know among the arguments."""
    return [value for value in values if not value.startswith("--")], [v for v in values if v.startswith("--")]
