"""Parquet tables of modest size, as rows."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.storage import open_atomic


def write_rows(url: str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes a table, atomically."""
    with open_atomic(url) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)


def parse_table(content: bytes) -> pa.Table:
    """The table in a Parquet file's bytes.

    It is read in this thread: pyarrow's own threads, where torch is loaded too, abort a process that ends soon after.

    Raises:
        pa.ArrowException, OSError: it is damaged, or no Parquet.
    """
    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False).read(use_threads=False)
