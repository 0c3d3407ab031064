"""Keeps glibc from giving each large tensor's memory back to the kernel, only to ask for it again a moment later."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_THRESHOLD_BYTES = 32 << 20  # glibc takes no larger one


def reuse_freed_memory() -> None:
    """Makes this process reuse freed blocks of up to 32 MB instead of returning them.

    A training step on the CPU takes half the time so: the rest went into the kernel zeroing pages. Peak memory stays
    what it is. Where the C library is not glibc nothing changes.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
