"""The flags of ``infinitygan render``."""

import posixpath
from typing import Annotated

import typer

from model.errors import InputError
from pipelines.terminal.flags import Formats, Quiet, RenderPrecision, beam_flags

FIELDS = {
    "seed": ("seed",),
    "width": ("width_px",),
    "height": ("height_px",),
    "origin": ("origin_x_px", "origin_y_px"),
    "cyclic": ("cyclic",),
    "format": ("formats",),
}
"""The fields of a request that flags give. With --requests they are defaults for rows that omit them."""


def render(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder or URL for patches, panoramas and the manifest.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint of the generator, a .safetensors file.", show_default="bundled")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the world.")] = 7,
    width: Annotated[int, typer.Option(help="Width of the panorama in pixels.")] = 8192,
    height: Annotated[int, typer.Option(help="Height of the panorama in pixels.")] = 512,
    origin: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="World pixel of the panorama's top left corner.", show_default="0,-height/2"),
    ] = None,
    cyclic: Annotated[bool, typer.Option("--cyclic", help="Make the right end continue into the left.")] = False,
    requests: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Render many panoramas: a .jsonl, .csv or .parquet file with one request per row."
        ),
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of a tile in pixels; a multiple of the network's cell.")] = 256,
    tiles_per_shard: Annotated[int, typer.Option(help="Number of patches in each shard.")] = 16,
    format: Formats = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace panoramas that have the same id but another plan.")
    ] = False,
    precision: Annotated[
        RenderPrecision, typer.Option(metavar="<float32|bfloat16|float16>", help="Precision of the convolutions.")
    ] = "float32",
    repair: Annotated[bool, typer.Option("--repair", help="Check existing shards; render damaged ones again.")] = False,
    accelerator: Annotated[
        str | None,
        typer.Option(metavar="HINT", help="Accelerator for the workers that render, such as 'type:nvidia-l4;count:1'."),
    ] = None,
    model_copies: Annotated[
        int | None,
        typer.Option(
            help="Number of networks that the processes of a worker machine share.", show_default="one in each process"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all requests, print what they cost, and stop.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Renders panoramas of any size, tile by tile. Run again, it renders only what is missing."""
    flags = beam_flags(context)
    from pipelines.render import render_and_report, say_what_it_costs
    from transforms.panoramas.requests import Refused, RenderRequest, list_requests
    from transforms.render.options import RenderOptions
    from transforms.render.planner import make_plans

    x_px, y_px = parse_origin(origin)
    if requests:
        values: dict[str, object] = {
            "seed": seed,
            "width_px": width,
            "height_px": height,
            "cyclic": cyclic,
            "formats": format,
        }
        values |= {"origin_x_px": x_px, "origin_y_px": y_px}
        given = [field for flag, fields in FIELDS.items() if is_given(context, flag) for field in fields]
        asked: list[RenderRequest | Refused] = list_requests(requests, {field: values[field] for field in given})
    else:
        name = f"seed-{seed}_{width}x{height}" + (f"_at_{x_px}_{y_px}" if origin else "") + "_cyclic" * cyclic
        values = {"id": name, "seed": seed, "width_px": width, "height_px": height, "formats": format or ["png"]}
        values |= {"origin_x_px": x_px, "origin_y_px": y_px, "cyclic": cyclic}
        asked = [RenderRequest.from_json(values)]
    options = RenderOptions(
        tuple(asked),
        out,
        checkpoint,
        tile,
        tiles_per_shard,
        replace,
        precision,
        repair,
        accelerator,
        model_copies,
        source=posixpath.basename(requests) if requests else "",
    )
    planned = make_plans(options)
    if dry_run:
        say_what_it_costs(planned)
    else:
        render_and_report(planned, flags)


def is_given(context: typer.Context, flag: str) -> bool:
    """Tells whether a flag was given on the command line."""
    source = context.get_parameter_source(flag)
    return source is not None and source.name != "DEFAULT"


def parse_origin(text: str | None) -> tuple[int, int | None]:
    """Parses X,Y as two whole numbers."""
    if text is None:
        return 0, None
    try:
        x_px, y_px = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--origin {text}: give two whole numbers, such as --origin 0,-256") from None
    return x_px, y_px
