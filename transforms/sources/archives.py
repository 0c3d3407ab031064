"""WebDataset tars as sources: their pictures, with the metadata in the ``.json`` next to each.

Only the headers and the metadata are read here; each picture's bytes are read when it is prepared. A picture is located
by its place in the tar. Its name is the URL or path that its metadata give as its origin, if no other picture of the
tar has the same one; otherwise the tar's name and its own. The origin is never opened.
"""

import json
import os
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Final, cast

from model.errors import InputError, one_line
from transforms.sources.lists import LONGEST_TEXT, PICTURE_SUFFIXES, field_text, read_columns
from transforms.storage.byte_ranges import Piece
from transforms.storage.files import filesystem
from transforms.storage.text import clean_text
from transforms.training_set.records import Photograph, Reject

TAR_SUFFIX: Final = ".tar"
_METADATA_CAP_BYTES: Final = 1 << 20
_HEADER_CAP_BYTES: Final = 16 << 20
_CHUNK_BYTES: Final = 1 << 20


def read_archive(url: str) -> Iterator[Photograph | Reject]:
    """Yields the pictures of a tar, and a reject for each member that is not a picture or part of a picture's sample.

    Raises:
        InputError: the file is not a tar.
    """
    fs, path = filesystem(url)
    contents = _Contents(url)
    with fs.open(path, "rb") as file:
        begin: int | None = 0
        while begin is not None:
            begin = _read_one(contents, file, begin)
            contents.archive += 1
    yield from contents.items()


@dataclass
class _Contents:
    """The contents of a tar, as far as it has been read.

    Attributes:
        url: the URL of the tar.
        pictures: the pieces of the tar, by member name.
        metadata: the content of the ``.json`` members, by the archive that holds them and their names without suffix.
        partners: the key under which each picture's metadata would be found.
        archive: the number of the archive being read, of several that are joined.
        others: the members that are not pictures, with the reason.
        problems: what is wrong with the tar itself.
    """

    url: str
    pictures: dict[str, Piece] = field(default_factory=dict)
    metadata: dict[tuple[int, str], dict[str, Any]] = field(default_factory=dict)
    partners: dict[str, tuple[int, str]] = field(default_factory=dict)
    archive: int = 0
    others: dict[str, tuple[str, str]] = field(default_factory=dict)
    problems: list[Reject] = field(default_factory=list)
    _copies: Counter[Any] = field(default_factory=Counter)

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Records a member."""
        name = self._new_name(clean_text(member.name))
        paired, suffix = posixpath.splitext(self._numbered(clean_text(member.name), self.archive))
        if member.islnk() or member.issym():
            target = clean_text(member.linkname)
            self.others[name] = ("link", f"a link to {target}: only its target is taken")
        elif not member.isfile():
            if not member.isdir():
                self.others[name] = ("not_a_picture", "neither a file nor a folder")
        elif suffix.lower() in PICTURE_SUFFIXES:
            size = _stored_size(member)
            if size is None:
                self.others[name] = ("unreadable", "a sparse file with holes: make the tar without --sparse")
            else:
                self.pictures[name] = Piece(self.url, member.offset_data, size)
                self.partners[name] = (self.archive, paired)
        else:
            self.others[name] = ("not_a_picture", "by its name neither a picture nor part of a picture's sample")
            if suffix.lower() == ".json" and member.size <= _METADATA_CAP_BYTES:
                self.metadata[self.archive, paired] = _metadata(tar, member)

    def fail(self, reason: str, message: str) -> None:
        """Records a problem with the tar itself."""
        self.problems.append(Reject(self.url, "find", reason, message))

    def items(self) -> Iterator[Photograph | Reject]:
        """Yields the contents of the tar."""
        yield from self.problems[:1]
        if not self.pictures and not self.problems:
            yield Reject(self.url, "find", "not_a_picture", "a tar without pictures")
        rows = {name: self._said_of(name) for name in self.pictures}
        origins = Counter(_origin(row) for row in rows.values())
        for name, piece in self.pictures.items():
            row, origin = rows[name], _origin(rows[name])
            texts = {column: field_text(row.get(column)) for column in ("licence", "author", "title")}
            source = origin if origin and origins[origin] == 1 else f"{self.url}#{name}"
            yield Photograph(source, **texts, piece=piece)
        keys = {_key(name) for name in self.pictures}
        for name, (reason, message) in self.others.items():
            if reason != "not_a_picture" or _key(name) not in keys:
                yield Reject(f"{self.url}#{name}", "find", reason, message)

    def _said_of(self, name: str) -> dict[str, Any]:
        archive, paired = self.partners[name]
        return self.metadata.get((archive, paired)) or self.metadata.get((archive, _key(paired)), {})

    def _new_name(self, name: str) -> str:
        """Returns the name, with a number if another member already has it."""
        new = self._numbered(name, None)
        while new in self.pictures or new in self.others:
            new = self._numbered(name, None)
        return new

    def _numbered(self, name: str, archive: int | None) -> str:
        self._copies[name, archive] += 1
        number = self._copies[name, archive]
        stem, suffix = posixpath.splitext(name)
        return name if number == 1 else f"{stem}#{number}{suffix}"


class _TarFile:
    """The file of a tar. Long names and other headers are read whole, so their claimed size is bounded."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _HEADER_CAP_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes; at most {_HEADER_CAP_BYTES} are read")
        return self._file.read(size)


def _read_one(contents: _Contents, file: IO[bytes], begin: int) -> int | None:
    """Reads the archive that begins at a byte of a file; returns the start of the next: ``cat`` joins archives."""
    file.seek(begin)
    members = 0
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _TarFile(file)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                members += 1
                contents.add(tar, member)
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has read
            end: int = tar.offset  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
        if not contents.pictures and not contents.others:
            raise InputError(f"{contents.url} cannot be read as a tar: {one_line(error)}") from None
        contents.fail("truncated", f"the data after its first {members} members cannot be read: {one_line(error)}")
        return None
    size = file.seek(0, os.SEEK_END)
    if size < end + tarfile.BLOCKSIZE:
        contents.fail("truncated", "the tar ends too early; the part that can be read is taken")
        return None
    if begin and not members:
        contents.fail("truncated", f"the data after byte {begin} is not a tar; the part before it is taken")
        return None
    return _next_block(file, end)


def _next_block(file: IO[bytes], begin: int) -> int | None:
    """Returns the position of the first non-empty block at or after a byte; None if there is none."""
    file.seek(begin)
    while chunk := file.read(_CHUNK_BYTES):
        rest = chunk.lstrip(b"\0")
        if rest:
            return begin + (len(chunk) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        begin += len(chunk)
    return None


def _stored_size(member: tarfile.TarInfo) -> int | None:
    """Returns the number of bytes of a file that the tar stores in one piece; None if the file has holes."""
    if not member.issparse():
        return member.size
    pieces: list[tuple[int, int]] = getattr(member, "sparse", None) or []
    stored = [piece for piece in pieces if piece[1]]
    return stored[0][1] if len(stored) == 1 and stored[0][0] == 0 else None


def _origin(row: dict[str, Any]) -> str | None:
    """Returns a picture's origin by its metadata; None if that is not a URL or path."""
    url = row.get("url")
    return clean_text(url) if isinstance(url, str) and "/" in url and len(url) <= LONGEST_TEXT else None


def _key(name: str) -> str:
    """Returns a sample's key by WebDataset's rule: the name up to the first dot after its folder."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base[:1] + base[1:].split(".")[0])


def _metadata(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    """Returns the content of a sample's ``.json``; empty if it is not one."""
    content = tar.extractfile(member)
    try:
        row = json.loads(content.read()) if content else {}
    except (ValueError, RecursionError):
        return {}
    return read_columns(row) if isinstance(row, dict) else {}
