"""Counters of the work that this process has done, for its progress bar."""

import threading
from collections import Counter


class Tally:
    """A counter shared by threads, with further counts by name.

    If the workers are other processes, it stays at zero and no bar is shown. No result depends on it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: Counter[str] = Counter()
        self.count = 0

    def reset(self) -> None:
        """Resets all counts to zero."""
        with self._lock:
            self.count = 0
            self._named.clear()

    def add(self, more: int = 1, name: str | None = None) -> None:
        """Adds to the count, and to the count with the given name."""
        with self._lock:
            if name is None:
                self.count += more
            else:
                self._named[name] += more

    def named(self) -> dict[str, int]:
        """Returns the counts by name."""
        with self._lock:
            return dict(self._named)
