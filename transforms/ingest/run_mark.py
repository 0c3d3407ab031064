"""The mark of the run that writes a training set, so that no two runs write the same one.

It names the run, and is the mark of the fence around all that the run's workers write.
"""

import os
import socket
import uuid
from collections.abc import Mapping
from typing import Any

from model.errors import InputError
from transforms.storage.fence import RUN, Fenced, RunFence, alone_in
from transforms.storage.files import join, read_json, write_json

STAGING = ".staging"
_RUN = "run.json"


def mark_run(out: str, configuration: Mapping[str, object]) -> Fenced:
    """Records that a new run writes a training set, and its options; returns the folder, behind the run's fence."""
    mark, run = mark_of(out), uuid.uuid4().hex[:12]
    owner = {"host": socket.gethostname(), "process": os.getpid(), "configuration": configuration}
    with alone_in(out):
        write_json(mark, {RUN: run, **owner})
    return Fenced(out, RunFence(out, mark, run))


def revoke(out: str) -> None:
    """Ends the current run, if there is one, so that its workers change nothing more. A new run can continue it."""
    with alone_in(out):
        run = read_run(out)
        if run:
            write_json(mark_of(out), {**run, RUN: "none, because the run was cancelled"})


def mark_of(out: str) -> str:
    """Returns the path of the mark."""
    return join(str(out), STAGING, _RUN)


def refuse_run_at_work(out: str) -> None:
    """Raises InputError if another process may be writing a training set here.

    Whether a process on another host is alive cannot be known from here, so it counts as alive.
    """
    run = read_run(out)
    try:
        host, process = run["host"], run["process"]
        dead = host == socket.gethostname() and (process == os.getpid() or not _is_alive(process))
    except (KeyError, TypeError):
        return  # a run at work has a complete mark there
    if not dead:
        mark = mark_of(out)
        raise InputError(
            f"{out} is being written by process {process} of {host}; wait for it or, if it is dead, remove {mark}"
        )


def read_run(out: str) -> dict[str, Any]:
    """Returns the mark of the last run that wrote here; empty if there is none."""
    try:
        run = read_json(mark_of(out))
    except (FileNotFoundError, InputError):
        return {}
    return run if isinstance(run, dict) else {}


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # another user's
    except (ProcessLookupError, OverflowError):
        return False
    return True
