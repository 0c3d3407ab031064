"""File access through fsspec URLs, and writing files so that they appear whole or not at all.

A file on disk or in memory is written under a temporary name next to its final one and then renamed. An object store
shows an object only when its upload completes, so there the final name is used at once, and the upload is aborted on
an error.

A file behind a fence (see `transforms.storage.fence`) appears, moves or goes only while its run is current.

A path is always taken literally. Some of fsspec's methods (``rm``, ``mv``, ``get``, ``put``, ``cat``, ``glob``) treat
``*``, ``?`` and ``[`` as patterns, so they are not called here; folders are listed instead.
"""

import io
import json
import os
import posixpath
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from model.errors import InputError, one_line
from transforms.storage import conditional
from transforms.storage.fence import Fenced, alone_in, check_current, current, fenced_like
from transforms.storage.json_text import read_json_text
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried
from transforms.storage.unfinished import unfinished
from transforms.storage.urls import LOCAL, redact, scheme_of

SINGLE_CALL_BYTES = 4 << 20
"""The size above which a file is uploaded to an object store in parts."""

REMOVALS = 16
"""The number of removals that a store handles at the same time."""

ANOTHER_RUN_IS_DEAD_S = 3600.0
TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{12})(-[0-9a-f]{8})?$")
"""The end of a file's name while it is being written."""


class RegularFiles(LocalFileSystem):
    """Local files. Devices, pipes and sockets are never opened, because reading them may block or never end."""

    def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        """Opens a file; overrides LocalFileSystem.

        Raises:
            InputError: the path is a device, pipe or socket.
        """
        if "r" in mode:
            kind = os.stat(path).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # for a folder `open` has an error of its own
                raise InputError(f"{path}: it is a device, pipe or socket; give a regular file")
        return super()._open(path, mode, **how)


def run_id() -> str:
    """Returns the id in this process's temporary names, which tells its own leftovers from those of other runs."""
    return _run_id(os.getpid())


@cache
def _run_id(pid: int) -> str:
    return uuid.uuid4().hex[:12]


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the file system of a URL and the path on it. A URL without a scheme is a local path.

    Raises:
        InputError: the URL's scheme is unknown, its package is not installed, or its slashes are missing.
    """
    if "://" not in url:
        _check_slashes(url)
    if "://" not in url or scheme_of(url) in LOCAL:
        return RegularFiles(), LocalFileSystem._strip_protocol(url)
    if "::" in url or url.startswith("reference:"):  # the latter executes templates out of a file
        raise InputError(f"{redact(url)}: chained and reference URLs are not supported; give a plain path or URL")
    try:
        return fsspec.core.url_to_fs(url)
    except Exception as error:  # each file system has its own way to refuse
        raise InputError(redact(f"{url}: {error}")) from None


def _check_slashes(path: str) -> None:
    """Refuses gs:/bucket/x, which would create a local folder named gs:."""
    scheme, colon, rest = path.partition(":")
    if colon and scheme not in LOCAL and scheme in fsspec.available_protocols():
        right = f"{scheme}://{rest.lstrip('/')}"
        raise InputError(f"{path}: a URL needs two slashes after its scheme: {right}; for a local path give ./{path}")


def join(url: str, *parts: str) -> str:
    """Returns a path below a URL, behind the same fence if the URL has one."""
    return fenced_like(url, posixpath.join(url, *parts))


def exists(url: str) -> bool:
    """Returns whether there is a file or folder at a URL."""
    fs, path = filesystem(url)
    return fs.exists(path)


def list_files(url: str) -> list[str]:
    """Returns the names of the finished files in a folder, sorted; empty if there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    names = [posixpath.basename(entry["name"]) for entry in entries if entry["type"] == "file"]
    return sorted(name for name in names if not TEMPORARY.search(name))


def iterate_names(url: str) -> Iterator[str]:
    """Yields the names of all that is in a folder, in no order; nothing if there is no such folder.

    On disk this is as fast as listing can be, because nothing is asked about what the names stand for.
    """
    fs, path = filesystem(url)
    with suppress(FileNotFoundError, NotADirectoryError):
        if isinstance(fs, LocalFileSystem):
            with os.scandir(path) as entries:
                yield from (entry.name for entry in entries)
        else:
            fs.invalidate_cache(path)
            yield from (posixpath.basename(name.rstrip("/")) for name in retried(fs.ls, path, detail=False))
            fs.invalidate_cache(path)


@contextmanager
def open_atomic(url: str) -> Iterator[IO[bytes]]:
    """Opens a file for writing; it appears under its name only if the block ends without an error.

    Raises:
        InputError: the URL is on a web server, or behind the fence of another run.
    """
    fs, path = filesystem(url)
    if "http" in fs.protocol:
        cure = "write to a folder, or a store such as gs:// or s3://"
        raise InputError(f"{url}: a web server is read-only; {cure}")
    if isinstance(fs, (LocalFileSystem, MemoryFileSystem)):
        if isinstance(url, Fenced) and not fs.exists(fs._parent(path)):
            check_current(url, fs)
        fs.makedirs(fs._parent(path), exist_ok=True)
        temporary = f"{path}.tmp-{run_id()}-{uuid.uuid4().hex[:8]}"
        try:
            with unfinished(temporary):
                with named_errors(path), fs.open(temporary, "wb") as file:
                    yield file
                with current(url, fs):
                    _rename(fs, temporary, path)
        except BaseException:
            if fs.exists(temporary):
                fs.rm_file(temporary)
            raise
        return
    upload = Upload(fs, path, url)
    try:
        yield cast(IO[bytes], upload)
        upload.commit()
    except BaseException:
        upload.discard()
        raise


def _rename(fs: fsspec.AbstractFileSystem, old: str, new: str) -> None:
    if isinstance(fs, LocalFileSystem):
        os.replace(old, new)
    else:
        fs.cp_file(old, new)
        fs.rm_file(old)


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Adds the path to operating system errors that name none, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = path
        raise


class Upload(io.RawIOBase):
    """A file that is uploaded to an object store: in a single call if it is small, in parts otherwise.

    Behind a fence, it appears only if what is there has not changed since the upload began.
    """

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str, url: str):
        self.fs, self.path, self.url, self.start = fs, path, url, bytearray()
        self.parts: Any = None
        self.version = conditional.version_of(fs, path) if isinstance(url, Fenced) else None

    def writable(self) -> bool:
        """Returns True; overrides RawIOBase."""
        return True

    def write(self, content: Any) -> int:
        """Takes more content; overrides RawIOBase."""
        if self.parts is not None:
            return int(self.parts.write(content))
        self.start += content
        if len(self.start) > SINGLE_CALL_BYTES:
            if self.version is None:
                self.parts = self.fs.open(self.path, "wb", autocommit=False)
            else:
                self.parts = conditional.open_parts(self.fs, self.path, self.version)
            self.parts.write(bytes(self.start))
        return memoryview(content).nbytes

    def commit(self) -> None:
        """Makes the file appear in the store.

        Raises:
            StaleRunError: its run is no longer current.
            ChangedError: another worker of the run has written it at the same time; it may be written again.
        """
        if self.parts is not None:
            self.parts.close()
        check_current(self.url, self.fs)
        try:
            self._commit()
        except conditional.ChangedError:
            check_current(self.url, self.fs)
            raise

    def _commit(self) -> None:
        if self.version is not None:
            if self.parts is None:
                conditional.put(self.fs, self.path, bytes(self.start), self.version)
            else:
                conditional.commit_parts(self.fs, self.parts, self.version)
        elif self.parts is None:
            self.fs.pipe_file(self.path, bytes(self.start))
        else:
            self.parts.commit()

    def discard(self) -> None:
        """Gives up the upload; nothing appears in the store."""
        if self.parts is not None:
            self.parts.discard()


def write_bytes(url: str, content: bytes) -> None:
    """Writes a whole small file, atomically."""
    with open_atomic(url) as file:
        file.write(content)


def write_json(url: str, value: object) -> None:
    """Writes a value as readable JSON with sorted keys, atomically."""
    write_bytes(url, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_bytes(url: str, most_bytes: int | None = None) -> bytes:
    """Reads a whole small file.

    Raises:
        InputError: the file is longer than ``most_bytes``.
    """
    fs, path = filesystem(url)
    if most_bytes is not None and (size := fs.size(path) or 0) > most_bytes:
        raise InputError(f"{url} has {size} bytes; at most {most_bytes} are allowed")
    return fs.cat_file(path)


def read_json(url: str) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: it is not JSON, or a folder.
    """
    try:
        return read_json_text(read_bytes(url))
    except IsADirectoryError:
        raise InputError(f"{url} is a folder: remove it, because a file belongs there") from None
    except ValueError as error:
        raise InputError(f"{url} is not JSON: {one_line(error)}") from None


def remove(url: str) -> None:
    """Removes a file, or a folder and its contents, if it exists. A link is removed, not its target.

    Raises:
        StaleRunError: it is behind the fence of another run.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        with current(url, fs), suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.remove(path)
        return
    fs.invalidate_cache()
    with suppress(FileNotFoundError):
        entries = fs.find(path, withdirs=isinstance(fs, MemoryFileSystem), detail=True)
        check_current(url, fs)
        folders = sorted(name for name, entry in entries.items() if entry["type"] == "directory")
        versions = {
            name: conditional.version_in(fs, entry) for name, entry in entries.items() if isinstance(url, Fenced)
        }

        def drop(name: str) -> None:
            if versions.get(name):
                conditional.remove(fs, name, str(versions[name]))
            else:
                fs.rm_file(name)

        for _ in map_ahead(drop, sorted(entries.keys() - folders), REMOVALS, REMOVALS):
            pass
        for folder in reversed(folders):
            fs.rmdir(folder)


def version_of(url: str) -> str | None:
    """Returns what tells whether a file has been written again; None if its store has no versions."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        about = os.stat(path)
        return f"{about.st_ino} {about.st_mtime_ns} {about.st_size}"
    return conditional.version_of(fs, path)


def remove_unchanged(url: str, version: str | None, folder: str) -> None:
    """Removes a file unless it has been written again since its version was read.

    Args:
        url: the file.
        version: its version.
        folder: the folder whose lock keeps other writers out meanwhile, if it is local.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        with alone_in(folder), suppress(FileNotFoundError):
            if version_of(url) == version:
                os.remove(path)
    elif version:
        with suppress(conditional.ChangedError, FileNotFoundError):
            conditional.remove(fs, path, version)
    else:
        remove(url)


def move(source: str, target: str) -> None:
    """Moves a file within one file system, replacing any file at the target."""
    (fs, old), (_, new) = filesystem(source), filesystem(target)
    with current(target, fs):
        _rename(fs, old, new)


def remove_leftovers(url: str, *folders: str) -> None:
    """Removes this run's temporary files, and those of other runs that have not changed for an hour.

    Object stores have no temporary files: an object appears there only when it is complete.

    Args:
        url: the folder. Its subfolders are not searched, except for ``folders``.
        folders: the names of subfolders that are searched at any depth.
    """
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem | MemoryFileSystem):
        return
    places = ((path, False), *((posixpath.join(path, folder), True) for folder in folders))
    for name in (name for place, deep in places for name in _files(fs, place, deep)):
        match = TEMPORARY.search(name)
        if match is None:
            continue
        with suppress(FileNotFoundError):  # another run is cleaning up too, or has just finished the file
            age_s = time.time() - fs.modified(name).timestamp()
            if match.group(1) == run_id() or age_s > ANOTHER_RUN_IS_DEAD_S:
                fs.rm_file(name)


def _files(fs: fsspec.AbstractFileSystem, path: str, deep: bool) -> Iterator[str]:
    """Yields the files in a folder, with or without those in its subfolders."""
    if not isinstance(fs, LocalFileSystem):
        yield from fs.find(path, maxdepth=None if deep else 1)
        return
    for folder, _, names in os.walk(path):  # not fs.find, which requests the size of each file
        yield from (posixpath.join(folder, name) for name in names)
        if not deep:
            return


def check_folder(out: str) -> None:
    """Raises InputError if --out cannot be a folder, before anything is computed."""
    if not out:
        raise InputError("--out is empty; give a folder or URL")
    fs, path = filesystem(out)
    if retried(fs.isfile, path):
        raise InputError(f"--out {out} is a file; give a folder or URL")
