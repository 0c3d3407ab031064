"""Handles Ctrl-C, SIGTERM and SIGHUP: a command ends at once, with one line and one exit code.

Raising an exception would not work. Beam runs our code inside its own, in this thread or in others: it would treat
the exception as the failure of one element, and continue or print a long traceback. A job can be killed at any
moment and resumed by the same command. So the process removes its partly written files and exits.

A job that runs elsewhere is cancelled first, and the process waits for its end. A second signal ends it at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from transforms.storage.unfinished import remove_unfinished

INTERRUPTED = 130
"""The exit code for all of these signals."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = b"\x1b[?25h\n"

_CANCELS: list[Callable[[], None]] = []
_ASKED = threading.Event()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While the block runs, the signals end the process, except those that were ignored before (as under nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def cancelled_by_signals(cancel: Callable[[], None]) -> Iterator[None]:
    """While the block runs, the first signal calls a function, in a thread of its own, before it ends the process."""
    _CANCELS.append(cancel)
    try:
        yield
    finally:
        _CANCELS.remove(cancel)
        if _ASKED.is_set():
            threading.Event().wait()  # the thread that cancels ends the process


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Yields an event that the first signal sets, for work that ends by itself then; a second ends the process."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        for other, handler in before.items():
            signal.signal(other, handler)
        stop.set()
        write(b"infinitygan: stopping; interrupt again to leave at once\n")

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end(number: int, frame: FrameType | None) -> None:
    """Ends the process, or first the job that it waits for: a signal handler."""
    if _CANCELS and not _ASKED.is_set():
        _ASKED.set()
        write(b"infinitygan: cancelling the job; interrupt again to leave at once\n")
        # Not in this thread, because the signal may have arrived while the job's state was being requested.
        threading.Thread(target=cancel_and_leave, args=(tuple(_CANCELS),), daemon=True).start()
        return
    leave()


def cancel_and_leave(cancels: tuple[Callable[[], None], ...]) -> None:
    """Cancels what is running elsewhere, then ends the process."""
    for cancel in cancels:
        try:
            cancel()
        except Exception as error:  # a runner raises errors of its own
            write(f"infinitygan: the job cannot be cancelled: {' '.join(str(error).split())[:300]}\n".encode())
    leave()


def leave() -> None:
    """Removes partly written files and ends the process."""
    for other in SIGNALS:
        with suppress(ValueError):  # not in the main thread
            signal.signal(other, signal.SIG_IGN)
    remove_unfinished()
    write((SHOW_CURSOR if os.isatty(2) else b"") + b"infinitygan: interrupted\n")
    os._exit(INTERRUPTED)


def write(text: bytes) -> None:
    """Writes to stderr, but not through sys.stderr: the signal may have arrived while that was being written to."""
    with suppress(OSError):  # after SIGHUP the terminal is gone
        os.write(2, text)
