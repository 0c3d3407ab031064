"""The writes that complete a set, all in one place: the tables, ``dataset.json`` and the report."""

from collections.abc import Iterable

import pyarrow as pa

from transforms.ingest.plan import planned_rejects, read_taken_back
from transforms.ingest.report import write_report
from transforms.ingest.run_mark import STAGING
from transforms.ingest.runs import in_order, merge_runs, with_existing
from transforms.ingest.staging import read_base, read_provenance
from transforms.storage.files import join
from transforms.storage.tables import read_parts, write_parts
from transforms.training_set.dataset import (
    INDEX_IS,
    INDEX_SCHEMA,
    Dataset,
    WrittenShard,
    read_rejects,
    write_tables,
)

_ROWS = "rows"


def store_rows(out: str, shard: WrittenShard, rows: pa.Table) -> None:
    """Stores the index rows of a shard until the set is complete."""
    write_parts(_rows_url(out, shard), [rows], INDEX_SCHEMA)


def _rows_url(out: str, shard: WrittenShard) -> str:
    return join(out, STAGING, _ROWS, f"{shard.name}.parquet")


def publish(out: str, shards: Iterable[WrittenShard], runs: Iterable[str]) -> None:
    """Completes the set of a run, whose shards are all written.

    Args:
        out: the folder of the set.
        shards: the new shards.
        runs: the URLs of the runs of rejects.
    """
    base = read_base(out)
    rejects = merge_runs(out, [*planned_rejects(out), *runs])
    if base:
        rejects = with_existing(rejects, in_order(read_rejects(out)), read_taken_back(out))
    dataset = write_tables(out, list(shards), lambda shard: _read_rows(out, shard), rejects, read_provenance(out), base)
    write_report(out, dataset)


def publish_repacked(out: str, new: str, shards: Iterable[WrittenShard]) -> Dataset:
    """Completes a repacked set, whose shards are all written, in a folder of its own."""
    rejects = in_order(read_rejects(out))
    return write_tables(new, list(shards), lambda shard: _read_rows(out, shard), rejects, read_provenance(out))


def _read_rows(out: str, shard: WrittenShard) -> pa.Table:
    return pa.concat_tables(read_parts(_rows_url(out, shard), INDEX_IS, INDEX_SCHEMA))
