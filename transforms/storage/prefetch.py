"""Prefetching: a few threads prepare the next items."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = min(4, os.cpu_count() or 1)
"""The number of threads that encode or decode pictures alongside the calling thread."""


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS, ahead: int = THREADS
) -> Iterator[Result]:
    """Yields the function's results, in order, computed by threads while the caller works on earlier ones.

    The items are taken in the caller's own thread. At most `ahead` results are waiting at any time, so memory is
    bounded. An error of an item or of the function is raised in its turn; nothing keeps running after the end.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def for_each(function: Callable[[Item], object], items: Iterable[Item], threads: int) -> None:
    """Calls a function for each item, in several threads at once; raises the first error."""
    for _ in map_ahead(function, items, threads, ahead=2 * threads):
        pass


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yields the items, each fetched in a separate thread while the previous one is used."""
    pool = ThreadPoolExecutor(1)
    end = object()
    try:
        waiting = pool.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
