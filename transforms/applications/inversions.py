"""The table of a batch of inversions: one row per photograph."""

import dataclasses
from collections.abc import Iterable

import pyarrow as pa

from transforms.applications.invert import Inverted
from transforms.storage.files import join
from transforms.storage.tables import read_rows, write_rows

INVERSIONS = "inversions.parquet"
SCHEMA = pa.schema(
    [
        ("photograph", pa.string()),
        ("out", pa.string()),
        ("reason", pa.string()),
        ("psnr_db", pa.float64()),
        ("lpips", pa.float64()),
    ]
)


def write_inversions(out: str, rows: Iterable[Inverted]) -> None:
    """Writes the table to a folder, sorted by photograph."""
    ordered = sorted(rows, key=lambda row: row.photograph)
    write_rows(join(out, INVERSIONS), (dataclasses.asdict(row) for row in ordered), SCHEMA)


def read_inversions(out: str) -> list[Inverted]:
    """Reads the table's rows, sorted by photograph."""
    return [Inverted(**row) for row in read_rows(join(out, INVERSIONS), "table of invert; remove it", SCHEMA)]
