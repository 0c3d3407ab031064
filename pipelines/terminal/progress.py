"""How far a job is, on stderr: a bar on a terminal, a line now and then elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL_S = 0.5
_LINE_EVERY_S = 10.0
_silent = threading.Event()


def silence(quiet: bool) -> bool:
    """Hides progress from now on, or shows it again; returns what it was given, as the callback of a flag does."""
    if quiet:
        _silent.set()
    else:
        _silent.clear()
    return quiet


def say(text: str) -> None:
    """Prints a line on stderr, unless progress is hidden.

    Where the terminal or the pipe is gone, the work goes on without being heard.
    """
    if _silent.is_set():
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


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
    if _silent.is_set():
        yield
        return
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
        say(said)
        last, shown = now, done
