"""Notices to the user that do not stop the work, each printed once."""

import sys
from functools import cache

from model.errors import one_line


@cache
def say_once(message: str) -> None:
    """Prints a line on stderr, once per process."""
    print(one_line(ValueError(message)), file=sys.stderr)
