"""The arguments of ``infinitygan status``."""

from typing import Annotated

import typer


def status(out: Annotated[str, typer.Argument(metavar="OUT", help="The --out of a job on a cluster.")]) -> None:
    """Shows the state of a job on a cluster, from any machine that sees its output folder."""
    from pipelines.remote import status

    line, failed = status(out)
    print(line)
    if failed:
        raise typer.Exit(1)
