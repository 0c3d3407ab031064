"""Reads the header of a file of tensors without torch: whether it is one of ours, and how long it is."""

import json
from typing import Any

from model.errors import InputError

HEADER_KEY = "infinitygan"
MOST_BYTES = 2**31
"""The size limit of a file. The training state of the largest preset has a third of this size."""

LENGTH_BYTES, MOST_HEADER_BYTES = 8, 2**24
"""A file begins with the length of its header, which has a limit too."""


def read_header(content: bytes, name: str) -> dict[str, Any]:
    """Returns our JSON document from a safetensors header; `content` may be only the file's beginning, header included.

    Raises:
        InputError: The file is not a safetensors file of this project.
    """
    size = header_bytes(content[:LENGTH_BYTES], name)
    try:
        document = json.loads(json.loads(content[LENGTH_BYTES : LENGTH_BYTES + size])["__metadata__"][HEADER_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise foreign(name) from None
    if not isinstance(document, dict):
        raise foreign(name)
    return document


def header_bytes(start: bytes, name: str) -> int:
    """Returns the length of a safetensors header, given the first bytes of the file.

    Raises:
        InputError: The length is not that of a header of this project.
    """
    size = int.from_bytes(start, "little")
    if len(start) < LENGTH_BYTES or not 0 < size <= MOST_HEADER_BYTES:
        raise foreign(name)
    return size


def tensor_bytes(header: bytes, name: str) -> int:
    """Returns the number of bytes of tensors that a safetensors header announces.

    Raises:
        InputError: The header is invalid, or announces more bytes than the limit.
    """
    try:
        entries = json.loads(header)
        size = max(
            (int(entry["data_offsets"][1]) for key, entry in entries.items() if key != "__metadata__"), default=0
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
        raise foreign(name) from None
    if not 0 <= size <= MOST_BYTES:
        raise InputError(f"{name} announces {size} bytes of tensors; the limit is {MOST_BYTES}")
    return size


def foreign(name: str) -> InputError:
    """Returns the error for a file that is not one of ours."""
    return InputError(f"{name} is not an InfinityGAN checkpoint; give a .safetensors file that train wrote")
