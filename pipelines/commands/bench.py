"""The flags of ``infinitygan bench``."""

import json
from typing import Annotated

import typer
from rich.console import Console

from pipelines.terminal.flags import Quiet


def bench(
    preset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRESET", help="Preset of the network to measure; may be repeated.", show_default="paper and small"
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="JSON file for the figures.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measures the speed of rendering on this machine, and compares it with the machine's peak."""
    from pipelines.bench import bench, table
    from transforms.storage.files import write_bytes

    document = bench(preset or ["paper", "small"])
    Console().print(table(document))
    if out:
        write_bytes(out, (json.dumps(document, indent=2) + "\n").encode())
