"""Every path of the project is an fsspec URL; this is how files appear there whole or not at all.

A file on disk or in memory is written under a temporary name beside its final one and then renamed. An object store
shows an object only when its upload is closed, so there the final name is written straight away, and given up on an
error.

A path means itself, whatever characters it has. Some of fsspec's methods (``rm``, ``mv``, ``get``, ``put``, ``cat``,
``glob``) take ``*``, ``?`` and ``[`` for patterns and are not called here; what is asked for is listed instead.
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
from transforms.storage.json_text import read_json_text
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried
from transforms.storage.unfinished import unfinished
from transforms.storage.urls import LOCAL, redact, scheme_of

SINGLE_CALL_BYTES = 4 << 20
"""What is larger goes to an object store in parts."""

REMOVALS = 16
"""That are under way in a store at the same time."""

ANOTHER_RUN_IS_DEAD_S = 3600.0
TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{12})(-[0-9a-f]{8})?$")
"""How a file is named while it is being written."""


class RegularFiles(LocalFileSystem):
    """The files of this machine. Devices, pipes and sockets are never opened: they may have no end, or never begin."""

    def _open(self, path: str, mode: str = "rb", **how: Any) -> Any:
        """LocalFileSystem's hook.

        Raises:
            InputError: it is a device, pipe or socket.
        """
        if "r" in mode:
            kind = os.stat(path).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # for a folder `open` has an error of its own
                raise InputError(f"{path}: it is a device, pipe or socket; give a regular file")
        return super()._open(path, mode, **how)


def run_id() -> str:
    """Names this process's temporary files, so that a run can tell its own leftovers from another's."""
    return _run_id(os.getpid())


@cache
def _run_id(pid: int) -> str:
    return uuid.uuid4().hex[:12]


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the file system of a URL and the path on it. What has no scheme is a path on this machine.

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
    """Refuses gs:/bucket/x, which would make a folder of the name gs: on this machine."""
    scheme, colon, rest = path.partition(":")
    if colon and scheme not in LOCAL and scheme in fsspec.available_protocols():
        right = f"{scheme}://{rest.lstrip('/')}"
        raise InputError(f"{path}: a URL has two slashes behind its scheme: {right}; for a local path give ./{path}")


def join(url: str, *parts: str) -> str:
    """Returns a path below a URL."""
    return posixpath.join(url, *parts)


def exists(url: str) -> bool:
    """Returns whether there is a file or folder at a URL."""
    fs, path = filesystem(url)
    return fs.exists(path)


def list_files(url: str) -> list[str]:
    """Returns the names of the finished files in a folder, sorted; none where there is no folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    names = [posixpath.basename(entry["name"]) for entry in entries if entry["type"] == "file"]
    return sorted(name for name in names if not TEMPORARY.search(name))


@contextmanager
def open_atomic(url: str) -> Iterator[IO[bytes]]:
    """Opens a file for writing that appears under its name only when the block has ended without an error.

    Raises:
        InputError: it is on a web server.
    """
    fs, path = filesystem(url)
    if "http" in fs.protocol:
        cure = "write to a folder, or a store such as gs:// or s3://"
        raise InputError(f"{url}: a web server is for reading only; {cure}")
    if isinstance(fs, (LocalFileSystem, MemoryFileSystem)):
        fs.makedirs(fs._parent(path), exist_ok=True)
        temporary = f"{path}.tmp-{run_id()}-{uuid.uuid4().hex[:8]}"
        try:
            with unfinished(temporary):
                with named_errors(path), fs.open(temporary, "wb") as file:
                    yield file
                if isinstance(fs, LocalFileSystem):
                    os.replace(temporary, path)
                else:
                    fs.cp_file(temporary, path)
                    fs.rm_file(temporary)
        except BaseException:
            if fs.exists(temporary):
                fs.rm_file(temporary)
            raise
        return
    upload = Upload(fs, path)
    try:
        yield cast(IO[bytes], upload)
        upload.commit()
    except BaseException:
        upload.discard()
        raise


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Gives errors of the operating system the path that they concern, where it names none: a full disk, above all."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = path
        raise


class Upload(io.RawIOBase):
    """A file on its way to an object store: a single call if it is small, which cannot be left half-way, else parts."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str):
        self.fs, self.path, self.start = fs, path, bytearray()
        self.parts: Any = None

    def writable(self) -> bool:
        """RawIOBase's hook."""
        return True

    def write(self, content: Any) -> int:
        """RawIOBase's hook."""
        if self.parts is not None:
            return int(self.parts.write(content))
        self.start += content
        if len(self.start) > SINGLE_CALL_BYTES:
            self.parts = self.fs.open(self.path, "wb", autocommit=False)
            self.parts.write(bytes(self.start))
        return memoryview(content).nbytes

    def commit(self) -> None:
        """Makes the file appear in the store."""
        if self.parts is None:
            self.fs.pipe_file(self.path, bytes(self.start))
        else:
            self.parts.close()
            self.parts.commit()

    def discard(self) -> None:
        """Gives up the upload; nothing appears in the store."""
        if self.parts is not None:
            self.parts.discard()


def write_bytes(url: str, content: bytes) -> None:
    """Writes a whole small file, atomically."""
    with open_atomic(url) as file:
        file.write(content)


def write_json(url: str, value: Any) -> None:
    """Writes a value as readable JSON with sorted keys, atomically."""
    write_bytes(url, (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_bytes(url: str, most_bytes: int | None = None) -> bytes:
    """Reads a whole small file.

    Raises:
        InputError: it is longer than it may be.
    """
    fs, path = filesystem(url)
    if most_bytes is not None and (size := fs.size(path) or 0) > most_bytes:
        raise InputError(f"{url} has {size} bytes, where {most_bytes} are the most")
    return fs.cat_file(path)


def read_json(url: str) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: it is not JSON.
    """
    try:
        return read_json_text(read_bytes(url))
    except ValueError as error:
        raise InputError(f"{url} is not JSON: {one_line(error)}") from None


def remove(url: str) -> None:
    """Removes a file, or a folder with all in it; none there is no error. A link is removed, not what it leads to."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        with suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.remove(path)
        return
    fs.invalidate_cache()
    with suppress(FileNotFoundError):
        entries = fs.find(path, withdirs=isinstance(fs, MemoryFileSystem), detail=True)
        folders = sorted(name for name, entry in entries.items() if entry["type"] == "directory")
        for _ in map_ahead(fs.rm_file, sorted(entries.keys() - folders), REMOVALS, REMOVALS):
            pass
        for folder in reversed(folders):
            fs.rmdir(folder)


def move(source: str, target: str) -> None:
    """Moves a file within one file system, over what may be at its new place."""
    (fs, old), (_, new) = filesystem(source), filesystem(target)
    if isinstance(fs, LocalFileSystem):
        os.replace(old, new)
    else:
        fs.cp_file(old, new)
        fs.rm_file(old)


def remove_leftovers(url: str, *folders: str) -> None:
    """Removes the temporary files that this run left, and those of others that have been untouched for an hour.

    Object stores have none: nothing appears there before it is whole.

    Args:
        url: a folder; what lies deeper in it stays.
        folders: the names of those of its folders that are searched at any depth.
    """
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem | MemoryFileSystem):
        return
    places = ((path, False), *((posixpath.join(path, folder), True) for folder in folders))
    for name in (name for place, deep in places for name in _files(fs, place, deep)):
        match = TEMPORARY.search(name)
        if match is None:
            continue
        with suppress(FileNotFoundError):  # another run tidies up too, or has just finished the file
            age_s = time.time() - fs.modified(name).timestamp()
            if match.group(1) == run_id() or age_s > ANOTHER_RUN_IS_DEAD_S:
                fs.rm_file(name)


def _files(fs: fsspec.AbstractFileSystem, path: str, deep: bool) -> Iterator[str]:
    """Yields the files in a folder, with those below it or without."""
    if not isinstance(fs, LocalFileSystem):
        yield from fs.find(path, maxdepth=None if deep else 1)
        return
    for folder, _, names in os.walk(path):  # not fs.find, which asks for the size of each
        yield from (posixpath.join(folder, name) for name in names)
        if not deep:
            return


def check_folder(out: str) -> None:
    """Raises InputError if --out can be no folder, before anything is computed for it."""
    if not out:
        raise InputError("--out is empty; give a folder or URL")
    fs, path = filesystem(out)
    if retried(fs.isfile, path):
        raise InputError(f"--out {out} is a file; give a folder or URL")
