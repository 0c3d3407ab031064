"""Byte ranges of files: where in a tar the bytes of a picture are. Several are read at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from model.checks import is_count
from model.errors import InputError
from transforms.storage.files import filesystem

READ_AT_ONCE = 64
"""The number of ranges read at once. An object store answers that many requests in little more time than one."""

READ_AT_ONCE_BYTES = 256 << 20
"""The number of bytes read at once; a single longer piece is still read whole."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A byte range of a file.

    Attributes:
        url: the URL of the file.
        offset_bytes: the position of the first byte.
        size_bytes: the number of bytes.

    Raises:
        InputError: no file can have such a range.
    """

    url: str
    offset_bytes: int
    size_bytes: int

    def __post_init__(self) -> None:
        if not (isinstance(self.url, str) and is_count(self.offset_bytes) and is_count(self.size_bytes)):
            raise InputError(f"{self.url!r} has no {self.size_bytes!r} bytes from {self.offset_bytes!r} on")


def read_pieces(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Yields the bytes of each piece, in order; only a few are held in memory.

    Raises:
        OSError: a file is missing, or ends before a piece does.
    """
    for content in read_each(pieces):
        if isinstance(content, Exception):
            raise content
        yield content


def read_each(pieces: Iterable[Piece]) -> Iterator[bytes | Exception]:
    """Yields the bytes of each piece, in order, or the error if it cannot be read; only a few are held in memory."""
    for chunk in _chunks(pieces):
        fs, _ = filesystem(chunk[0].url)
        paths = [filesystem(piece.url)[1] for piece in chunk]
        starts = [piece.offset_bytes for piece in chunk]
        ends = [piece.offset_bytes + piece.size_bytes for piece in chunk]
        for piece, content in zip(chunk, fs.cat_ranges(paths, starts, ends, on_error="return"), strict=True):
            if isinstance(content, Exception) or len(content) == piece.size_bytes:
                yield content
            else:
                yield OSError(f"{piece.url} ends before byte {piece.offset_bytes + piece.size_bytes}")


def _chunks(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yields the pieces in groups that are read at once."""
    chunk: list[Piece] = []
    size_bytes = 0
    for piece in pieces:
        if chunk and (len(chunk) == READ_AT_ONCE or size_bytes + piece.size_bytes > READ_AT_ONCE_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(piece)
        size_bytes += piece.size_bytes
    if chunk:
        yield chunk
