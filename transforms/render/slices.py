"""Slices of a job: parts of about the same size that machines without a common runner render, each by a command."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from model.errors import InputError

AUTO: Final = "auto"
"""The value of --slice that takes the slice from the environment of an array's task."""

TASK, FIRST, LAST, STEP, TASKS = (f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))
INDEX, COMPLETIONS = "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"
"""Kubernetes sets the first. It does not tell a pod how many completions its job has, so the user sets the second."""

_SLICE: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Slice:
    """One of `count` parts of a job's requests. Each request belongs to one of them, whatever the other requests are.

    Attributes:
        number: the number of the part, counted from 0 or from 1: the parts 0 and `count` are the same.
        count: the number of parts.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, name: str) -> bool:
        """Returns whether a request, given by its id, belongs to this part."""
        first_bytes = hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8]
        return int.from_bytes(first_bytes, "big") % self.count == self.number % self.count


def parse_slice(text: str, environment: Mapping[str, str]) -> Slice:
    """Returns the slice that --slice names.

    Args:
        text: the value of --slice.
        environment: the process's environment, for `AUTO`.

    Raises:
        InputError: the text is not a slice, or the environment is not that of an array's task.
    """
    if text == AUTO:
        return slice_of_task(environment)
    match = _SLICE.fullmatch(text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not number <= count or count == 0:
        raise InputError(
            f"--slice {text}: give {AUTO}, or the number of a slice and how many there are, such as 3/16; count them "
            "from 0 to 15 or from 1 to 16"
        )
    return Slice(number, count)


def slice_of_task(environment: Mapping[str, str]) -> Slice:
    """Returns the slice of a task of a Slurm array, or of a pod of a Kubernetes Indexed Job.

    Raises:
        InputError: the process is neither, or cannot tell how many others there are.
    """
    if TASK in environment:
        task, first, last, step, count = (_number(environment, name) for name in (TASK, FIRST, LAST, STEP, TASKS))
        if step < 1 or first + step * (count - 1) != last:
            raise InputError(
                f"--slice {AUTO}: the {count} tasks of this Slurm array, {first} to {last}, are not evenly spaced; "
                "submit a range such as --array=0-15, or give --slice N/COUNT"
            )
        return Slice((task - first) // step, count)
    if INDEX in environment:
        if COMPLETIONS not in environment:
            raise InputError(
                f"--slice {AUTO}: {INDEX} is set, but Kubernetes does not tell a pod the number of completions; set "
                f"{COMPLETIONS} in the job's manifest"
            )
        return _slice_of_pod(environment[INDEX], environment[COMPLETIONS])
    raise InputError(f"--slice {AUTO}: neither {TASK} (Slurm) nor {INDEX} (Kubernetes) is set; give --slice N/COUNT")


def _slice_of_pod(index: str, completions: str) -> Slice:
    match = _SLICE.fullmatch(f"{index}/{completions}")
    if not match or not int(index) < int(completions):
        raise InputError(
            f"--slice {AUTO}: {INDEX} is {index}, but {COMPLETIONS} is {completions}; in the job's manifest, "
            f"set {COMPLETIONS} to the number of completions"
        )
    return Slice(int(index), int(completions))


def array_task(environment: Mapping[str, str]) -> str | None:
    """Returns the variable that says that a process is one of many tasks, with its value; None if it is not one."""
    return next((f"{name}={environment[name]}" for name in (TASK, INDEX) if name in environment), None)


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except (KeyError, ValueError):
        raise InputError(
            f"--slice {AUTO}: {name} is {environment.get(name, 'not set')}, but Slurm sets it to a number for each "
            "task of an array; give --slice N/COUNT"
        ) from None
