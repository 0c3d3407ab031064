"""Work done in threads ahead of the one who needs it, in the order in which it was asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def map_ahead(function: Callable[[In], Out], items: Iterable[In], threads: int, ahead: int) -> Iterator[Out]:
    """The function's values of the items, in their order, computed by so many threads up to so many items ahead.

    An exception of an item is raised in its place.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def one_ahead(items: Iterator[Out]) -> Iterator[Out]:
    """The items, each taken in a thread of its own while the one before is made use of."""
    pool = ThreadPoolExecutor(1)
    end = object()
    try:
        waiting = pool.submit(next, items, end)
        while (item := waiting.result()) is not end:
            waiting = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
