"""Locks a run folder for one run at a time; a killed run leaves it free.

On disk, the operating system holds the lock and releases it when the process ends, however it ends. Object stores
have no locks. There the lock is a small object that its owner rewrites every few seconds. A lock that has not changed
for a minute belongs to a dead run, and is taken over. No clocks are compared, so they need not agree.

If a run is held up for longer than that and loses its folder, it finds out before it writes there again.
"""

import errno
import json
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from model.errors import InputError
from transforms.storage.background import meanwhile
from transforms.storage.files import filesystem, join, read_bytes, remove, write_json

LOCK = "lock.json"
BEAT_S, DEAD_S = 15.0, 60.0
"""The interval at which the owner on an object store rewrites the lock, and the time after which it counts as dead."""

SETTLE_S = 1.0
"""The time after which two runs that write the lock at the same moment both know which was later and owns it."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of a mounted file system without locks."""

Check = Callable[[], None]
Owner = dict[str, Any]


@contextmanager
def locked(url: str) -> Iterator[Check]:
    """Holds the folder for this run while the block runs; yields a check that it still does.

    Raises:
        InputError: the folder belongs to another run; raised by the check if it no longer belongs to this one.
    """
    fs, path = filesystem(join(url, LOCK))
    descriptor = lock_file(url, path) if isinstance(fs, LocalFileSystem) else None
    if descriptor is None:
        with leased(url) as check:
            yield check
        return
    try:
        yield lambda: check_file(url, path, descriptor)
    finally:
        if is_at(path, descriptor):
            os.remove(path)
        os.close(descriptor)


def lock_file(url: str, path: str) -> int | None:
    """Opens and locks a file; returns None if the file system has no locks.

    Raises:
        InputError: another process has locked it.
    """
    try:
        import fcntl  # not available on every platform
    except ImportError:
        return None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            held_by = os.read(descriptor, 4096)
            os.close(descriptor)
            if error.errno in NO_LOCKS:
                return None
            if isinstance(error, BlockingIOError):
                raise busy(url, parsed(held_by)) from None
            raise
        if is_at(path, descriptor):  # otherwise its owner ended and removed it while it was being opened here
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(this_process()).encode(), 0)
            return descriptor
        os.close(descriptor)


def is_at(path: str, descriptor: int) -> bool:
    """Returns whether an open file still has its name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def check_file(url: str, path: str, descriptor: int) -> None:
    """Raises InputError if the lock was removed, because another run may have begun."""
    if not is_at(path, descriptor):
        raise lost(url)


@contextmanager
def leased(url: str) -> Iterator[Check]:
    """Does the same for a store without locks, by means of a lease."""
    lease = Lease(url)
    lease.take()
    try:
        with meanwhile(lease.keep):
            yield lease.check
    finally:
        lease.give_back()


class Lease:
    """A lock that must be renewed, as an object in the run's folder.

    Args:
        url: the URL of the run folder.
    """

    def __init__(self, url: str):
        self.url, self.path = url, join(url, LOCK)
        self.run, self.beats = uuid.uuid4().hex, 0

    def take(self) -> None:
        """Takes the lock, from a dead run if necessary.

        Raises:
            InputError: another run is alive.
        """
        found = self.read()
        if found is not None:
            print(f"{self.url}: {told(found)}; waiting {DEAD_S:.0f} s to see whether it is alive", file=sys.stderr)
            self.watch(found)
        self.write()
        time.sleep(SETTLE_S)
        if not self.is_mine():
            raise busy(self.url, self.read() or {})

    def watch(self, found: Owner) -> None:
        """Waits until a lock has not changed for so long that its owner must be dead.

        Raises:
            InputError: the owner is alive.
        """
        late = time.monotonic() + DEAD_S
        while time.monotonic() < late:
            time.sleep(BEAT_S / 5)
            now = self.read()
            if now is None:
                return
            if now != found:
                raise busy(self.url, now)

    def keep(self, ended: threading.Event) -> None:
        """Renews the lock while it belongs to this run. If the store fails, it is tried again at the next beat."""
        while not ended.wait(BEAT_S):
            try:
                if not self.is_mine():
                    return
                self.write()
            except Exception as error:  # each store raises errors of its own
                print(f"{self.path} cannot be renewed now: {error}", file=sys.stderr)

    def check(self) -> None:
        """Raises InputError if another run has taken the lock."""
        if not self.is_mine():
            raise lost(self.url)

    def give_back(self) -> None:
        """Removes the lock if it belongs to this run. If that fails, the lock counts as dead after a minute."""
        try:
            if self.is_mine():
                remove(self.path)
        except Exception as error:  # each store raises errors of its own
            print(f"{self.path} cannot be removed: {error}", file=sys.stderr)

    def is_mine(self) -> bool:
        """Returns whether the lock belongs to this run."""
        found = self.read()
        return found is not None and found.get("run") == self.run

    def read(self) -> Owner | None:
        """Reads the lock; None if there is no lock."""
        with suppress(FileNotFoundError):
            return parsed(read_bytes(self.path))
        return None

    def write(self) -> None:
        """Writes the lock to show that this run is alive."""
        self.beats += 1
        write_json(self.path, {**this_process(), "run": self.run, "beats": self.beats})


def this_process() -> Owner:
    """Returns this process as the owner of a lock."""
    return {"host": platform.node(), "process": os.getpid()}


def parsed(content: bytes) -> Owner:
    """Parses the content of a lock, as far as possible."""
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):
        owner = None
    return owner if isinstance(owner, dict) else {}


def told(owner: Owner) -> str:
    """Describes the owner of a lock in words."""
    return f"process {str(owner.get('process', '?'))[:20]!r} on {str(owner.get('host', '?'))[:80]!r} holds its lock"


def busy(url: str, owner: Owner) -> InputError:
    """Returns the error for a folder that belongs to another run."""
    return InputError(f"{url} is in use by another run: {told(owner)}; wait until it ends, or choose another --out")


def lost(url: str) -> InputError:
    """Returns the error for a run that no longer has its folder."""
    cure = "this run ends without saving; see which process runs there, and continue with --resume"
    return InputError(f"{url} is no longer locked by this run ({LOCK} was removed, or another run took it): {cure}")
