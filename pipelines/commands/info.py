"""The flags of ``infinitygan info``."""

import json
from typing import Annotated

import typer


def info(file: Annotated[str, typer.Argument(help="A file or folder of this project.")]) -> None:
    """Says what a file or folder is."""
    from pipelines.info import describe

    for name, value in describe(file).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        print(f"{name}: {text}")
