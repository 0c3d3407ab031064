"""One memory budget for all the photographs that a process holds: their files and the decoded pictures."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from math import ceil
from threading import Condition
from typing import Final

DEFAULT_BYTES: Final = 2 << 30
LEAST_BYTES: Final = 768 << 20
POLL_S: Final = 0.02
PROGRAM_BYTES: Final = 512 << 20
"""The memory set aside for the program itself: modules, rows of metadata, and images waiting to be stored."""

FILES_SHARE: Final = 0.2
"""The share of the rest that files may take. Decoding has a separate share, so that it never waits for files."""


class OverBudgetError(MemoryError):
    """Raised for something that needs more memory than its whole budget."""


class Budget:
    """A semaphore that counts bytes. Requests are served in order, so a large photograph does not wait forever.

    Args:
        size_bytes: the number of bytes that may be held at once.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free_bytes = size_bytes
        self._waiting: deque[object] = deque()
        self._changed = Condition()

    @contextmanager
    def hold(self, size_bytes: int, what: str) -> Iterator[None]:
        """Waits until enough memory is free, and holds it while the block runs.

        Raises:
            OverBudgetError: the size exceeds the whole budget.
        """
        if size_bytes > self.size_bytes:
            most = megabytes(self.size_bytes)
            raise OverBudgetError(f"{what} needs {megabytes(size_bytes)} of memory; at most {most}: give more --memory")
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._free_bytes >= size_bytes)
            self._waiting.popleft()
            self._free_bytes -= size_bytes
            self._changed.notify_all()
        try:
            yield
        finally:
            self._give_back(size_bytes)

    async def hold_in_loop(self, size_bytes: int, held: ExitStack) -> None:
        """Waits as `hold` does, without blocking the event loop; a size above the budget takes all of it.

        Args:
            size_bytes: the number of bytes to hold.
            held: the stack that releases them when it closes.
        """
        size_bytes = min(size_bytes, self.size_bytes)
        while not self._take(size_bytes):
            await asyncio.sleep(POLL_S)
        held.callback(self._give_back, size_bytes)

    def _take(self, size_bytes: int) -> bool:
        with self._changed:
            if self._waiting or self._free_bytes < size_bytes:
                return False
            self._free_bytes -= size_bytes
            return True

    def _give_back(self, size_bytes: int) -> None:
        with self._changed:
            self._free_bytes += size_bytes
            self._changed.notify_all()


class Memory:
    """The two parts of a process's budget.

    Args:
        size_bytes: the number of bytes that the process may take in all.

    Attributes:
        files: the budget for files of photographs that wait to be decoded.
        pictures: the budget for decoded photographs, in all stages of decoding.
    """

    def __init__(self, size_bytes: int) -> None:
        free_bytes = size_bytes - PROGRAM_BYTES
        self.files = Budget(int(FILES_SHARE * free_bytes))
        self.pictures = Budget(free_bytes - self.files.size_bytes)


@cache
def process_memory(size_bytes: int) -> Memory:
    """Returns this process's budget: the same object for every caller, so that all share it."""
    return Memory(size_bytes)


def megabytes(size_bytes: int) -> str:
    """Formats a number of bytes for people."""
    return f"{ceil(size_bytes / 1e6):,} MB"
