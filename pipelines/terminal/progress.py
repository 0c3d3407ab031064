"""Shows progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from transforms.storage.background import meanwhile

_POLL_S = 0.5
_LINE_EVERY_S = 10.0
_FIRST_LINE_S = 1.0
_silent = threading.Event()
_remark = ""


def remark(text: str) -> None:
    """Shows a few words next to the progress of a job, such as what it waits for, until they are replaced."""
    global _remark
    _remark = text


def silence(quiet: bool) -> bool:
    """Hides progress from now on, or shows it again. Returns its argument, as callbacks of flags do."""
    if quiet:
        _silent.set()
    else:
        _silent.clear()
    return quiet


def say(text: str) -> None:
    """Prints a line on stderr, unless progress is hidden.

    If the terminal or pipe is closed, the job continues silently.
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
    description: str, total: int | Callable[[], int], count: Callable[[], int], note: Callable[[], str] = lambda: ""
) -> Iterator[None]:
    """Shows, while the block runs, how many of the total are done, and the last `remark`.

    Args:
        description: The unit of work, such as "Photographs".
        total: The total number of units, or a function that returns what is known of it; 0 if it is unknown.
        count: Returns how many units are done. It is called twice a second from another thread.
        note: Returns further details in a few words.
    """
    if _silent.is_set():
        yield
        return
    watch = _draw_bar if sys.stderr.isatty() else _print_lines
    with meanwhile(partial(watch, description, total if callable(total) else lambda: total, count, note)):
        yield


def _draw_bar(
    description: str, total: Callable[[], int], count: Callable[[], int], note: Callable[[], str], stop: threading.Event
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
        task = progress.add_task(description, total=total() or None, note="")
        while not stop.wait(_POLL_S):
            progress.update(task, total=total() or None, completed=count(), note=_noted(note))
        progress.update(task, total=total() or None, completed=count(), note=_noted(note))


def _noted(note: Callable[[], str]) -> str:
    return ", ".join(part for part in (note(), _remark) if part)


def _print_lines(
    description: str, total: Callable[[], int], count: Callable[[], int], note: Callable[[], str], stop: threading.Event
) -> None:
    start, before = time.monotonic(), count()
    due, shown = start + _FIRST_LINE_S, (-1, "")
    while not stop.wait(_POLL_S):
        now, state = time.monotonic(), (count(), _remark)
        if now < due or state == shown:
            continue
        done = state[0]
        most = total()
        left_s = (now - start) * max(most - done, 0) / max(done - before, 1)
        rest = f"/{most}" * bool(most) + f", about {left_s:.0f} s left" * bool(most and done > before)
        say(", ".join(part for part in (f"{description}: {done}{rest}", _noted(note)) if part))
        due, shown = now + _LINE_EVERY_S, state
