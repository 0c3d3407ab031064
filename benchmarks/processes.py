"""Measures commands: time, processor time, and the peak memory of the command and its descendants."""

import os
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a command.

    Attributes:
        wall_s: The time from its start to its end.
        cpu_s: The processor time of all its processes; on a busy machine it is more reliable than the wall time.
        peak_mb: The peak memory of all its processes together.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float

    def __str__(self) -> str:
        return f"{self.wall_s:.1f} s, {self.cpu_s:.1f} CPU s, {self.peak_mb:.0f} MB"


def measure(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> Cost:
    """Runs a command to its end and returns its cost.

    Memory is the sum of proportional set sizes, so pages that processes share count once.

    Raises:
        RuntimeError: The command failed; the log contains its output.
    """
    peak_mb, before_s, seen_s = 0.0, children_s(), {}
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        while process.poll() is None:
            running = tree(process.pid)
            peak_mb = max(peak_mb, sum(map(size_mb, running)))
            seen_s |= {number: used for number in running if (used := used_s(number))}
            time.sleep(_EVERY_S)
        wall_s = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError(f"{command[0]} exited with {process.returncode}: see {log}")
    cpu_s = max(children_s() - before_s, sum(seen_s.values()))  # nobody waits for the last end of forked workers
    return Cost(wall_s, cpu_s, peak_mb)


def children_s() -> float:
    """Returns the processor time of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def used_s(process: int) -> float:
    """Returns the processor time that a process has used; 0 if it has just ended."""
    return sum(times_s(process)[:2])


def whole_s(root: int) -> float:
    """Returns the processor time that a process and all its descendants have used, those that have ended included."""
    return sum(sum(times_s(process)) for process in tree(root))


def times_s(process: int) -> list[float]:
    """Returns the user and system time of a process, then those of its children that have ended; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return [0.0] * 4
    return [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:15]]


def tree(root: int) -> list[int]:
    """Returns a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def size_mb(process: int) -> float:
    """Returns a process's proportional set size; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
