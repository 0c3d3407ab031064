"""WebDataset tars as sources: their pictures, with what the ``.json`` beside each says of it.

Only the headers and the metadata are read here; each picture's bytes are read where it is prepared.
"""

import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from typing import Any, Final

from model.errors import InputError, one_line
from transforms.lists import PICTURE_SUFFIXES, read_columns
from transforms.pieces import Piece
from transforms.records import Photograph, Reject
from transforms.storage import filesystem

TAR_SUFFIX: Final = ".tar"
_METADATA_CAP_BYTES: Final = 1 << 20


def read_archive(url: str) -> Iterator[Photograph | Reject]:
    """The pictures of a tar. One is named by the URL or path it once came from, if its metadata say that.

    Raises:
        InputError: it is no tar.
    """
    fs, path = filesystem(url)
    pieces: dict[str, Piece] = {}
    metadata: dict[str, dict[str, Any]] = {}
    try:
        with fs.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, suffix = posixpath.splitext(member.name)
                if not member.isfile():
                    continue
                if suffix.lower() in PICTURE_SUFFIXES:
                    pieces[member.name] = Piece(url, member.offset_data, member.size)
                elif suffix == ".json" and member.size <= _METADATA_CAP_BYTES:
                    metadata[key] = _metadata(tar, member)
            is_whole = file.seek(0, os.SEEK_END) >= tar.offset + tarfile.BLOCKSIZE  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{url} cannot be read as a tar: {one_line(error)}") from None
    if not is_whole:
        yield Reject(url, "find", "truncated", "the tar ends too early; what can be read of it is taken")
    if not pieces:
        yield Reject(url, "find", "not_a_picture", "a tar without pictures")
    for name, piece in pieces.items():
        row = metadata.get(posixpath.splitext(name)[0], {})
        texts = {field: value for field, value in row.items() if isinstance(value, str) and value}
        source = texts.pop("url", f"{url}#{name}")
        yield Photograph(source, **texts, piece=piece)


def _metadata(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    """What a sample's ``.json`` says; nothing if it is none."""
    content = tar.extractfile(member)
    try:
        row = json.loads(content.read()) if content else {}
    except ValueError:
        return {}
    return read_columns(row) if isinstance(row, dict) else {}
