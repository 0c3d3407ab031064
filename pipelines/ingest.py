"""Turns photographs into training shards: ``infinitygan ingest SRC... --out DIR``."""

import dataclasses
import posixpath
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from model.errors import InputError
from pipelines.terminal.failures import Detached
from pipelines.terminal.ingest_tables import details
from pipelines.terminal.job_records import JOB
from pipelines.terminal.jobs import is_detached, is_remote, job
from pipelines.terminal.paths import absolute
from pipelines.terminal.progress import track
from transforms.ingest import staging
from transforms.ingest.crawler import PHOTOGRAPHS_DONE
from transforms.ingest.options import IngestOptions, check_out_and_size
from transforms.ingest.plan import Plan, is_planned, plan_url, read_plan, read_share, write_plan
from transforms.ingest.ranks import plan_shards
from transforms.ingest.report import write_report
from transforms.ingest.steps import (
    AssignShards,
    DropDuplicates,
    PreparePhotographs,
    ReadKnown,
    StageKnown,
    WriteTables,
    WriteTrainingShards,
)
from transforms.sources.find import Found, can_retry, find_again, find_photographs
from transforms.sources.manners import Manners
from transforms.sources.web import ANSWERS_READ
from transforms.storage.fence import StaleRunError
from transforms.storage.files import join, remove
from transforms.storage.urls import redact
from transforms.training_set.dataset import (
    DATASET,
    Dataset,
    IndexRow,
    read_dataset,
    read_dataset_if_any,
    read_index,
    read_rejects,
)
from transforms.workers.sight import Sight, look

ALL_REASONS = "all"
FILES_SHOWN = 1000
"""The number of photographs whose folders every worker must see before it begins."""

POLITE = Manners()


def ingest(options: IngestOptions, beam_flags: PipelineOptions | None = None) -> Dataset:
    """Makes or extends a training set, or resumes an interrupted run; returns the content of ``dataset.json``.

    Raises:
        InputError: The sources or the output folder cannot be used. Nothing was written.
        OSError: The storage of the output failed. The next run resumes from what was stored.
    """
    found = find(options)
    if found is not None and not found.photographs and not found.rejects and not found.mended:
        return read_dataset(options.out)
    out = staging.begin(options.out, options.configuration())
    options = dataclasses.replace(options, out=out)
    plan = read_plan(out) if found is None or is_planned(out) else write_plan(out, found)
    PHOTOGRAPHS_DONE.reset()
    try:
        with track("Photographs", plan.photographs, lambda: PHOTOGRAPHS_DONE.count, details()):
            run(options, plan, beam_flags)
    except (Detached, StaleRunError):
        raise
    except BaseException:
        staging.discard_shards(out, read_dataset_if_any(out))
        raise
    staging.finish(out)
    return read_dataset(out)


@contextmanager
def planned(options: IngestOptions) -> Iterator[tuple[str, Plan]]:
    """Yields the plan of a run, and the folder that holds it; writes nothing to the set's folder.

    Raises:
        InputError: The sources or the output folder cannot be used.
    """
    found = find(options)
    if found is None:
        yield options.out, read_plan(options.out)
        return
    where = f"memory://infinitygan-{uuid.uuid4().hex}"
    try:
        yield where, write_plan(where, found)
    finally:
        remove(where)


def find(options: IngestOptions) -> Found | None:
    """Finds what is to be dealt with; returns None if an interrupted run has done so."""
    out = options.out
    if staging.install_repacked(out):
        print(f"{out}: completed the interrupted repack", file=sys.stderr)
    staging.check_out(out, options.configuration())
    if is_planned(out):
        print(f"{out}: resuming the interrupted run", file=sys.stderr)
        return None
    base = read_training_set_if_any(out)
    if base:
        check_sizes(options, base)
    if options.retry_rejects:
        return rejects_to_retry(options, base)
    with track("Pages and responses read", 0, lambda: ANSWERS_READ.count):
        found = find_photographs(options.sources, out, options.manners, options.depth)
    return only_new(found, base) if base else found


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A whole set as its tables describe it."""

    dataset: Dataset
    rows: list[IndexRow]
    rejects: list[Any]


def read_training_set_if_any(out: str) -> TrainingSet | None:
    """Reads the set in a folder; returns None if there is none.

    Raises:
        InputError: it is damaged, or of another format.
    """
    dataset = read_dataset_if_any(out)
    return (
        TrainingSet(dataset, [r for r in read_index(out) if r["shard"] in dataset["shards"]], list(read_rejects(out)))
        if dataset
        else None
    )


def only_new(found: Found, base: TrainingSet) -> Found:
    """Removes the photographs that the set already knows. Rejects found while listing are checked again each time."""
    known = {redact(row["source"]) for row in base.rows} | {
        reject.source for reject in base.rejects if reject.stage != "find"
    }
    known |= set(map(absolute, known))  # sets of earlier versions hold relative paths as they were given
    said = {(reject.source, reject.reason) for reject in base.rejects}
    photographs = [photograph for photograph in found.photographs if photograph.source not in known]
    rejects = [reject for reject in found.rejects if (reject.source, reject.reason) not in said]
    tried = {item.source for item in photographs} | {item.source for item in rejects}
    back = found.gone(base.rejects) | {reject.source for reject in base.rejects if reject.source in tried}
    return Found(photographs, rejects, found.examined, back)


def check_sizes(options: IngestOptions, base: TrainingSet) -> None:
    """Raises InputError if the sizes requested differ from those of the set."""
    preparation, made = options.preparation, base.dataset
    for flag, asked, there in (
        ("--full-size", preparation.full_height_px, made["full_height_px"]),
        ("--patch-size", preparation.patch_size_px, made["patch_size_px"]),
    ):
        if asked != there:
            raise InputError(f"{options.out} contains a set made with {flag} {there}, not {asked}: give {flag} {there}")


def rejects_to_retry(options: IngestOptions, base: TrainingSet | None) -> Found:
    """Returns the photographs that were rejected for the given reasons.

    Raises:
        InputError: There is no set, or nothing was rejected for one of the reasons.
    """
    if not base:
        raise InputError(f"{options.out} does not contain a training set, so there are no rejects to retry")
    reasons = Counter(reject.reason for reject in base.rejects if can_retry(reject))
    asked = set(reasons) if ALL_REASONS in options.retry_rejects else set(options.retry_rejects)
    unknown = sorted(asked - set(reasons))
    if unknown or not asked:
        there = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "nothing"
        said = unknown[0] if unknown else ALL_REASONS
        raise InputError(
            f"--retry-rejects {said}: nothing in {options.out} was rejected for this; its reasons are: {there}"
        )
    rejects = [reject for reject in base.rejects if reject.reason in asked and can_retry(reject)]
    found = only_new(find_again(rejects, options.out, options.manners, options.depth), base)
    again = [reject.photograph() for reject in rejects if reject.stage != "find"]
    found.photographs += again
    found.mended |= {photograph.source for photograph in again}
    return found


def run(options: IngestOptions, plan: Plan, beam_flags: PipelineOptions | None) -> None:
    """Builds the pipeline and runs it."""
    sight = look(needs(options.out, plan)) if is_remote(beam_flags) else None
    with job(beam_flags, options.out) as pipeline:
        completed = build(pipeline, options, plan, sight)
        if is_detached(beam_flags):
            _ = completed | "Finish" >> beam.Map(lambda _: finish(options.out))


def finish(out: str) -> None:
    """Ends a run whose submitter is gone: the last step of a detached job, which may run twice."""
    with suppress(StaleRunError):
        staging.finish(out)
    remove(str(join(out, JOB)))


def needs(out: str, plan: Plan) -> Iterator[str]:
    """Yields files that the workers of a job must see: the run's plan, and photographs of some folders."""
    yield plan_url(out)
    files = (photograph.url for share in range(plan.shares_of_files) for photograph in read_share(out, share))
    yield from {posixpath.dirname(url): url for url in islice(files, FILES_SHOWN)}.values()


def build(
    pipeline: beam.Pipeline, options: IngestOptions, plan: Plan, sight: Sight | None = None
) -> beam.PCollection[None]:
    """Connects the steps that deal with what is planned; returns an element for the completed set."""
    out = options.out
    existing = staging.read_base(out)
    shards = plan_shards(options.samples_per_shard, existing, plan.photographs)
    there = pipeline | "Existing set" >> ReadKnown(out) if existing else None
    known = (there.known, there.urls) if there else ()
    read = pipeline | PreparePhotographs(out, plan, options.preparation, options.manners, options.memory_bytes, sight)
    kept, duplicates = (read.records, *known) | DropDuplicates(out, options.dedup, plan.photographs)
    written = kept | AssignShards(shards) | WriteTrainingShards(out, out)
    return (written, read.runs, duplicates) | WriteTables(out)


def repack(out: str, samples_per_shard: int | None = None, beam_flags: PipelineOptions | None = None) -> Dataset:
    """Distributes all samples of a set evenly, as a single run would have; returns the new ``dataset.json``.

    Raises:
        InputError: There is no set, or a run on it is unfinished.
    """
    check_out_and_size(out, samples_per_shard)
    staging.install_repacked(out)
    configuration = {"repack": samples_per_shard}
    staging.check_out(out, configuration)
    dataset = read_dataset_if_any(out)
    if dataset is None:
        raise InputError(f"{out} is not a training set (it has no {DATASET}), so it cannot be repacked")
    fenced = staging.begin_repack(out, configuration, dataset)
    new = staging.repack_folder(fenced)
    shards = plan_shards(samples_per_shard, None, sum(dataset["samples"].values()))
    with job(beam_flags, fenced) as pipeline:
        written = pipeline | StageKnown(fenced) | AssignShards(shards) | WriteTrainingShards(fenced, new)
        _ = (written,) | WriteTables(fenced, new)
    staging.install_repacked(out)
    dataset = read_dataset(out)
    write_report(out, dataset)
    return dataset


if __name__ == "__main__":
    from pipelines.cli import main

    main(["ingest", *sys.argv[1:]])
