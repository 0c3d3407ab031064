"""The definition of a target of fuzzing, and checks that several of them share."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from model.errors import InputError


@dataclass(frozen=True)
class Target:
    """Code that reads bytes from outside.

    Attributes:
        make: the function that makes an input.
        check: the function that handles an input, and raises if that goes wrong.
        inputs: the number of inputs that ``make fuzz`` tries.
    """

    make: Callable[[Random], bytes]
    check: Callable[[bytes], None]
    inputs: int = 5000


@contextmanager
def folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yields a folder with these files, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        for file, content in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield folder


@contextmanager
def refused(*kinds: type[Exception]) -> Iterator[None]:
    """Allows a refusal that states its reason."""
    try:
        yield
    except (InputError, *kinds) as error:  # type: ignore[misc]
        if not str(error).strip():
            raise
