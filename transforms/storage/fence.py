"""Fences: which run may change a folder, so that what an older run still does, however late, changes nothing.

A run has an id, which a small file in its folder, the mark, names while the run is current. A new run puts its own id
there, and a run that ends removes the mark. Each worker of a run compares both at the moment at which a file appears
under its name:

- On disk, under a lock of the folder that workers share, and that nobody holds while the mark changes.
- In an object store, between reading the version of what is there and writing on the condition that this version is
  still there. Whatever a newer run has made since then has another version.

The fence travels with the URLs below the folder, wherever these are sent: `Fenced` is a string.
"""

import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model.errors import InputError
from transforms.storage.json_text import read_json_text

RUN: Final = "run"
"""The field of a mark that holds the run's id."""

STUCK_S: Final = 30.0
"""How long a new run waits for an older one's worker, which may be frozen while it holds the folder's lock."""

NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
"""Errors of a mounted file system without locks of folders. There, only the mark is compared."""


class StaleRunError(InputError):
    """The run is no longer current: a newer one has begun in its folder, or it has ended."""


class Fence(ABC):
    """What must hold while a file behind it appears or goes.

    Attributes:
        folder: the local path or URL of the folder whose lock is held.
    """

    folder: str

    @abstractmethod
    def refuse_stale(self, url: str, fs: fsspec.AbstractFileSystem) -> None:
        """Raises StaleRunError if it no longer holds for a URL, on its file system."""


@dataclass(frozen=True, slots=True)
class RunFence(Fence):
    """Lets only the current run of a folder pass.

    Attributes:
        folder: the run's folder.
        mark: the URL of the file that names the current run.
        run: the run's id.
    """

    folder: str
    mark: str
    run: str

    def refuse_stale(self, url: str, fs: fsspec.AbstractFileSystem) -> None:
        """Compares the run with the mark."""
        try:
            mark = read_json_text(fs.cat_file(fs._strip_protocol(self.mark)))
        except FileNotFoundError:
            raise StaleRunError(f"run {self.run} on {self.folder} has ended: {url} is left as it is") from None
        except ValueError:
            mark = None
        current = mark.get(RUN) if isinstance(mark, dict) else None
        if current != self.run:
            raise StaleRunError(
                f"run {self.run} on {self.folder} was replaced by run {current}: {url} is left as it is"
            )


class Fenced(str):
    """The URL of a folder or a file behind a fence.

    Args:
        url: the URL.
        fence: the fence.
    """

    fence: Fence

    def __new__(cls, url: str, fence: Fence) -> "Fenced":
        """Makes the string."""
        made = super().__new__(cls, url)
        made.fence = fence
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the fence too."""
        return Fenced, (str(self), self.fence)


def fenced_like(url: str, other: str) -> str:
    """Returns another URL, behind the same fence if the first one has a fence."""
    return Fenced(other, url.fence) if isinstance(url, Fenced) else other


def check_current(url: str, fs: fsspec.AbstractFileSystem) -> None:
    """Raises StaleRunError if the URL has a fence that does not let it pass."""
    if isinstance(url, Fenced):
        url.fence.refuse_stale(url, fs)


@contextmanager
def current(url: str, fs: fsspec.AbstractFileSystem) -> Iterator[None]:
    """Lets the block change a local file, or raises StaleRunError. The run stays current until the block ends."""
    if not isinstance(url, Fenced):
        yield
        return
    if not isinstance(fs, LocalFileSystem):
        check_current(url, fs)
        yield
        return
    with folder_lock(fs._strip_protocol(url.fence.folder), alone=False):
        check_current(url, fs)
        yield


@contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Lets no worker change the files of a local folder while the block changes its mark. Stores need no lock."""
    if "://" in folder:
        yield
        return
    path = LocalFileSystem._strip_protocol(folder)
    os.makedirs(path, exist_ok=True)
    with folder_lock(path, alone=True):
        yield


@contextmanager
def folder_lock(folder: str, *, alone: bool) -> Iterator[None]:
    """Holds the lock of a local folder: with others who change files in it, or alone to change its mark.

    Raises:
        InputError: a worker that is stopped holds it.
    """
    try:
        import fcntl  # not available on every platform

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield  # without the folder there is no mark either, as the check finds
        return
    try:
        late = time.monotonic() + STUCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
            except BlockingIOError:
                if time.monotonic() > late:
                    raise InputError(
                        f"{folder} is locked by a worker of an older run, which is stopped: end that process"
                    ) from None
                time.sleep(0.01)
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            break
        yield
    finally:
        os.close(descriptor)
