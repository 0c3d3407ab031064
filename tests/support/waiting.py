"""Waiting for what other threads do."""

import time


def until(condition):
    """Waits until a function returns something true; fails after a minute."""
    late = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.05)
