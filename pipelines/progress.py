"""How far a job is, on stderr: a bar on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL_S = 0.5
_LINE_EVERY_S = 10.0


@contextmanager
def track(
    description: str, total: int, count: Callable[[], int], note: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Shows, while the block runs, how many of the total are done.

    Args:
        description: what is being done to what, such as "Photographs".
        total: how many there are; 0 if there is no end to them.
        count: says how many are done; called from another thread, twice a second. While it says 0 nothing is drawn
            but the total, which is right for work that other processes do.
        note: says what else is to be seen of the work, in a few words.
    """
    stop = threading.Event()
    watch = _draw_bar if sys.stderr.isatty() else _print_lines
    thread = threading.Thread(target=watch, args=(description, total, count, note, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _draw_bar(
    description: str, total: int, count: Callable[[], int], note: Callable[[], str], stop: threading.Event
) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rest = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, *rest, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total or None, note="")
        while not stop.wait(_POLL_S):
            progress.update(task, completed=count(), note=note())
        progress.update(task, completed=count(), note=note())


def _print_lines(
    description: str, total: int, count: Callable[[], int], note: Callable[[], str], stop: threading.Event
) -> None:
    start, before = time.monotonic(), count()
    last, shown = start, -1
    while not stop.wait(_POLL_S):
        now, done = time.monotonic(), count()
        if now - last < _LINE_EVERY_S or done in (0, shown):
            continue
        left_s = (now - start) * max(total - done, 0) / max(done - before, 1)
        rest = f"/{total}, about {left_s:.0f} s left" if total else ""
        said = ", ".join(part for part in (f"{description}: {done}{rest}", note()) if part)
        print(said, file=sys.stderr, flush=True)
        last, shown = now, done
