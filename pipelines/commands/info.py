"""The flags of ``infinitygan info``."""

from typing import Annotated

import typer


def info(file: Annotated[str, typer.Argument(help="A file or folder made by infinitygan.")]) -> None:
    """Describes a file or folder made by infinitygan."""
    from pipelines.info import describe, told

    for line in told(describe(file)):
        print(line)
