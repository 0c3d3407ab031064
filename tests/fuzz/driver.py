"""Fuzzing: many small, seeded inputs for code that reads bytes from outside.

Inputs are handled in a process that may take 2 GiB of memory and, for each input, 10 seconds. An input that raises,
hangs, or ends the process is saved, and a test that repeats it is printed.

    python tests/fuzz/driver.py [TARGET...] [--seed N] [--count N] [--out FOLDER]
"""

import argparse
import queue
import resource
import subprocess
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random

LIMIT_S = 10.0
START_S = 120.0
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
    from targets import FAULTY, TARGETS

    return (TARGETS | FAULTY)[target].make(Random(f"{target} {seed} {number}"))


def check(target: str, content: bytes) -> None:
    """Handles an input; raises any error that should not occur."""
    from targets import FAULTY, TARGETS

    (TARGETS | FAULTY)[target].check(content)


def fuzz(target: str, seed: int, count: int, limit_s: float = LIMIT_S) -> list[Failure]:
    """Returns the inputs of a target that were not handled. If a process had to be stopped, a new one goes on."""
    failures: list[Failure] = []
    first = 0
    while first < count:
        number, reason = _work(target, seed, first, count, limit_s)
        if reason is None:
            break
        failures.append(Failure(target, number, make(target, seed, number), reason))
        first = number + 1
    return failures


def _work(target: str, seed: int, first: int, count: int, limit_s: float) -> tuple[int, str | None]:
    """Handles inputs until one fails; returns its number and the reason, or None at the end."""
    command = [sys.executable, str(HERE), target, "--seed", str(seed), "--count", str(count), "--first", str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines: queue.Queue[str] = queue.Queue()
        said: list[str] = []
        readers = [
            threading.Thread(target=lambda: [lines.put(line) for line in process.stdout] + [lines.put("")]),
            threading.Thread(target=lambda: said.extend(process.stderr)),
        ]
        for reader in readers:
            reader.start()
        number = first
        try:
            line = lines.get(timeout=START_S)
            while line:
                number = int(line)
                line = lines.get(timeout=limit_s)
        except queue.Empty:
            process.kill()
            return number, f"not done after {limit_s:g} s"
        finally:
            for reader in readers:
                reader.join()
    if number == count:
        return number, None
    return number, "".join(said) or f"the process ended with {process.returncode}"


def _be_worker(target: str, seed: int, first: int, count: int) -> None:
    """Prints the number of each input before it is handled, and the count at the end."""
    warnings.simplefilter("ignore")
    make(target, seed, first)  # loads all that it needs, which does not count to the input's memory
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + LIMIT_BYTES,) * 2)
    for number in range(first, count):
        print(number, flush=True)
        try:
            check(target, make(target, seed, number))
        except Exception:
            traceback.print_exc()
            sys.exit(1)
    print(count, flush=True)


def main() -> None:
    """Fuzzes, or handles inputs as the worker of a run that does."""
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(TARGETS)}; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=15_000, help="inputs for each target")
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first is not None:
        _be_worker(arguments.targets[0], arguments.seed, arguments.first, arguments.count)
        return
    failed = 0
    for target in arguments.targets or TARGETS:
        failures = fuzz(target, arguments.seed, arguments.count)
        print(f"{target}: {arguments.count} inputs, {len(failures)} failures", flush=True)
        print("\n".join(failure.save(arguments.out) for failure in failures))
        failed += len(failures)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
