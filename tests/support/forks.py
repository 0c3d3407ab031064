"""Processes that cost little: forks of one that has imported the project already, as Python's fork server makes them.

For tests of what becomes of a job when its process is killed, say. What a command imports, and how a real process of
it ends, is for tests that start one.
"""

import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "pipelines.cli", "pipelines.ingest", "pipelines.render", "pipelines.train"])

PRELUDE = """
import os, signal, sys
for number, path in ((1, said), (2, complained)):
    os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
os.environ.update(environment)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.argv = ["-c", *words]
"""


class Fork:
    """A process that runs a program, in the text of which `sys.argv[1:]` are the words given."""

    def __init__(self, program: str, *words: object, **environment: str) -> None:
        self._said, self._complained = (self._new_file() for _ in range(2))
        names = {"__name__": "__main__", "said": self._said, "complained": self._complained}
        names |= {"words": [str(word) for word in words], "environment": environment}
        self._process = FORKS.Process(target=exec, args=(PRELUDE + program, names), daemon=True)
        self._process.start()

    @staticmethod
    def _new_file() -> str:
        handle, path = tempfile.mkstemp(prefix="fork-")
        os.close(handle)
        return path

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.exitcode is not None

    @property
    def said(self) -> str:
        """What it has written to its standard output so far."""
        return Path(self._said).read_text()

    @property
    def complained(self) -> str:
        """What it has written to its standard error so far."""
        return Path(self._complained).read_text()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        os.kill(self._process.pid, number)

    def end(self, timeout_s: float = 120) -> tuple[int, str]:
        """Waits for its end; its exit code, below 0 for a signal, and what it has written to its standard error."""
        self._process.join(timeout_s)
        assert self.ended, "the process goes on and on"
        complained = self.complained
        for path in (self._said, self._complained):
            os.remove(path)
        return self._process.exitcode, complained


def run(program: str, *words: object, **environment: str) -> tuple[int, str]:
    """Runs a program to its end; its exit code and what it has written to its standard error."""
    return Fork(program, *words, **environment).end()
