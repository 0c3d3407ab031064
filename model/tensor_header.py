"""The header of a file of tensors, read without torch: whether it is one of ours, and how long it is."""

import json
from typing import Any

from model.errors import InputError

HEADER_KEY = "infinitygan"
MOST_BYTES = 2**31
"""A larger file is not read. The largest preset's training state has a third of that."""

LENGTH_BYTES, MOST_HEADER_BYTES = 8, 2**24
"""A file begins with the length of its header. A header that says it is longer is not read either."""


def read_header(content: bytes, name: str) -> dict[str, Any]:
    """Our JSON document in a safetensors header; `content` may be only the file's beginning, header included.

    Raises:
        InputError: it is no safetensors file of this project.
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
    """The length of a safetensors header, by the first bytes of the file.

    Raises:
        InputError: no header of this project is so long.
    """
    size = int.from_bytes(start, "little")
    if len(start) < LENGTH_BYTES or not 0 < size <= MOST_HEADER_BYTES:
        raise foreign(name)
    return size


def tensor_bytes(header: bytes, name: str) -> int:
    """How many bytes of tensors follow a safetensors header, by what it says.

    Raises:
        InputError: it is no header, or says that there are more than are read.
    """
    try:
        entries = json.loads(header)
        size = max(
            (int(entry["data_offsets"][1]) for key, entry in entries.items() if key != "__metadata__"), default=0
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
        raise foreign(name) from None
    if not 0 <= size <= MOST_BYTES:
        raise InputError(f"{name} says that it holds {size} bytes of tensors; at most {MOST_BYTES} are read")
    return size


def foreign(name: str) -> InputError:
    """What is said of a file that is none of ours."""
    return InputError(f"{name} is not an InfinityGAN checkpoint; give a .safetensors file that train wrote")
