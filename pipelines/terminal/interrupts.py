"""Ctrl-C, SIGTERM and SIGHUP: a command ends at once, with one line and one exit code.

Raising an exception would not do. Beam runs our code inside its own, in this thread or in others: it would take the
exception for the failure of one element, and go on or print a long traceback. A job can be killed at any moment, and
the same command then goes on where it was; so the process simply ends, after the files that it has half written are
removed.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from transforms.storage.unfinished import remove_unfinished

INTERRUPTED = 130
"""The exit code, whichever signal it was."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = b"\x1b[?25h\n"


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While the block runs, the signals end the process, but for those that were ignored, as nohup has it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may say what becomes of signals
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
    # Not by way of sys.stderr: the signal may have come while that was being written to.
    with suppress(OSError):  # the terminal may be gone: that is what SIGHUP says
        os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"infinitygan: interrupted\n")
    os._exit(INTERRUPTED)
