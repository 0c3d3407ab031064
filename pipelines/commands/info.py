"""The flags of ``infinitygan info``."""

from typing import Annotated

import typer


def info(file: Annotated[str, typer.Argument(help="A file or folder of this project.")]) -> None:
    """Says what a file or folder is."""
    from pipelines.info import describe, told

    for line in told(describe(file)):
        print(line)
