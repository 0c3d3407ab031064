"""Code with faults, by which the driver itself is tested."""

import os

from target import Target


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
"""Each fails for the input 3."""
