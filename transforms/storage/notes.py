"""Notices to the user that do not stop the work, each printed once."""

import sys
from functools import lru_cache

from model.errors import one_line


@lru_cache(maxsize=1000)  # a job without end has messages without end
def say_once(message: str) -> None:
    """Prints a line on stderr, once per process."""
    print(one_line(ValueError(message)), file=sys.stderr)
