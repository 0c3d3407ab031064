"""How long OpenMP's threads spin while they wait for each other: set before torch is loaded, which reads it once."""

import os

SPINS = "1000"
"""OpenMP's own 300,000 last milliseconds, and where other work has taken the core they are burnt in vain. These last
about as long as it takes to put a thread to sleep and to wake it. `benchmarks/spinning.py` compares."""


def spin_briefly() -> None:
    """Sets it for this process and those that it starts, unless the user has."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
