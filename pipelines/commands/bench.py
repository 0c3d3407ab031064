"""The flags of ``infinitygan bench``."""

import json
from typing import Annotated

import typer
from rich.console import Console

from pipelines.terminal.flags import Quiet


def bench(
    preset: Annotated[list[str] | None, typer.Option(help="Network to measure; may be repeated.")] = None,
    out: Annotated[str | None, typer.Option(help="File for the figures, as JSON.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measures what rendering costs on this machine, against the best that the machine can do."""
    from pipelines.bench import bench, table
    from transforms.storage.files import write_bytes

    document = bench(preset or ["paper", "small"])
    Console().print(table(document))
    if out:
        write_bytes(out, (json.dumps(document, indent=2) + "\n").encode())
