"""Handles Ctrl-C, SIGTERM and SIGHUP: a command ends at once, with one line and one exit code.

Raising an exception would not work. Beam runs our code inside its own, in this thread or in others: it would treat
the exception as the failure of one element, and continue or print a long traceback. A job can be killed at any
moment and resumed by the same command. So the process removes its partly written files and exits.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from transforms.storage.unfinished import remove_unfinished

INTERRUPTED = 130
"""The exit code for all of these signals."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = b"\x1b[?25h\n"


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


def end(number: int, frame: FrameType | None) -> None:
    """Ends the process: a signal handler."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    remove_unfinished()
    # sys.stderr is bypassed: the signal may have arrived while it was being written to.
    with suppress(OSError):  # after SIGHUP the terminal is gone
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"infinitygan: interrupted\n")
    os._exit(INTERRUPTED)
