"""A run folder belongs to one run at a time, and a killed run leaves it free.

On disk the operating system keeps the lock: it lets go of it when the process ends, however it ends. An object store
has no locks. There the lock is a small object that its owner rewrites every few seconds. One that has not changed for a
minute belongs to a run that is dead, and is taken over. No clocks are compared, so they need not agree.

Should a run be held up for longer than that minute and lose its folder, it finds out before it writes there again.
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
from transforms.storage.files import filesystem, join, read_bytes, remove, write_json

LOCK = "lock.json"
BEAT_S, DEAD_S = 15.0, 60.0
"""How often the owner on an object store rewrites the lock, and after what time without it the owner is dead."""

SETTLE_S = 1.0
"""Two runs that write the lock at the same moment: the later one has it, and after this time both know."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What a mounted file system says that has no locks."""

Check = Callable[[], None]
Owner = dict[str, Any]


@contextmanager
def locked(url: str) -> Iterator[Check]:
    """Holds the folder for this run while the block runs; yields a check that it still does.

    Raises:
        InputError: it belongs to another run; or, when asked for, no longer to this one.
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
    """Returns an open and locked file; None where the file system has no locks.

    Raises:
        InputError: another process has locked it.
    """
    try:
        import fcntl  # which not every platform has
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
        if is_at(path, descriptor):  # else its owner removed it, at its end, while it was being opened here
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
    """Raises InputError if the lock was removed: another run may have begun."""
    if not is_at(path, descriptor):
        raise lost(url)


@contextmanager
def leased(url: str) -> Iterator[Check]:
    """Does the same for a store without locks, by means of a lease."""
    lease = Lease(url)
    lease.take()
    ended = threading.Event()
    beating = threading.Thread(target=lease.keep, args=(ended,), daemon=True)
    beating.start()
    try:
        yield lease.check
    finally:
        ended.set()
        beating.join()
        lease.give_back()


class Lease:
    """A lock that must be renewed, as an object beside the run's.

    Args:
        url: the run folder's.
    """

    def __init__(self, url: str):
        self.url, self.path = url, join(url, LOCK)
        self.run, self.beats = uuid.uuid4().hex, 0

    def take(self) -> None:
        """Takes the lock, from a dead run if need be.

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
            InputError: it is alive.
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
        """Renews the lock while it is this run's. A store that fails now is asked again at the next beat."""
        while not ended.wait(BEAT_S):
            try:
                if not self.is_mine():
                    return
                self.write()
            except Exception as error:  # each store has its own way to fail
                print(f"{self.path} cannot be renewed now: {error}", file=sys.stderr)

    def check(self) -> None:
        """Raises InputError if another run has taken the lock."""
        if not self.is_mine():
            raise lost(self.url)

    def give_back(self) -> None:
        """Removes the lock if it is this run's. One that cannot be removed is taken for dead after a minute."""
        try:
            if self.is_mine():
                remove(self.path)
        except Exception as error:  # each store has its own way to fail
            print(f"{self.path} cannot be removed: {error}", file=sys.stderr)

    def is_mine(self) -> bool:
        """Returns whether the lock is this run's."""
        found = self.read()
        return found is not None and found.get("run") == self.run

    def read(self) -> Owner | None:
        """Returns what the lock says; None if there is none."""
        with suppress(FileNotFoundError):
            return parsed(read_bytes(self.path))
        return None

    def write(self) -> None:
        """Says that this run is alive."""
        self.beats += 1
        write_json(self.path, {**this_process(), "run": self.run, "beats": self.beats})


def this_process() -> Owner:
    """Returns what a lock says of its owner."""
    return {"host": platform.node(), "process": os.getpid()}


def parsed(content: bytes) -> Owner:
    """Returns what a lock says, as far as it can be read."""
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):
        owner = None
    return owner if isinstance(owner, dict) else {}


def told(owner: Owner) -> str:
    """Returns the owner of a lock in words."""
    return f"process {str(owner.get('process', '?'))[:20]!r} on {str(owner.get('host', '?'))[:80]!r} holds its lock"


def busy(url: str, owner: Owner) -> InputError:
    """Returns what is said of a folder that belongs to another run."""
    return InputError(f"{url} is in use by another run: {told(owner)}; wait until it ends, or choose another --out")


def lost(url: str) -> InputError:
    """Returns what is said by a run that no longer has its folder."""
    cure = "this run ends without saving; see what runs there, and go on with --resume"
    return InputError(f"{url} is no longer locked by this run ({LOCK} was removed, or another run took it): {cure}")
