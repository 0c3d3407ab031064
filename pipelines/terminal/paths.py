"""Relative paths are made absolute where a command starts, because they mean something else to workers elsewhere."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from model.bundled import BUNDLED
from transforms.storage import paths

ARGUMENTS: Final = ("sources", "watch", "out", "checkpoint", "photographs", "photograph", "folder", "request")
"""The arguments of commands that may be paths."""


def absolute(path: str) -> str:
    """Returns a relative path in full, and anything else (a URL, a flag, a name) as it is."""
    return path if path == BUNDLED else paths.absolute(path, os.getcwd())


def absolute_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a command's arguments with all paths in full."""
    return {name: in_full(value) if name in ARGUMENTS else value for name, value in arguments.items()}


def in_full(value: Any) -> Any:
    """Does the same for an argument, which may be a list."""
    if isinstance(value, str):
        return absolute(value)
    return [absolute(each) for each in value] if isinstance(value, Sequence) else value
