"""Relative paths are made absolute where a command starts, because they mean something else to workers elsewhere."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from model.bundled import BUNDLED

if TYPE_CHECKING:
    from transforms.panoramas.requests import RenderRequest

ARGUMENTS: Final = ("sources", "out", "checkpoint", "photographs", "photograph", "folder", "request")
"""The arguments of commands that may be paths."""

SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""The start of a URL, or of the name of a source such as commons:Category:NAME."""


def absolute(path: str) -> str:
    """Returns a relative path in full, and anything else (a URL, a flag, a name) as it is."""
    if not path or path == BUNDLED or path[0] in "-~" or os.path.isabs(path) or SCHEME.match(path):
        return path
    whole = os.path.join(os.getcwd(), path)
    return whole if ".." in path.split("/") else os.path.normpath(whole)  # a/.. may lead elsewhere if a is a link


def absolute_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a command's arguments with all paths in full."""
    return {name: in_full(value) if name in ARGUMENTS else value for name, value in arguments.items()}


def in_full(value: Any) -> Any:
    """Does the same for an argument, which may be a list."""
    if isinstance(value, str):
        return absolute(value)
    return [absolute(each) for each in value] if isinstance(value, Sequence) else value


def absolute_files(request: "RenderRequest") -> "RenderRequest":
    """Returns a request with the paths of its checkpoint and overlays in full."""
    styles = tuple(
        dataclasses.replace(style, overlay=absolute(style.overlay)) if style.overlay else style
        for style in request.styles
    )
    overlays = tuple(map(absolute, request.overlays))
    checkpoint = request.checkpoint and absolute(request.checkpoint)
    return dataclasses.replace(request, styles=styles, overlays=overlays, checkpoint=checkpoint)
