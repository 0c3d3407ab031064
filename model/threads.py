"""Limits OpenMP's threads: how long they spin while they wait for each other, and how many a worker process has."""

import os
from pathlib import Path

SPINS = "1000"
"""OpenMP's default of 300,000 spins lasts milliseconds, which are wasted if other work has taken the core. This number
lasts about as long as putting a thread to sleep and waking it. With 3000, a process alone is a tenth faster, but one
that shares the cores needs a quarter more processor time. `benchmarks/spinning.py` compares them."""

WORKER = "apache_beam.runners.worker.sdk_worker"
"""What the command line of each worker process of a Beam job contains, whatever the runner."""


def spin_briefly() -> None:
    """Sets the limit for this process and its children, unless the user has set one. Call it before torch is loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def threads_of_a_worker() -> int | None:
    """Returns the number of threads that a worker process may use: its share of the machine's cores.

    Returns:
        None if this process is not one of several workers on this machine, or if the user has set a number.
    """
    commands = worker_commands()
    if "OMP_NUM_THREADS" in os.environ or str(os.getpid()) not in commands or len(commands) < 2:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // len(commands))


def worker_commands(processes: Path = Path("/proc")) -> dict[str, str]:
    """Returns the command lines of the worker processes on this machine, by process id; empty where none are listed.

    A process that has started workers, such as the one that they are forked from, is none itself.
    """
    found, parents = {}, set()
    for folder in processes.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
            if WORKER in words:
                found[folder.name] = words
                parents.add((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has ended, or belongs to another user
            continue
    return {number: words for number, words in found.items() if number not in parents}
