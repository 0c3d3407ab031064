"""Parquet tables: small and medium ones as rows, and those of any size in parts."""

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import NamedTemporaryFile
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from model.errors import InputError, one_line
from transforms.storage.files import filesystem, open_atomic, read_bytes
from transforms.storage.retry import FINAL_OS, passes, retried

ROWS_IN_A_GROUP = 10_000
"""The number of rows that are in memory while a table is written or read in parts."""

_BUFFER_BYTES = 1 << 18


def write_rows(url: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Writes a table, atomically."""
    with open_atomic(url) as file:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)


def read_rows(url: str, what: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """Returns the rows of a table, with the schema's columns.

    Args:
        url: the Parquet file.
        what: what the file should be and the remedy if it is not, for the message: "index; make it again".
        schema: the schema of the wanted columns; other columns are ignored.

    Raises:
        InputError: the file is missing, damaged, or has other columns.
    """
    try:
        content = read_bytes(url)
    except FileNotFoundError:
        raise InputError(f"{url} is missing; it should be the {what}") from None
    try:
        return parse_table(content).select(schema.names).cast(schema).to_pylist()
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


def write_parts(url: str, parts: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Writes a table of any size, atomically, from parts of any sizes."""
    with open_atomic(url) as file, pq.ParquetWriter(file, schema) as writer:
        waiting, rows, is_empty = [schema.empty_table()], 0, True
        for part in parts:
            waiting.append(part)
            rows += len(part)
            if rows >= ROWS_IN_A_GROUP:
                whole = pa.concat_tables(waiting)
                full = rows - rows % ROWS_IN_A_GROUP
                writer.write_table(whole[:full].combine_chunks(), ROWS_IN_A_GROUP)
                waiting, rows, is_empty = [whole[full:].combine_chunks()], rows - full, False
        if rows or is_empty:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def count_groups(url: str, what: str) -> int:
    """Returns the number of row groups of a table.

    Raises:
        InputError: the file is missing or damaged.
    """
    with _copy(url, what) as path, _named_errors(url, what), pa.OSFile(path) as file:
        return pq.ParquetFile(file, pre_buffer=False).num_row_groups


def read_parts(
    url: str, what: str, schema: pa.Schema, later: Collection[str] = (), groups: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Yields a table of any size in parts of up to `ROWS_IN_A_GROUP` rows.

    Args:
        url: the Parquet file.
        what: as for `read_rows`.
        schema: the schema of the wanted columns; other columns are not read.
        later: the names of columns that older files lack; their values are null there.
        groups: the row groups to read; None for all.

    Raises:
        InputError: as `read_rows` does.
    """
    with _copy(url, what) as path, _named_errors(url, what), pa.OSFile(path) as source:
        # Neither a Python file object nor threads, for the reasons that `parse_table` gives.
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        there = [name for name in schema.names if name not in later or name in file.schema_arrow.names]
        if missing := set(there) - set(file.schema_arrow.names):
            raise KeyError(f"it has no column {sorted(missing)[0]!r}")
        for batch in file.iter_batches(ROWS_IN_A_GROUP, row_groups=groups, columns=there, use_threads=False):
            part = pa.Table.from_batches([batch])
            for name in set(schema.names) - set(there):
                part = part.append_column(name, pa.nulls(len(part), schema.field(name).type))
            part = part.select(schema.names).cast(schema)
            part.validate(full=True)  # such as that texts are UTF-8
            yield part


@contextmanager
def _copy(url: str, what: str) -> Iterator[str]:
    """Yields the path of a file or of a copy. Errors of storage that may pass are raised as they are."""
    with ExitStack() as stack:
        try:
            path = stack.enter_context(local_copy(url))
        except FileNotFoundError:
            raise InputError(f"{url} is missing; it should be the {what}") from None
        except FINAL_OS as error:
            raise InputError(f"{url} cannot be read; it should be the {what}: {one_line(error)}") from None
        yield path


@contextmanager
def _named_errors(url: str, what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno and passes(error):
            raise  # the storage has failed, not the file
        raise InputError(f"{url} is damaged, or is not the {what}: {one_line(error)}") from None


@contextmanager
def local_copy(url: str) -> Iterator[str]:
    """Yields the path of a file; one on an object store is copied to a temporary file meanwhile.

    Faults of storage that may pass are retried.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        with retried(fs.open, path, "rb"):  # raises an error for a device or pipe, which pyarrow would wait for
            yield path
        return
    with NamedTemporaryFile() as copy:
        retried(_copy_into, copy, fs, path)
        yield copy.name


def _copy_into(copy: IO[bytes], fs: AbstractFileSystem, path: str) -> None:
    copy.seek(0)
    copy.truncate()  # what an attempt that failed has left
    with fs.open(path, "rb") as file:
        shutil.copyfileobj(file, copy, 1 << 20)
    copy.flush()
