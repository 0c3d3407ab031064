"""Faults that no retry would mend, reported so that the job ends at once.

A runner tries a failed bundle again, some of them many times and with pauses. For a full disk or a folder that a worker
cannot see that is a waste of minutes. So a worker reports such a fault through a counter of Beam, whose name says what
happened, and waits a little before it fails: meanwhile the process that submitted the job reads it and cancels the job.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from model.errors import InputError, one_line
from transforms.storage.retry import passes
from transforms.storage.tally import count_in_beam

FAULTS = "fault "
"""The start of the counters' names."""

HEARD_IN_S = 10.0
"""How long a worker waits for its report to be heard. The job is usually cancelled sooner."""

_HERE: list[object] = []
"""An item for each job that runs in this process."""


@contextmanager
def in_this_process() -> Iterator[None]:
    """While the block runs, errors are raised at once, because the job runs in this process."""
    job = object()
    _HERE.append(job)
    try:
        yield
    finally:
        _HERE.remove(job)


@contextmanager
def reported() -> Iterator[None]:
    """Reports an error of the block, in a step of a job, if no retry would mend it."""
    try:
        yield
    except (InputError, OSError) as error:
        if not _HERE and (isinstance(error, InputError) or not passes(error)):
            count_in_beam(f"{FAULTS}{type(error).__name__}: {one_line(error)}", 1)
            time.sleep(HEARD_IN_S)
        raise
