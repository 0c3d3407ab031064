"""Keeps glibc from giving each large tensor's memory back to the kernel, only to ask for it again a moment later."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


def reuse_freed_memory() -> None:
    """Makes this process reuse freed blocks, however large, instead of returning them.

    A training step and a tile take up to twice as long without: the rest goes into the kernel zeroing pages. One arena,
    since those of further threads give their memory back all the same. Peak memory stays what it is. Where the C
    library is not glibc nothing changes.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)
