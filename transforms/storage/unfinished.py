"""The local files that this process is writing, so that it can remove them when it is told to stop."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PATHS: set[str] = set()


@contextmanager
def unfinished(path: str) -> Iterator[None]:
    """Registers a file as unfinished while the block runs."""
    _PATHS.add(path)
    try:
        yield
    finally:
        _PATHS.discard(path)


def remove_unfinished() -> None:
    """Removes all registered files, even if other threads are still writing them."""
    for path in tuple(_PATHS):
        with suppress(OSError):
            os.remove(path)
