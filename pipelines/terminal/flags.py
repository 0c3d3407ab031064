"""Flags that several commands share, and parsers for their values. Imports neither torch nor Beam."""

import gc
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model.errors import InputError
from model.world.definition import LOCAL_TRUNCATION
from pipelines.terminal import forked_workers
from pipelines.terminal.flag_names import check_names
from pipelines.terminal.progress import silence
from pipelines.terminal.runners import DESCRIBED, runner_of

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from transforms.panoramas.tiling import TileSize

FORMATS = "png, tif, jpg, webp, zarr, dzi"
"""The file formats of panoramas, for help texts; `transforms.formats.registry` writes them."""

# The choices of flags are repeated here, because the modules that define them load packages that take seconds, and
# type checkers need them spelled out. tests/pipelines/test_cli.py compares both.
SampleFormat = Literal["jpg", "webp", "png"]
Deduplication = Literal["near", "exact", "off"]
Preset = Literal[
    "paper",
    "paper-197",
    "paper-389",
    "stylegan2-nci",
    "stylegan2-nci-fcg",
    "small",
    "small-nci",
    "small-nci-fcg",
    "tiny",
    "detail",
]
Recipe = Literal["paper", "projected"]
VerticalLaw = Literal["crop", "paper"]
Protocol = Literal["antialiased", "paper"]
TrainingPrecision = Literal["float32", "tf32", "bfloat16", "fp32", "bf16"]
RenderPrecision = Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"]
"""The short names are accepted too, but help texts omit them."""

Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Checkpoint of the generator, a .safetensors file.", show_default="bundled"),
]
RenderFolder = Annotated[
    str, typer.Option("--out", metavar="DIR", help="Folder or URL for patches, panoramas and the manifest.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="FORMAT", help=f"File format: {FORMATS}; may be repeated.", show_default="png"),
]
Tile = Annotated[
    str | None,
    typer.Option(
        "--tile",
        metavar="WxH|N",
        help="Size of tiles in pixels: width and height of tiles that follow the panorama, or the side N of squares of "
        "the world's grid. Multiples of the network's cell.",
        show_default="a size that suits the panorama",
    ),
]
Truncation = Annotated[
    float,
    typer.Option(metavar="0-1.5", help="Below 1, styles are closer to the average one: more regular, less varied."),
]
LocalTruncation = Annotated[
    float,
    typer.Option(
        metavar="0-1.5",
        help="Below 1, high panoramas have fewer scraps in the sky and holes in the ground; 1 leaves them as they are.",
    ),
]
Scale = Annotated[
    int,
    typer.Option(
        metavar="1|4|16",
        help="Resolution: at 4, the checkpoint's detail stage draws each pixel of the generator as 4 x 4; at 16, "
        "twice. All sizes and positions are in the panorama's own pixels.",
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Replace panoramas that have the same id but another plan.")]
KeepPatches = Annotated[
    bool,
    typer.Option(
        "--keep-patches/--no-keep-patches",
        help="Keep the patches of finished panoramas; edit, verify, assemble and repair use them.",
    ),
]
Steps = Annotated[int, typer.Option(help="Optimisation steps per photograph.")]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Width and height in pixels to which photographs are scaled and cropped.",
        show_default="the network's height",
    ),
]
PhotographSeed = Annotated[int, typer.Option(help="Seed of the surrounding world and of the optimisation's start.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=silence, help="Hide progress; results and errors are still shown.")
]
Paste = Annotated[bool, typer.Option("--paste/--no-paste", help="Keep the photograph's own pixels in its place.")]


def truncated(truncation: float, local: float) -> str:
    """Returns the part of an id that names the truncations, in characters that ids may have."""
    named = (("truncation", truncation, 1), ("local-truncation", local, LOCAL_TRUNCATION))
    return "".join(f"_{name}-{value:g}".replace(".", "_") for name, value, default in named if value != default)


def scaled(scale: int) -> str:
    """Returns the part of an id that names a scale."""
    return "" if scale == 1 else f"_scale-{scale}"


def beam_flags(context: typer.Context, among_arguments: Sequence[str] = ()) -> "PipelineOptions":
    """Returns Beam's options from the flags that are not the command's own.

    Args:
        context: The context of the command.
        among_arguments: Flags that the parser left among the command's arguments.

    Raises:
        InputError: Beam does not know a flag, or does not accept its value.
    """
    flags = [*among_arguments, *context.args]
    own = [f"--{name.replace('_', '-')}" for name in context.params]
    if runner_of(flags) not in DESCRIBED:
        check_names(flags, own)
    load(f"pipelines.{context.info_name}")
    from pipelines.terminal.beam_flags import beam_options
    from pipelines.terminal.job_records import refuse_detached

    options = beam_options(flags, own)
    if forked_workers.are_wanted(flags):
        forked_workers.fork_workers()
    out = context.params.get("out") or context.params.get("folder")
    if out:
        refuse_detached(out)
    return options


def load(module: str) -> None:
    """Imports a module. Python does not look for garbage meanwhile, nor in it later: that takes a sixth of the time."""
    gc.disable()
    try:
        import_module(module)
    finally:
        gc.freeze()
        gc.enable()


def whole_numbers(flag: str, text: str, count: int | None, example: str, separator: str = ",") -> tuple[int, ...]:
    """Parses the whole numbers in a flag's value.

    Args:
        flag: The name of the flag.
        text: The value given.
        count: How many numbers are expected; None for any number.
        example: A valid value, for the error message.
        separator: The separator between numbers.

    Raises:
        InputError: The value does not have this form.
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
    """Returns the width and height given by --size."""
    if text is None:
        return None
    width, height = whole_numbers("--size", text.lower(), 2, "256x128", "x")
    return width, height


def base_px(flag: str, px: int, scale: int) -> int:
    """Returns a flag's pixels, which are those of a scale, in pixels of scale 1.

    Raises:
        InputError: They are not whole pixels there.
    """
    if px % scale:
        raise InputError(f"{flag} {px}: at scale {scale} give a multiple of {scale}")
    return px // scale


def tile_px(text: str | None) -> "TileSize | None":
    """Returns the size of tiles given by --tile."""
    if text is None:
        return None
    if "x" not in text.lower():
        return whole_numbers("--tile", text, 1, "256, or --tile 1024x256")[0]
    width, height = whole_numbers("--tile", text.lower(), 2, "1024x256, or --tile 256", "x")
    return height, width


def split_flags(values: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits arguments from Beam's flags, because the parser leaves unknown flags among the arguments."""
    return [value for value in values if not value.startswith("--")], [v for v in values if v.startswith("--")]
