"""Sorted runs: files of rejects in their order, which are merged in memory that does not grow with their number."""

import heapq
import json
import uuid
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from model.errors import InputError, one_line
from transforms.ingest.batches import reject_json, write_lines
from transforms.ingest.run_mark import STAGING
from transforms.storage.files import filesystem, join, named_errors, open_atomic
from transforms.storage.json_text import read_json_text
from transforms.training_set.dataset import reject_order
from transforms.training_set.records import Reject

RUNS: Final = "runs"
MOST_MERGED: Final = 200
"""The number of runs that are open at the same time; more are merged in several passes."""

_BUFFER_BYTES: Final = 1 << 16


def write_run(out: str, rejects: Iterable[Reject]) -> str:
    """Writes a sorted run; returns its URL, which is new, because attempts may differ in what they have found."""
    url = join(out, STAGING, RUNS, f"{uuid.uuid4().hex}.jsonl")
    write_lines(url, map(reject_json, sorted(rejects, key=reject_order)))
    return url


def read_run(url: str) -> Iterator[Reject]:
    """Yields the rejects of a run, of which a small part is in memory.

    Raises:
        InputError: a line is damaged.
    """
    for number, line in enumerate(_lines(url), start=1):
        try:
            yield Reject(**read_json_text(line))
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{url} is damaged at line {number}: {one_line(error)}") from None


def _lines(url: str) -> Iterator[bytes]:
    fs, path = filesystem(url)
    with named_errors(path), fs.open(path, "rb", block_size=_BUFFER_BYTES) as file:
        yield from file


def merge_runs(out: str, urls: Collection[str]) -> Iterator[Reject]:
    """Yields the rejects of all runs in order."""
    urls = sorted(urls)
    while len(urls) > MOST_MERGED:
        groups = [urls[start : start + MOST_MERGED] for start in range(0, len(urls), MOST_MERGED)]
        urls = [_write_merged(out, group) for group in groups]
    yield from heapq.merge(*map(read_run, urls), key=reject_order)


def _write_merged(out: str, urls: list[str]) -> str:
    url = join(out, STAGING, RUNS, f"{uuid.uuid4().hex}.jsonl")
    with open_atomic(url) as file:
        for reject in heapq.merge(*map(read_run, urls), key=reject_order):
            file.write(json.dumps(reject_json(reject), ensure_ascii=False).encode() + b"\n")
    return url


def with_existing(new: Iterable[Reject], existing: Iterable[Reject], taken_back: Iterable[str]) -> Iterator[Reject]:
    """Yields the rejects of a set that is added to: the new ones, and the existing ones of other sources.

    Args:
        new: the rejects of this run, in order.
        existing: those of the set, in order.
        taken_back: the sources that the set rejected and that this run has tried again or that are gone, in order.
    """
    streams: list[Iterator[tuple[str, int, Any]]] = [
        ((reject.source, 0, reject) for reject in new),
        ((source, 1, None) for source in taken_back),
        ((reject.source, 2, reject) for reject in existing),
    ]
    for _, group in groupby(heapq.merge(*streams, key=lambda item: item[:2]), key=lambda item: item[0]):
        is_tried = False
        for _, kind, reject in group:
            is_tried = is_tried or kind < 2
            if kind == 0 or (kind == 2 and not is_tried):
                yield reject


def in_order(rejects: Iterable[Reject]) -> Iterator[Reject]:
    """Yields the rejects of a table.

    Raises:
        InputError: they are not sorted.
    """
    before: tuple[str, str, str] | None = None
    for reject in rejects:
        if before is not None and reject_order(reject) < before:
            raise InputError(f"the table of rejects is not sorted at {reject.source}: copy it again, or ingest again")
        before = reject_order(reject)
        yield reject
