"""Small and medium Parquet tables, read and written as rows."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import InputError, one_line
from transforms.storage.files import open_atomic, read_bytes


def write_rows(url: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Writes a table, atomically."""
    with open_atomic(url) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)


def read_rows(url: str, what: str, schema: pa.Schema, later: Collection[str] = ()) -> list[dict[str, Any]]:
    """Returns the rows of a table, with the schema's columns.

    Args:
        url: the Parquet file.
        what: what the file should be and the remedy if it is not, for the message: "index; make it again".
        schema: the schema of the wanted columns; other columns are ignored.
        later: the names of columns that older files lack; their values are null there.

    Raises:
        InputError: the file is missing, damaged, or has other columns.
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
        raise InputError(f"{url} is damaged, or is not the {what}: {one_line(error)}") from None


def parse_table(content: bytes) -> pa.Table:
    """Parses the bytes of a Parquet file.

    The file is read in this thread, because pyarrow's own threads, in a process that also loads torch, can abort it if
    it ends soon after. Three things together prevent that: ``use_threads=False``, ``pre_buffer=False`` and the
    ``BufferReader``. A Python file object in its place, or pre-buffering, brings the abort back.

    Raises:
        pa.ArrowException, OSError: the bytes are damaged or are not Parquet.
    """
    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
