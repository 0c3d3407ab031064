"""The process's memory: kept from going back to the kernel only to be asked for again a moment later, and measured."""

import ctypes
import sys

import torch

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


def peak_bytes(device: str) -> int:
    """The most memory that this process has held: on its GPU, or its own where it computes on the CPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    import resource  # which not every platform has

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
