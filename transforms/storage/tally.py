"""Counting what this process has done, for its progress bar."""

import threading
from collections import Counter


class Tally:
    """A counter that threads share, with further counts by name.

    Where the workers are other processes it stays at zero, and there is no bar; no result depends on it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: Counter[str] = Counter()
        self.count = 0

    def reset(self) -> None:
        """Starts again from zero."""
        with self._lock:
            self.count = 0
            self._named.clear()

    def add(self, more: int = 1, name: str | None = None) -> None:
        """Counts some more, of what has that name."""
        with self._lock:
            if name is None:
                self.count += more
            else:
                self._named[name] += more

    def named(self) -> dict[str, int]:
        """Returns the counts by name."""
        with self._lock:
            return dict(self._named)
