"""What a command costs: its time, and the most memory that it and all its descendants held at one moment."""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_EVERY_S = 0.2


def measure(command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Runs a command to its end; its time in seconds, and its peak memory in MB.

    Memory is the sum of proportional set sizes: pages that processes share count once.

    Raises:
        RuntimeError: it failed; what it said stands in the log.
    """
    peak_mb = 0.0
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        while process.poll() is None:
            peak_mb = max(peak_mb, sum(map(size_mb, tree(process.pid))))
            time.sleep(_EVERY_S)
        duration_s = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError(f"{command[0]} exited with {process.returncode}: see {log}")
    return duration_s, peak_mb


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
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
    """A process's proportional set size; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
