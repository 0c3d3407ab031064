"""Whether glibc keeps memory that has been freed, for the next tensor, or gives it back to the kernel at once."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
_RETURNED_BYTES = 1 << 20


def reuse_freed_memory() -> None:
    """Makes this process reuse freed blocks, however large, instead of returning them.

    A training step and a tile take up to twice as long without: the rest goes into the kernel zeroing pages. One arena,
    since those of further threads give their memory back all the same. Peak memory stays what it is. Where the C
    library is not glibc nothing changes.
    """
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_ARENA_MAX: 1})


def return_freed_memory() -> None:
    """Makes this process return freed blocks of a mebibyte or more at once.

    By itself glibc learns to keep large ones, and each thread keeps its own: decoders would hold several times what
    their pictures take. Where the C library is not glibc nothing changes.
    """
    _set({_M_MMAP_THRESHOLD: _RETURNED_BYTES, _M_TRIM_THRESHOLD: _RETURNED_BYTES})


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
