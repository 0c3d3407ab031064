"""The local files that this process is writing, so that it can take them away when it is told to end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PATHS: set[str] = set()


@contextmanager
def unfinished(path: str) -> Iterator[None]:
    """Counts a file among them while the block runs."""
    _PATHS.add(path)
    try:
        yield
    finally:
        _PATHS.discard(path)


def remove_unfinished() -> None:
    """Removes them, whatever their writers, in other threads, are about to do."""
    for path in tuple(_PATHS):
        with suppress(OSError):
            os.remove(path)
