"""Lists of photographs: a URL or path a row, with its licence, author and title where the list has such columns."""

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa

from model.errors import InputError, one_line
from transforms.records import Photograph, Reject
from transforms.tables import parse_table

PICTURE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff"),
    *(".bmp", ".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".tga", ".mpo"),
)
LIST_SUFFIXES: Final = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
_COLUMNS: Final = {
    "url": ("url", "source", "image_url", "file"),
    "licence": ("licence", "license"),
    "author": ("author",),
    "title": ("title", "caption"),
}
"""What each column may be called, in any case of letters."""

Row = dict[str, Any]


def read_list(url: str, content: bytes) -> Iterator[Photograph | Reject]:
    """The photographs that a list names; a path that does not begin at the root is meant from the list's own folder.

    Args:
        url: of the list; its ending says what kind it is.
        content: of the list.

    Raises:
        InputError: it is not what its ending says, or has no column of URLs.
    """
    try:
        rows = list(_rows(url, content))
    except InputError:
        raise
    except (UnicodeDecodeError, ValueError, csv.Error, pa.ArrowException, OSError, TypeError) as error:
        raise InputError(f"{url} cannot be read as a list: {one_line(error)}") from None
    folder = posixpath.dirname(url)
    for number, row in enumerate(rows, start=1):
        entry = row["url"]
        if not isinstance(entry, str) or not entry.strip():
            yield Reject(f"{url}#{number}", "find", "bad_url", "the row names no URL or path")
            continue
        entry = entry.strip()
        place = entry if "://" in entry else posixpath.join(folder, entry)
        yield Photograph(place, _text(row.get("licence")), _text(row.get("author")), _text(row.get("title")))


def read_columns(row: Row) -> Row:
    """The fields of a row that are known, under our names."""
    names = {str(name).lower(): name for name in row}
    found = {
        field: next((names[name] for name in aliases if name in names), None) for field, aliases in _COLUMNS.items()
    }
    return {field: row[name] for field, name in found.items() if name is not None}


def _rows(url: str, content: bytes) -> Iterable[Row]:
    kind = posixpath.splitext(urlsplit(url).path if "://" in url else url)[1].lower()
    if kind == ".txt":
        lines = (line.strip() for line in content.decode("utf-8-sig").splitlines())
        return [{"url": line} for line in lines if line and not line.startswith("#")]
    if kind == ".parquet":
        rows = parse_table(content).to_pylist()
    elif kind == ".jsonl":
        rows = [json.loads(line) for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    else:
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        rows = list(csv.DictReader(text, dialect="excel-tab" if kind == ".tsv" else "excel"))
    known = [read_columns(row) for row in rows]
    if not any("url" in row for row in known):
        raise InputError(f"{url} has no column 'url': name one so")
    return [{"url": None, **row} for row in known]


def _text(value: Any) -> str | None:
    return str(value).strip() or None if value is not None else None
