"""Cuts all samples into ranges of the order in which duplicates are decided, without gathering or sorting them.

A few samples, chosen by their checksums, show how the order is populated. The ranges are cut at their quantiles.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from transforms.ingest.duplicates import Array, order_of

RANGE_ROWS: Final = 4096
"""The number of samples in a range, roughly."""

_SEEN_OF_A_RANGE: Final = 64


def count_ranges(rows: int) -> int:
    """Returns the number of ranges into which this number of samples is cut."""
    return max(1, -(-rows // RANGE_ROWS))


def draw(records: Array, rows: int) -> Iterator[bytes]:
    """Yields the places in the order of a few of these samples, out of `rows` in all."""
    if count_ranges(rows) > 1:
        share = min(1.0, _SEEN_OF_A_RANGE * count_ranges(rows) / rows)
        chosen = records["sha256"][:, 1].astype(np.float64) < share * 2.0**64
        yield order_of(records[chosen]).tobytes()


def cut(records: Array, drawn: Iterable[bytes], rows: int) -> Iterator[tuple[int, bytes]]:
    """Yields the number of each range with the samples in it."""
    seen = np.sort(np.frombuffer(b"".join(drawn), dtype="S16"))
    count = count_ranges(rows)
    ends = seen[(np.arange(1, count) * len(seen)) // count] if len(seen) else seen
    places = np.searchsorted(ends, order_of(records), side="right")
    for place in np.unique(places).tolist():
        yield place, records[places == place].tobytes()


def unpack(parts: Iterable[bytes], kind: Any) -> Array:
    """Returns packed rows as one array."""
    return np.frombuffer(b"".join(parts), dtype=kind).copy()
