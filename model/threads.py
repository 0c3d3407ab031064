"""Limits how long OpenMP's threads spin while they wait for each other. Must run before torch is loaded."""

import os

SPINS = "1000"
"""OpenMP's default of 300,000 spins lasts milliseconds, which are wasted if other work has taken the core. This number
lasts about as long as putting a thread to sleep and waking it. `benchmarks/spinning.py` compares them."""


def spin_briefly() -> None:
    """Sets the limit for this process and its children, unless the user has set one."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
