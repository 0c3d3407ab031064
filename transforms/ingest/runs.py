"""Sorted runs of rejects, and how they are joined to the rejects of a set that is added to."""

import heapq
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any, Final

from model.errors import InputError
from transforms.ingest.batches import reject_json
from transforms.ingest.run_mark import STAGING
from transforms.storage.files import join
from transforms.storage.runs import Runs
from transforms.training_set.dataset import reject_order
from transforms.training_set.records import Reject

RUNS: Final = "runs"


def write_run(out: str, rejects: Iterable[Reject]) -> str:
    """Writes a sorted run; returns its URL, which is new, because attempts may differ in what they have found."""
    return _runs(out).write(rejects)


def merge_runs(out: str, urls: Collection[str]) -> Iterator[Reject]:
    """Yields the rejects of all runs in order."""
    return _runs(out).merge(urls)


def _runs(out: str) -> Runs[Reject]:
    return Runs(join(out, STAGING, RUNS), reject_order, reject_json, lambda values: Reject(**values))


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
