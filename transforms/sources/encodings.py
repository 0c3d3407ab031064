"""Bodies that a server compressed in transit, although it was asked not to."""

import zlib
from typing import Final

_PACKED: Final = {"br", "zstd", "compress", "x-compress", "dcb", "dcz"}
"""Compression methods that browsers know and that are not decompressed here."""


class EncodingError(ValueError):
    """Raised for a body that cannot be decompressed."""


def decoded(content: bytes, encodings: str, cap_bytes: int) -> bytes:
    """Decompresses a body, up to one byte more than is allowed, whatever it would unpack to.

    A body that is called gzip or deflate but is neither stays as it is, and so does one of an unknown encoding: servers
    write "none", or a character set.

    Args:
        content: the body.
        encodings: the header Content-Encoding.
        cap_bytes: the number of bytes that are allowed.

    Raises:
        EncodingError: the compression is unknown, or the body ends too early.
    """
    for name in reversed([name.strip().lower() for name in encodings.split(",")]):
        if name in _PACKED:
            raise EncodingError(f"the server sent it compressed with {name}, although asked not to compress it")
        if name in ("gzip", "x-gzip") and content[:2] == b"\x1f\x8b":
            content = _unpack(content, 16 + zlib.MAX_WBITS, cap_bytes)
        elif name == "deflate" and content[:1] == b"\x78" and int.from_bytes(content[:2], "big") % 31 == 0:
            content = _unpack(content, zlib.MAX_WBITS, cap_bytes)
    return content


def _unpack(content: bytes, wbits: int, cap_bytes: int) -> bytes:
    stream = zlib.decompressobj(wbits)
    try:
        unpacked = stream.decompress(content, cap_bytes + 1)
    except zlib.error as error:
        raise EncodingError(f"it cannot be decompressed: {error}") from None
    if not stream.eof and len(unpacked) <= cap_bytes:
        raise EncodingError("the compressed data was cut off")
    return unpacked
