"""Fuzzing: many small, seeded inputs for code that reads bytes from outside.

Inputs are handled in a process that may take 2 GiB of memory and, for each input, 10 seconds. An input that raises,
hangs, or ends the process is saved, and a test that repeats it is printed.

    python tests/fuzz/driver.py [TARGET...] [--seed N] [--share X] [--out FOLDER]
"""

import argparse
import logging
import os
import queue
import resource
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from faulty import FAULTY
from target import Target

LIMIT_S = 10.0
MOST_WAITS, LEAST_SHARE = 10, 0.8
"""The multiple of the limit that an input may take while its process gets less than such a share of a processor."""

START_S = 300.0
LIMIT_BYTES = 2 << 30
HERE = Path(__file__).resolve()


@dataclass(frozen=True)
class Failure:
    """An input that was not handled.

    Attributes:
        target: the name of its target.
        number: the number of the input.
        content: the input.
        reason: the traceback, or how the process ended.
    """

    target: str
    number: int
    content: bytes
    reason: str

    def save(self, folder: Path) -> str:
        """Saves the input; returns a test that repeats it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{self.number}.bin"
        path.write_bytes(self.content)
        said = "\n".join(f"# {line}" for line in self.reason.splitlines())
        call = f"check({self.target!r}, Path({str(path)!r}).read_bytes())"
        return f"{said}\ndef test_{self.target}_{self.number}():\n    {call}\n"


def make(target: str, seed: int, number: int) -> bytes:
    """Returns an input, always the same for the same numbers."""
    return _named(target).make(Random(f"{target} {seed} {number}"))


def check(target: str, content: bytes) -> None:
    """Handles an input; raises any error that should not occur."""
    _named(target).check(content)


def _named(target: str) -> Target:
    """The target of a name. All that it is for is loaded only where it is one of those."""
    if target in FAULTY:
        return FAULTY[target]
    from targets import TARGETS

    return TARGETS[target]


@dataclass
class Outcome:
    """The outcome of some inputs.

    Attributes:
        failures: the inputs that were not handled.
        peak_bytes: the most memory that a process has used.
    """

    failures: list[Failure] = field(default_factory=list)
    peak_bytes: int = 0


def fuzz(targets: Sequence[str], seed: int, count: int, limit_s: float = LIMIT_S) -> Outcome:
    """Tries `count` inputs of the targets in turn. If a process had to be stopped, a new one goes on."""
    outcome = Outcome()
    first = 0
    while first < count:
        number, reason, peak_bytes = _work(targets, seed, first, count, limit_s)
        outcome.peak_bytes = max(outcome.peak_bytes, peak_bytes)
        if reason is None:
            break
        target = targets[number % len(targets)]
        outcome.failures.append(Failure(target, number, make(target, seed, number), reason))
        first = number + 1
    return outcome


def _work(targets: Sequence[str], seed: int, first: int, count: int, limit_s: float) -> tuple[int, str | None, int]:
    """Handles inputs until one fails; returns its number, the reason (None at the end), and the memory used."""
    command = [sys.executable, str(HERE), *targets, "--seed", str(seed), "--count", str(count), "--first", str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines: queue.Queue[str] = queue.Queue()
        said: list[str] = []
        readers = [
            threading.Thread(target=lambda: [lines.put(line) for line in process.stdout] + [lines.put("")]),
            threading.Thread(target=lambda: said.extend(process.stderr)),
        ]
        for reader in readers:
            reader.start()
        number, peak_bytes = first, 0
        try:
            line = lines.get(timeout=START_S)
            while line:
                number, peak_bytes = map(int, line.split())
                line = _next_line(lines, process.pid, limit_s)
        except queue.Empty:
            process.kill()
            return number, f"not done after {limit_s:g} s", peak_bytes
        finally:
            for reader in readers:
                reader.join()
    if number == count:
        return number, None, peak_bytes
    return number, "".join(said) or f"the process ended with {process.returncode}", peak_bytes


def _next_line(lines: "queue.Queue[str]", pid: int, limit_s: float) -> str:
    """Returns the worker's next line. On a busy machine the worker gets more time, until it has had its share.

    Raises:
        queue.Empty: the worker hangs.
    """
    begin_s = _processor_s(pid)
    for _ in range(MOST_WAITS):
        try:
            return lines.get(timeout=limit_s)
        except queue.Empty:
            if _processor_s(pid) - begin_s > LEAST_SHARE * limit_s:
                break
    raise queue.Empty


def _processor_s(pid: int) -> float:
    """Returns the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _be_worker(targets: Sequence[str], seed: int, first: int, count: int) -> None:
    """Prints the number of each input before it is handled, and finally the count, with the most memory so far."""
    warnings.simplefilter("ignore")
    logging.disable()
    for target in targets:
        make(target, seed, first)  # loads all that it needs, which does not count to the input's memory
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + LIMIT_BYTES,) * 2)
    for number in range(first, count):
        print(number, peak_bytes(), flush=True)
        target = targets[number % len(targets)]
        try:
            check(target, make(target, seed, number))
        except Exception:
            traceback.print_exc()
            sys.exit(1)
    print(count, peak_bytes(), flush=True)


def peak_bytes() -> int:
    """Returns the most memory that this process has used; getrusage would count the process that started it too."""
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def main() -> None:
    """Fuzzes, or handles inputs as the worker of a run that does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs that each target has")
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    for name in ("--first", "--count"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first is not None:
        _be_worker(arguments.targets, arguments.seed, arguments.first, arguments.count)
        return
    from targets import TARGETS

    failed = 0
    for target in arguments.targets or TARGETS:
        count, begin_s = max(1, round(TARGETS[target].inputs * arguments.share)), time.monotonic()
        outcome = fuzz([target], arguments.seed, count)
        spent = f"{time.monotonic() - begin_s:.0f} s, {outcome.peak_bytes / 2**20:.0f} MiB at most"
        print(f"{target}: {count} inputs, {spent}, {len(outcome.failures)} failures", flush=True)
        print("".join(failure.save(arguments.out) + "\n" for failure in outcome.failures), end="", flush=True)
        failed += len(outcome.failures)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
