"""Relative paths in full, because they mean something else to workers elsewhere."""

import os
import re
from typing import Final

SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""The start of a URL, or of the name of a source such as commons:Category:NAME."""


def absolute(path: str, folder: str) -> str:
    """Returns a path that is relative to a folder in full, and anything else (a URL, a flag, a name) as it is."""
    if not path or path[0] in "-~" or os.path.isabs(path) or SCHEME.match(path):
        return path
    whole = os.path.join(folder, path)
    return whole if ".." in path.split("/") else os.path.normpath(whole)  # a/.. may lead elsewhere if a is a link
