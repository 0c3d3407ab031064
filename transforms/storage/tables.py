"""Parquet tables of modest size, as rows."""

from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import InputError, one_line
from transforms.storage.files import open_atomic, read_bytes


def write_rows(url: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes a table, atomically."""
    with open_atomic(url) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)


def read_rows(url: str, what: str, schema: pa.Schema, later: Collection[str] = ()) -> list[dict[str, Any]]:
    """Returns the rows of a table, with the schema's columns.

    Args:
        url: the Parquet file.
        what: what the file should be and what to do if it is not, for the message: "index; make it again".
        schema: of the columns that are wanted; others are passed over.
        later: columns that older files lack; they are null there.

    Raises:
        InputError: there is no such file, it is damaged, or it has other columns.
    """
    try:
        content = read_bytes(url)
    except FileNotFoundError:
        raise InputError(f"{url} is missing; it should be the {what}") from None
    try:
        table = parse_table(content)
        for name in later:
            if name in schema.names and name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
        return table.select(schema.names).cast(schema).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise InputError(f"{url} is damaged, or no {what}: {one_line(error)}") from None


def parse_table(content: bytes) -> pa.Table:
    """Returns the table in a Parquet file's bytes.

    It is read in this thread: pyarrow's own threads, where torch is loaded too, abort a process that ends soon after.
    Three things together keep it here: ``use_threads=False``, ``pre_buffer=False`` and the ``BufferReader``; a Python
    file object in its place, or pre-buffering, brings the abort back.

    Raises:
        pa.ArrowException, OSError: it is damaged, or no Parquet.
    """
    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
