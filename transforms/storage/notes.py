"""What a person should know although the work goes on, said once."""

import sys
from functools import cache

from model.errors import one_line


@cache
def say_once(message: str) -> None:
    """Prints a line on stderr, the first time that this process says it."""
    print(one_line(ValueError(message)), file=sys.stderr)
