"""Counting what this process has done, for its progress bar."""

import threading


class Tally:
    """A counter that threads share.

    Where the workers are other processes it stays at zero, and there is no bar; no result depends on it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def reset(self) -> None:
        """Starts again from zero."""
        with self._lock:
            self.count = 0

    def add(self, more: int = 1) -> None:
        """Counts some more."""
        with self._lock:
            self.count += more
