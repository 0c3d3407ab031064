"""Lists of photographs: a URL or path per row, with licence, author and title if the list has such columns."""

import dataclasses
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import InputError, one_line
from transforms.storage.delimited import is_decodable, read_lines, read_records
from transforms.storage.json_text import read_json_text
from transforms.storage.text import clean_text
from transforms.storage.urls import NotAllowedError, resolve
from transforms.training_set.records import Photograph, Reject

PICTURE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff"),
    *(".bmp", ".jp2", ".j2k", ".avif", ".ppm", ".pgm", ".tga", ".mpo"),
)
UNREAD_SUFFIXES: Final = (
    *(".heic", ".heif", ".jxl", ".svg", ".psd"),
    *(".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".raf", ".rw2"),
)
"""The suffixes of pictures that Pillow does not decode."""

LIST_SUFFIXES: Final = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
MOST_ROWS: Final = 1_000_000
"""The most rows of a list; further rows are left out, and a reject reports them."""

LONGEST_TEXT: Final = 10_000
"""The number of characters of a licence, author or title that are kept."""

_COLUMNS: Final = {
    "url": ("url", "source", "image_url", "file"),
    "licence": ("licence", "license"),
    "author": ("author",),
    "title": ("title", "caption"),
}
"""The accepted names of each column, in upper or lower case."""

_BATCH_ROWS: Final = 10_000

_TEXTS: Final = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
)

Row = dict[str, Any]


class BadRowError(ValueError):
    """Raised for a row that cannot be read."""


def read_list(url: str, content: bytes) -> Iterator[Photograph | Reject]:
    """Yields the photographs that a list names; relative paths are relative to the list's own folder.

    Args:
        url: the URL of the list. Its suffix determines its format, and its scheme what it may name: see
            `transforms.storage.urls.check_scheme`.
        content: the content of the list.

    Raises:
        InputError: the format is not that of the suffix, there is no column of URLs, or no row can be read.
    """
    readable, first_error = False, ""
    last: Row | BadRowError | None = None
    try:
        for number, row in enumerate(_rows(url, content), start=1):
            if number > MOST_ROWS:
                message = f"the list has more than {MOST_ROWS} rows: split it"
                yield Reject(f"{url}#{number}", "find", "too_many_rows", message)
                return
            if row == last and isinstance(row, dict) and row.get("url"):
                continue  # repeated
            last = row
            if isinstance(row, BadRowError):
                first_error = first_error or f"row {number}: {row}"
                yield Reject(f"{url}#{number}", "find", "bad_row", str(row))
            else:
                readable = True
                yield _item(url, number, row)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:  # the last two for an unknown time zone
        raise InputError(f"{url} cannot be read as a list: {one_line(error)}") from None
    if not readable and first_error:
        raise InputError(f"{url} cannot be read as a list: {first_error}")


def _item(url: str, number: int, row: Row) -> Photograph | Reject:
    entry: Any = row.get("url")
    licence, author, title = (field_text(row.get(name)) for name in ("licence", "author", "title"))
    named = isinstance(entry, (str, bytes)) and bool(entry.strip())
    source = clean_text(entry).strip() if named else f"{url}#{number}"
    photograph = Photograph(source, licence, author, title)
    if not named:
        return photograph.reject("find", "bad_url", "the row names no URL or path")
    try:
        return dataclasses.replace(photograph, source=resolve(source, url))
    except InputError as error:
        reason = "not_allowed" if isinstance(error, NotAllowedError) else "bad_url"
        return photograph.reject("find", reason, str(error))


def read_columns(row: Row) -> Row:
    """Returns the known fields of a row, under this project's names."""
    return {field: row[name] for field, name in _known(list(row)).items()}


def field_text(value: object) -> str | None:
    """Returns a licence, author or title from a list or sidecar file; several values are joined."""
    if isinstance(value, bytes):
        value = clean_text(value)
    if isinstance(value, (list, tuple)):
        value = ", ".join(text for text in map(field_text, value[:100]) if text)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = clean_text(str(value)).strip()
    return (text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…") or None


def _known(names: Sequence[Any]) -> dict[str, str]:
    """Returns the table's column for each of this project's fields."""
    spelled = {str(name).strip().lower(): name for name in reversed(names)}
    found = {
        field: next((spelled[name] for name in aliases if name in spelled), None) for field, aliases in _COLUMNS.items()
    }
    return {field: name for field, name in found.items() if name is not None}


def _rows(url: str, content: bytes) -> Iterator[Row | BadRowError]:
    kind = posixpath.splitext(urlsplit(url).path if "://" in url else url)[1].lower()
    if kind == ".parquet":
        return _parquet_rows(url, content)
    lines = read_lines(content)
    if kind == ".txt":
        return _text_rows(lines)
    if kind == ".jsonl":
        return _json_rows(url, lines)
    return _delimited_rows(url, lines, "\t" if kind == ".tsv" else ",")


def _text_rows(lines: Sequence[str]) -> Iterator[Row | BadRowError]:
    for line in map(str.strip, lines):
        if line and not line.startswith("#"):
            yield {"url": line} if is_decodable(line) else _not_utf8()


def _json_rows(url: str, lines: Sequence[str]) -> Iterator[Row | BadRowError]:
    named = seen = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        seen = True
        row = _json_row(number, line)
        named = named or isinstance(row, BadRowError) or "url" in row
        yield row
    if not named:
        raise _no_column(url, "no row has" if seen else "it has no rows and therefore")


def _json_row(number: int, line: str) -> Row | BadRowError:
    if not is_decodable(line):
        return _not_utf8()
    try:
        row = read_json_text(line)
    except ValueError as error:
        return BadRowError(f"line {number} is not JSON that can be read: {one_line(error)}")
    return read_columns(row) if isinstance(row, dict) else BadRowError(f"line {number} is not a JSON object")


def _delimited_rows(url: str, lines: Sequence[str], delimiter: str) -> Iterator[Row | BadRowError]:
    records = read_records(lines, delimiter)
    names = next(records, None) or []
    columns = _columns(url, names)
    places = {field: names.index(name) for field, name in columns.items()}
    for fields in records:
        if fields is None:
            yield BadRowError("a quotation mark is opened in this row and not closed at the end of the field")
        elif len(fields) > len(names) and any(fields[len(names) :]):
            yield BadRowError(
                f"the row has {len(fields)} fields and the header {len(names)}: quote fields that contain a separator"
            )
        elif not all(map(is_decodable, fields)):
            yield _not_utf8()
        elif fields:
            yield {field: fields[place] for field, place in places.items() if place < len(fields)}


def _parquet_rows(url: str, content: bytes) -> Iterator[Row | BadRowError]:
    """Yields a Parquet file row by row, so that a small file with very many rows needs little memory."""
    file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)  # as `transforms.storage.tables.parse_table` does
    columns = _columns(url, file.schema_arrow.names)
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns.values()), use_threads=False):
        values = [_values(batch.column(batch.schema.get_field_index(name))) for name in columns.values()]
        for row in zip(*values, strict=True):
            yield dict(zip(columns, row, strict=True))


def _values(column: pa.Array) -> list[Any]:
    """Returns a column's values; text as bytes, because it may not be valid UTF-8; None for what is not text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_list(column.type) and _is_text(column.type.value_type):
        column = column.cast(pa.list_(pa.large_binary()))
    elif _is_text(column.type):
        column = column.cast(pa.large_binary())
    elif not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        return [None] * len(column)
    values: list[Any] = column.to_pylist()
    return values


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _TEXTS)


def _columns(url: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the table's column for each of this project's fields.

    Raises:
        InputError: none has URLs, or two have the same name.
    """
    columns = _known(names)
    if "url" not in columns:
        raise _no_column(url, f"its columns are {', '.join(names)[:200] or 'none'}; it has")
    twice = [name for name in columns.values() if names.count(name) > 1]
    if twice:
        raise InputError(f"{url} has the column {twice[0]!r} twice: rename one")
    return columns


def _not_utf8() -> BadRowError:
    return BadRowError("it is not UTF-8: save the list as UTF-8")


def _no_column(url: str, what: str) -> InputError:
    return InputError(f"{url}: {what} no 'url' column; rename a column to 'url'")
