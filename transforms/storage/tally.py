"""Counters of work that is done, for progress: those of this process, and those that a runner collects."""

import sys
import threading
from collections import Counter
from collections.abc import Mapping

NAMESPACE = "infinitygan"
"""The namespace of the same counters among Beam's metrics."""

TILES = "tiles"
"""The tally of tiles that are stored. In Beam, those of a shard count when it is stored or found."""

_TALLIES: "dict[str, Tally]" = {}


class Tally:
    """A counter shared by threads, with further counts by name.

    In a step of a Beam job it is also one of Beam's counters, through which it reaches the process that submitted the
    job. Beam does not see what a step's own threads count: see `count_in_beam`. No result depends on a tally.

    Args:
        title: the name of Beam's counter; None for a tally of this process alone.
    """

    def __init__(self, title: str | None = None) -> None:
        self._lock = threading.Lock()
        self._named: Counter[str] = Counter()
        self._title = title
        self.count = 0
        if title:
            _TALLIES[title] = self

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
        if self._title:
            count_in_beam(self._title if name is None else f"{self._title}/{name}", more)

    def named(self) -> dict[str, int]:
        """Returns the counts by name."""
        with self._lock:
            return dict(self._named)

    def raise_to(self, count: int, name: str | None = None) -> None:
        """Raises a count to a number that a runner has collected; it never falls, even if the runner starts again."""
        with self._lock:
            if name is None:
                self.count = max(self.count, count)
            else:
                self._named[name] = max(self._named[name], count)


def count_in_beam(title: str, more: int) -> None:
    """Adds to one of Beam's counters, if a step of a job runs in this thread."""
    metrics = sys.modules.get("apache_beam.metrics.metric")  # a step runs only where Beam is loaded
    if metrics is not None:
        metrics.Metrics.counter(NAMESPACE, title).inc(more)


class Collected:
    """Takes over the counts that a runner has collected, in addition to what the tallies said before the job."""

    def __init__(self) -> None:
        self._before = {title: (tally.count, tally.named()) for title, tally in _TALLIES.items()}

    def take(self, counts: Mapping[str, int]) -> None:
        """Raises the tallies to the runner's counts, by the titles of Beam's counters."""
        for title, more in counts.items():
            whole, _, name = title.partition("/")
            if whole in self._before:
                count, named = self._before[whole]
                _TALLIES[whole].raise_to((named.get(name, 0) if name else count) + more, name or None)
