"""What is fuzzed. A target is an entry of `TARGETS`: how an input is made, and what must handle it."""

import os

import ingest_targets
import render_targets
import train_targets
from target import Target

TARGETS = {**ingest_targets.TARGETS, **render_targets.TARGETS, **train_targets.TARGETS}
"""What ``make fuzz`` goes through."""


def _raise(content: bytes) -> None:
    if content[0] == 3:
        raise ValueError("three")


def _hang(content: bytes) -> None:
    while content[0] == 3:
        pass


def _grow(content: bytes) -> None:
    bytearray((4 << 30) if content[0] == 3 else 1)


def _die(content: bytes) -> None:
    if content[0] == 3:
        os._exit(5)


FAULTY = {
    name: Target(lambda random: bytes([random.randrange(4)]), check)
    for name, check in (("raise", _raise), ("hang", _hang), ("grow", _grow), ("die", _die))
}
"""Code with faults, by which the driver itself is tested: each fails for the input 3."""
