"""Text tables as people and programs write them: lines, CSV and TSV, read row by row.

A broken row costs only itself. The worst case is a quotation mark that is never closed: by the rules of CSV, all that
follows would belong to its field.
"""

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import IO, Final

LONGEST_RECORD_LINES: Final = 1000
"""The number of line ends that a CSV field may hold; a quotation mark open for longer was never closed."""

_LINE_END = re.compile(r"\r\n|\n|\r")
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_UNDECODABLE = re.compile("[\udc80-\udcff]")

_LONGEST_FIELD: Final = 2**31 - 1
_LIMIT = Lock()


def read_lines(content: bytes) -> list[str]:
    """Splits a text into lines, at any of the three usual line ends and at no other character.

    The text is UTF-8, or UTF-16 if it begins with the byte order mark of UTF-16. `is_decodable` tells which lines could
    not be decoded.
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            text = content[len(mark) :].decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
            break
    else:
        text = content.decode("utf-8", "surrogateescape")
    lines = _LINE_END.split(text)
    return lines[:-1] if not lines[-1] else lines


def stream_lines(file: IO[bytes]) -> Iterator[str]:
    """Yields the lines that `read_lines` returns of the content of a file, which can seek."""
    start = file.read(max(map(len, _BYTE_ORDER_MARKS)))
    mark, encoding = next((item for item in _BYTE_ORDER_MARKS.items() if start.startswith(item[0])), (b"", "utf-8"))
    file.seek(len(mark))
    errors = "surrogateescape" if encoding == "utf-8" else "replace"
    for line in io.TextIOWrapper(file, encoding, errors, newline=None):
        yield line.removesuffix("\n")


def is_decodable(text: str) -> bool:
    """Returns whether a line from `read_lines` is text: valid UTF-8, and without NUL, as in UTF-16 without a mark."""
    return "\0" not in text and (text.isascii() or not _UNDECODABLE.search(text))


def read_records(lines: Iterable[str], delimiter: str) -> Iterator[list[str] | None]:
    """Yields the fields of each row of a table; None for a row that cannot be separated from the next.

    In a TSV, a quotation mark is an ordinary character unless quotes surround a whole field within one line. In a CSV,
    a quoted field may span several lines. No more lines are taken ahead than a row may span.
    """
    most_lines = 1 if delimiter == "\t" else LONGEST_RECORD_LINES
    source, again, taken = iter(lines), deque[str](), list[str]()

    def feed() -> Iterator[str]:
        while len(taken) < most_lines:
            line = again.popleft() if again else next(source, None)
            if line is None:
                return
            taken.append(line)
            yield line + "\n"

    is_at_end = False
    while not is_at_end:
        try:
            reader = csv.reader(feed(), delimiter=delimiter, strict=True, skipinitialspace=True)
            while (fields := _next_record(reader)) is not None:
                yield [field.strip() for field in fields]
                taken.clear()
            is_at_end = True
        except csv.Error:
            yield [field.strip() for field in taken[0].split("\t")] if delimiter == "\t" else None
            again.extendleft(reversed(taken[1:]))
            taken.clear()


def _next_record(reader: Iterator[list[str]]) -> list[str] | None:
    """Returns a reader's next record, however long its fields are; None after the last."""
    with _fields_of_any_length():
        return next(reader, None)


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lifts the csv module's field limit, which the whole process shares, for the time that a record takes."""
    with _LIMIT:
        before = csv.field_size_limit(_LONGEST_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)
