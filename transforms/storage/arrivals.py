"""Files that arrive in folders: each is seen once, when it is whole.

What is new is found by comparing listings, not by times: a file that is moved into a folder may have an old one, and
the clocks of machines differ. A store shows a file when it is complete. Anywhere else a file may still be growing, so
it is whole if two looks in a row find it the same.
"""

import hashlib
import math
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from model.errors import InputError
from transforms.storage.files import filesystem
from transforms.storage.notes import say_once
from transforms.storage.urls import redact

EVERY_S: Final = 1.0
"""The shortest time between two looks; between them, a file that is being written changes."""

SHARE: Final = 10
"""Looks take at most one part in this of the time."""

MOST_WAITING: Final = 10_000
"""The most files whose versions are kept from one look to the next; the others are seen again later."""

SHOWS_WHOLE_FILES: Final = {"s3", "gs", "gcs", "abfs", "memory"}
"""The protocols of stores on which a file appears when it is complete."""

_UNFINISHED: Final = "_temporary"
"""The folder in which Hadoop and Spark write files that are then moved to their place."""

_VERSION: Final = ("size", "ETag", "etag", "generation", "LastModified", "updated", "last_modified", "mtime", "created")
"""The fields of a listing that tell whether a file has been written again; a store has some of them."""


_Named = tuple[str, Callable[[], str | None]]
"""A path on a file system, and what returns the version of the file."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file in a listing.

    Attributes:
        url: its path or URL.
        place: the folder or pattern that it was found by.
        name: its path below the folder, or below the last folder that the pattern names.
        appears_whole: whether it appeared when it was complete.
        version: returns what changes when the file is written again; None if it is empty or gone.
    """

    url: str
    place: str
    name: str
    appears_whole: bool
    version: Callable[[], str | None]


def list_arrivals(place: str, suffixes: tuple[str, ...], without: str | None = None) -> Iterator[Listed]:
    """Yields the files in a folder and below it, or those that a pattern matches; none if there is no such folder.

    Hidden files and folders are left out, because they are how many programs name what they have not finished.

    Args:
        place: the folder or pattern, as a path or URL.
        suffixes: the ends of the names of files, in lower case.
        without: a folder that is left out if it is below.
    """
    fs, path = filesystem(place)
    fs.invalidate_cache()
    is_pattern = _is_pattern(fs, place, path)
    top = _fixed_part(path) if is_pattern else path.rstrip("/")
    left_out = without and _path_within(fs, top, without)
    names = _matches(fs, path) if is_pattern else _below(fs, top, left_out)
    for name, version in names:
        inner = posixpath.relpath(name, top)
        if not inner.lower().endswith(suffixes) or any(map(_is_hidden, inner.split("/"))):
            continue
        if left_out and inner.startswith(f"{left_out}/"):
            continue
        matched = fs.unstrip_protocol(name) if "://" in place else name
        url = matched if is_pattern else posixpath.join(place, inner)
        yield Listed(url, place, inner, not SHOWS_WHOLE_FILES.isdisjoint(_protocols(fs)), version)


def check_place(place: str, out: str) -> None:
    """Checks that files can arrive in a folder, or match a pattern, that is not the folder of a job's own files.

    Args:
        place: the folder or pattern, as a path or URL.
        out: the folder of the job.

    Raises:
        InputError: they cannot, or the URL is wrong.
    """
    if not place:
        raise InputError("--watch is empty; give a folder or a pattern")
    fs, path = filesystem(place)
    if fs.isfile(path):
        raise InputError(f"--watch {redact(place)}: it is a file; give the folder in which files arrive")
    top = _fixed_part(path) if _is_pattern(fs, place, path) else path
    if _path_within(fs, top, out) == ".":
        raise InputError(f"--watch {redact(place)}: it is the folder of --out; files must arrive in another one")


def take_whole(
    files: Iterable[Listed],
    is_known: Callable[[Listed], bool],
    waiting: MutableMapping[str, str],
    most: float = math.inf,
) -> Iterator[tuple[Listed, str]]:
    """Yields files that are new and whole, with their versions.

    Args:
        files: a listing.
        is_known: returns whether a file has been taken before.
        waiting: the versions of some of the files that are not taken yet. It is updated for the next look.
        most: the most files to yield.
    """
    before = dict(waiting)
    waiting.clear()
    for file in files:
        version = None if is_known(file) else file.version()
        if version is None:
            continue
        if most > 0 and (file.appears_whole or before.get(file.url) == version):
            most -= 1
            yield file, version
        elif len(waiting) < MOST_WAITING:
            waiting[file.url] = version


def digest(*names: str) -> bytes:
    """Returns 16 bytes that stand for a name in a set of many."""
    return hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pause_after(look_s: float) -> float:
    """Returns the seconds from the end of a look that took so long to the next one."""
    return max(EVERY_S, (SHARE - 1) * look_s)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == _UNFINISHED


def _is_pattern(fs: AbstractFileSystem, place: str, path: str) -> bool:
    return has_magic(place) and not fs.exists(path)


def _fixed_part(pattern: str) -> str:
    """Returns the folder above the first part of a pattern that matches several names."""
    parts = pattern.split("/")
    return "/".join(parts[: next(place for place, part in enumerate(parts) if has_magic(part))]) or "/"


def _path_within(fs: AbstractFileSystem, top: str, folder: str) -> str | None:
    """Returns the path of a folder within another one, which is "." if both are the same; None if it is not within."""
    other, path = filesystem(folder)
    if other.protocol != fs.protocol:
        return None
    if isinstance(fs, LocalFileSystem):
        top, path = os.path.realpath(top), os.path.realpath(path)
    inner = posixpath.relpath(path, top)
    return None if inner.split("/")[0] == ".." else inner


def _below(fs: AbstractFileSystem, top: str, left_out: str | None) -> Iterator[_Named]:
    """Yields the files below a folder, with what returns their versions; on disk, a folder within it is left out."""
    if isinstance(fs, LocalFileSystem):
        passed = posixpath.join(top, left_out) if left_out else None
        for folder, folders, names in os.walk(top, onerror=_tell):
            folders[:] = [name for name in folders if not _is_hidden(name) and posixpath.join(folder, name) != passed]
            yield from (
                (path, partial(_local_version, path)) for path in (posixpath.join(folder, name) for name in names)
            )
        return
    try:
        entries = fs.find(top, detail=True)
    except FileNotFoundError:
        return
    yield from ((name, partial(_stored_version, entry)) for name, entry in entries.items())


def _matches(fs: AbstractFileSystem, pattern: str) -> Iterator[_Named]:
    """Yields the files that match a pattern."""
    if isinstance(fs, LocalFileSystem):
        yield from ((name, partial(_local_version, name)) for name in fs.glob(pattern))
        return
    for name, entry in fs.glob(pattern, detail=True).items():
        if entry["type"] == "file":
            yield name, partial(_stored_version, entry)


def _local_version(path: str) -> str | None:
    try:
        about = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(about.st_mode) or not about.st_size:
        return None
    return f"{about.st_ino} {about.st_mtime_ns} {about.st_size}"


def _stored_version(entry: dict[str, Any]) -> str | None:
    return " ".join(str(entry[name]) for name in _VERSION if name in entry) if entry.get("size") else None


def _protocols(fs: AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _tell(error: OSError) -> None:
    """Says that a folder cannot be listed; one that is not there may come."""
    if not isinstance(error, FileNotFoundError):
        say_once(f"{error.filename} cannot be listed: {error.strerror}")
