"""Sorted runs: files of items in an order, which are merged in memory that does not grow with their number."""

import heapq
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from model.errors import InputError, one_line
from transforms.storage.files import join, open_atomic
from transforms.storage.json_text import read_json_text
from transforms.storage.retry import retried
from transforms.storage.tables import local_copy

MOST_MERGED: Final = 256
"""The number of runs that are open at the same time; more are merged in several passes."""

_BUFFER_BYTES: Final = 1 << 14

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Runs(Generic[Item]):
    """Sorted runs in a folder.

    Attributes:
        folder: the folder.
        order: returns what items are sorted by.
        to_json: returns an item's JSON value.
        from_json: returns the item of a JSON value.
    """

    folder: str
    order: Callable[[Item], Any]
    to_json: Callable[[Item], Any]
    from_json: Callable[[Any], Item]

    def write(self, items: Iterable[Item], name: str | None = None) -> str:
        """Writes a run of items in any order; returns its URL, which is new if no name is given."""
        return retried(self._write, sorted(items, key=self.order), name)

    def merge(self, urls: Collection[str]) -> Iterator[Item]:
        """Yields the items of all runs in order."""
        urls = sorted(urls)
        while len(urls) > MOST_MERGED:
            groups = [urls[start : start + MOST_MERGED] for start in range(0, len(urls), MOST_MERGED)]
            urls = [self._write(self._merged(group), None) for group in groups]
        yield from self._merged(urls)

    def _merged(self, urls: list[str]) -> Iterator[Item]:
        return heapq.merge(*map(self.read, urls), key=self.order)

    def _write(self, items: Iterable[Item], name: str | None) -> str:
        url = join(self.folder, f"{name or uuid.uuid4().hex}.jsonl")
        with open_atomic(url) as file:
            for item in items:
                file.write(json.dumps(self.to_json(item), ensure_ascii=False).encode() + b"\n")
        return url

    def read(self, url: str) -> Iterator[Item]:
        """Yields the items of a run, of which a small part is in memory.

        Raises:
            InputError: a line is damaged.
        """
        with ExitStack() as stack:
            path = stack.enter_context(local_copy(url))
            for number, line in enumerate(stack.enter_context(open(path, "rb", _BUFFER_BYTES)), start=1):
                try:
                    yield self.from_json(read_json_text(line))
                except (ValueError, TypeError, AttributeError) as error:
                    raise InputError(f"{url} is damaged at line {number}: {one_line(error)}") from None
