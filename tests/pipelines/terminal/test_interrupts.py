"""A command that is told to end does so at once, with one line, and running it again continues the work."""

import os
import signal
import time
from pathlib import Path

import forks
import pytest

from pipelines.cli import run
from pipelines.terminal.interrupts import ended_by_signals
from transforms.storage.files import TEMPORARY
from transforms.storage.unfinished import remove_unfinished, unfinished

REPOSITORY = Path(__file__).parents[3]

HANGS_IN_A_SHARD = """
import os, sys, time
from pipelines.cli import main

original = os.replace

def replace(source, target):
    if str(target).endswith(".tar"):
        print("a shard is being written", flush=True)
        time.sleep(60)
    original(source, target)

os.replace = replace
main(sys.argv[1:])
"""


def interrupted(number, *arguments):
    """Returns the message and exit code of a command that gets a signal while it writes its first shard."""
    process = forks.Fork(HANGS_IN_A_SHARD, *arguments)
    while not process.said:
        assert not process.ended, process.end()
        time.sleep(0.05)
    process.send(number)
    return process.end(30)


def temporary_files(folder):
    return [path for path in folder.rglob("*") if TEMPORARY.search(path.name)]


def finished(*arguments):
    return run(list(map(str, arguments))) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_render_ends_with_one_line_and_goes_on_the_next_time(number, tiny_checkpoint, tmp_path):
    words = (
        "--width=90",
        "--height=40",
        "--tile=32",
        f"--checkpoint={tiny_checkpoint}",
        f"--out={tmp_path / 'out'}",
        "--quiet",
    )
    assert interrupted(number, "render", *words) == (130, "infinitygan: interrupted\n")
    assert temporary_files(tmp_path) == []
    if number == signal.SIGINT:
        assert finished("render", *words)


def test_an_ingest_ends_with_one_line_and_goes_on_the_next_time(tmp_path):
    words = (REPOSITORY / "samples" / "aitzgorri.jpg", f"--out={tmp_path / 'out'}", "--quiet")
    assert interrupted(signal.SIGINT, "ingest", *words) == (130, "infinitygan: interrupted\n")
    assert temporary_files(tmp_path) == []
    assert finished("ingest", *words)


def test_a_signal_that_was_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup sets it
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_only_what_is_half_written_is_removed(tmp_path):
    half, whole, gone = (tmp_path / name for name in ("half", "whole", "gone"))
    half.touch()
    whole.touch()
    with unfinished(str(whole)):
        pass
    with unfinished(str(half)), unfinished(str(gone)):
        remove_unfinished()
    assert sorted(tmp_path.iterdir()) == [whole]
