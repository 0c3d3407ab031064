"""Controls whether glibc keeps freed memory for the next tensor or returns it to the kernel at once."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
_RETURNED_BYTES = 1 << 20


def reuse_freed_memory() -> None:
    """Makes this process reuse freed blocks of any size instead of returning them to the kernel.

    Otherwise a training step or a tile takes up to twice as long, because the kernel zeroes new pages each time. There
    is only one arena, since the arenas of other threads would still return memory. Peak memory is unchanged. Has no
    effect without glibc.
    """
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_ARENA_MAX: 1})


def use_systems_pool() -> None:
    """Makes Arrow allocate like the rest of the process, unless the user has chosen. Call it before Arrow is loaded.

    Its own pool would keep tens of megabytes that were freed after each table.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def return_freed_memory() -> None:
    """Makes this process return freed blocks of a mebibyte or more at once.

    By default glibc learns to keep large blocks, separately for each thread, so decoders would hold several times the
    memory of their pictures. Has no effect without glibc.
    """
    _set({_M_MMAP_THRESHOLD: _RETURNED_BYTES, _M_TRIM_THRESHOLD: _RETURNED_BYTES})


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
