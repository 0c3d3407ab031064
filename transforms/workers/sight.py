"""Shows, before any work, that a job's workers see its files and have the versions of the process that submits it."""

import platform
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.typehints.decorators import no_annotations

from model.errors import InputError
from model.version import __version__
from transforms.storage.files import filesystem
from transforms.storage.retry import retried
from transforms.storage.tally import count_in_beam
from transforms.workers.faults import reported

Element = TypeVar("Element")


@dataclass(frozen=True, slots=True)
class Sight:
    """What the process that submits a job sees, and every worker must see too.

    Attributes:
        sizes: the size in bytes of some files of the job, by their URLs.
        versions: the versions of Python, Beam and this package.
    """

    sizes: tuple[tuple[str, int], ...]
    versions: tuple[tuple[str, str], ...]


def look(urls: Iterable[str]) -> Sight:
    """Returns what this process sees.

    Args:
        urls: files that the job needs. Those that do not exist here are not looked for on workers.
    """
    sizes = ((url, size_of(url)) for url in dict.fromkeys(urls))
    return Sight(tuple((url, size) for url, size in sizes if size is not None), versions())


def versions() -> tuple[tuple[str, str], ...]:
    """Returns the versions that must agree: other ones read pickled steps differently, or make other bytes."""
    python = ".".join(platform.python_version_tuple()[:2])
    return (("Python", python), ("Apache Beam", version("apache-beam")), ("infinitygan", __version__))


def size_of(url: str) -> int | None:
    """Returns a file's size in bytes; None if it is not there."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    try:
        return retried(fs.size, path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check(sight: Sight) -> None:
    """Raises InputError if this worker sees something else."""
    host = socket.gethostname()
    for (name, here), (_, there) in zip(versions(), sight.versions, strict=True):
        if here != there:
            raise InputError(f"worker {host} has {name} {here}, but the job was submitted with {there}: use the same")
    for url, size_bytes in sight.sizes:
        if size_of(url) != size_bytes:
            raise InputError(
                f"worker {host} does not see {url}: give a URL, or a folder that is mounted at this path on all workers"
            )


@dataclass(eq=False)
class CheckSight(beam.PTransform[beam.PCollection[Element], beam.PCollection[Element]]):
    """Passes on its elements, after each worker that gets some has shown that it sees the job's files.

    Attributes:
        sight: what is to be seen; None to check nothing, for workers in the same process.
    """

    sight: Sight | None

    @no_annotations
    def expand(self, elements: beam.PCollection[Element]) -> beam.PCollection[Element]:
        """Applies the transform; called by Beam."""
        return elements if self.sight is None else elements | "Look" >> beam.ParDo(_Check(self.sight))


class _Check(beam.DoFn):
    """Checks once for each copy of this step."""

    def __init__(self, sight: Sight):
        self.sight, self.seen = sight, False

    def process(self, element: Any) -> Any:
        if not self.seen:
            count_in_beam("workers that have begun", 1)
            with reported():
                check(self.sight)
            self.seen = True
        yield element
