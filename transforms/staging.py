"""The folder of a training set while it is being made, and what is left there when that goes wrong.

``.staging`` below it holds the encoded images on their way into shards. It is made first and removed last, so where it
stands without a ``dataset.json`` a run was killed, and what that run wrote can go.
"""

import os
import posixpath
import re
import socket
from typing import Any

from model.errors import InputError
from transforms.storage import TEMPORARY, exists, filesystem, join, list_files, read_json, write_json
from transforms.training_shards import DATASET

STAGING = ".staging"
_RUN = "run.json"
_SHARD = re.compile(r"(train|val|test)-\d{6,}\.tar")
_OURS = re.compile(rf"{_SHARD.pattern}|index\.parquet|rejects\.parquet|dataset\.json")


def check_out(out: str) -> None:
    """Makes sure that a new training set can be written to a folder. Changes nothing.

    Raises:
        InputError: there is a data set already, a run at work, or shards that no killed run explains.
    """
    fs, path = filesystem(out)
    fs.invalidate_cache(path)
    if fs.isfile(path):
        raise InputError(f"{out} is a file: --out must be a folder")
    if exists(join(out, DATASET)):
        raise InputError(f"{out} already holds a data set; choose another --out or remove it")
    if exists(join(out, STAGING)):
        _refuse_run_at_work(out)
    elif any(_SHARD.fullmatch(name) for name in list_files(out)):
        raise InputError(f"{out} holds shards without a {DATASET}; choose another --out or remove them")


def begin(out: str) -> None:
    """Removes what a killed run left, and marks the folder as being written by this process.

    Raises:
        InputError: as `check_out` does, which may have been called a while ago.
    """
    check_out(out)
    if exists(join(out, STAGING)):
        discard(out)
    write_json(join(out, STAGING, _RUN), {"host": socket.gethostname(), "process": os.getpid()})


def discard(out: str) -> None:
    """Removes what an unfinished run has written, half-written files included."""
    fs, path = filesystem(out)
    fs.invalidate_cache(path)
    for entry in fs.ls(path, detail=True) if fs.isdir(path) else []:
        if entry["type"] == "file" and _is_ours(entry["name"]):
            fs.rm_file(entry["name"])
    finish(out)


def finish(out: str) -> None:
    """Removes the staged images, which are in the shards now."""
    fs, path = filesystem(join(out, STAGING))
    fs.invalidate_cache(path)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _is_ours(path: str) -> bool:
    """Whether a run of this job writes a file of this name; it does so under a temporary name first."""
    return _OURS.fullmatch(TEMPORARY.sub("", posixpath.basename(path))) is not None


def _refuse_run_at_work(out: str) -> None:
    """Raises InputError if another process may be writing a training set here.

    Whether a process of another host is alive cannot be known from here, so it is taken to be.
    """
    mark = join(out, STAGING, _RUN)
    try:
        run: dict[str, Any] = read_json(mark)
        host, process = run["host"], run["process"]
        dead = host == socket.gethostname() and (process == os.getpid() or not _is_alive(process))
    except (FileNotFoundError, InputError, KeyError, TypeError):
        return  # a run at work has its mark there, whole
    if not dead:
        raise InputError(
            f"{out} is being written by process {process} of {host}; wait for it or, if it is dead, remove {mark}"
        )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # another user's
    except (ProcessLookupError, OverflowError):
        return False
    return True
