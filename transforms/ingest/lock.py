"""The mark of the run that writes a training set, so that no two runs write the same one."""

import os
import socket
from collections.abc import Mapping
from typing import Any

from model.errors import InputError
from transforms.storage.files import join, read_json, write_json

STAGING = ".staging"
_RUN = "run.json"


def mark_run(out: str, configuration: Mapping[str, object]) -> None:
    """Records that this process writes a training set, and its options."""
    run = {"host": socket.gethostname(), "process": os.getpid(), "configuration": configuration}
    write_json(join(out, STAGING, _RUN), run)


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
        mark = join(out, STAGING, _RUN)
        raise InputError(
            f"{out} is being written by process {process} of {host}; wait for it or, if it is dead, remove {mark}"
        )


def read_run(out: str) -> dict[str, Any]:
    """Returns the mark of the last run that wrote here; empty if there is none."""
    try:
        run = read_json(join(out, STAGING, _RUN))
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
