"""Lines of text on their way to the workers that deal with their names: many in each element, and compressed."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

BUCKETS: Final = 256
"""The number of groups, unless a job asks for another. All lines of a name come to one group, and so to one worker."""

_PACKED_AT_ONCE: Final = 1 << 15

Pack = tuple[int, bytes]
"""A bucket, and lines that belong to it."""


def pack(lines: Iterable[tuple[str, str]], count: int = BUCKETS) -> Iterator[Pack]:
    """Yields lines by the `count` buckets of their names, in bounded memory and in their order."""
    lines = iter(lines)
    while some := list(islice(lines, _PACKED_AT_ONCE)):
        buckets: dict[int, list[str]] = defaultdict(list)
        for name, line in some:
            buckets[bucket_of(name, count)].append(line)
        for bucket, together in buckets.items():
            yield bucket, compress(together)


def compress(lines: Iterable[str]) -> bytes:
    """Returns lines, at least one, as `unpack` reads them."""
    return zlib.compress("\n".join(lines).encode("utf-8", "surrogatepass"), level=1)


def unpack(packed: bytes) -> list[str]:
    """Returns the lines."""
    return zlib.decompress(packed).decode("utf-8", "surrogatepass").split("\n")


def bucket_of(name: str, count: int = BUCKETS) -> int:
    """Returns the bucket of a name."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % count
