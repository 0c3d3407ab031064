"""What a target of fuzzing is, and what several of them check."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from model.errors import InputError


@dataclass(frozen=True)
class Target:
    """Something that reads bytes from outside.

    Attributes:
        make: an input.
        check: handles an input, and raises if anything is wrong with how that went.
        inputs: how many of them ``make fuzz`` tries.
    """

    make: Callable[[Random], bytes]
    check: Callable[[bytes], None]
    inputs: int = 5000


@contextmanager
def folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with these files, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        for file, content in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield folder


@contextmanager
def refused(*kinds: type[Exception]) -> Iterator[None]:
    """Lets a refusal pass that says why."""
    try:
        yield
    except (InputError, *kinds) as error:
        if not str(error).strip():
            raise
