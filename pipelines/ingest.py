"""Turns photographs into training shards: ``infinitygan ingest SRC... --out DIR``."""

import dataclasses
import posixpath
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from fsspec.core import has_magic

from model.errors import InputError
from pipelines.terminal.failures import Detached, UnwatchedError
from pipelines.terminal.ingest_tables import details
from pipelines.terminal.job_records import JOB
from pipelines.terminal.jobs import attached, is_detached, is_remote, job
from pipelines.terminal.progress import track
from transforms.ingest import staging
from transforms.ingest.crawler import PHOTOGRAPHS_DONE
from transforms.ingest.find_steps import FindPhotographs
from transforms.ingest.options import IngestOptions, check_out_and_size
from transforms.ingest.plan import (
    Plan,
    accept,
    is_planned,
    plan_url,
    planned_rejects,
    read_found,
    read_plan,
    read_share,
    sources_url,
    write_sources,
)
from transforms.ingest.ranks import plan_shards
from transforms.ingest.report import write_report
from transforms.ingest.runs import merge_runs
from transforms.ingest.steps import (
    AssignShards,
    DropDuplicates,
    PreparePhotographs,
    ReadKnown,
    StageKnown,
    WriteTables,
    WriteTrainingShards,
)
from transforms.sources.find import can_retry, is_in
from transforms.sources.lists import LIST_SUFFIXES, PICTURE_SUFFIXES
from transforms.sources.web import ANSWERS_READ, check_source, is_on_web
from transforms.storage.fence import StaleRunError
from transforms.storage.files import exists, filesystem, join, remove
from transforms.storage.urls import LOCAL, redact, scheme_of
from transforms.training_set.dataset import DATASET, Dataset, read_dataset, read_dataset_if_any, read_rejects
from transforms.workers.sight import Sight, look

ALL_REASONS = "all"
FILES_SHOWN = 1000
"""The number of photographs whose folders every worker must see before it begins."""


def ingest(options: IngestOptions, beam_flags: PipelineOptions | None = None) -> Dataset:
    """Makes or extends a training set, or resumes an interrupted run; returns the content of ``dataset.json``.

    Raises:
        InputError: The sources or the output folder cannot be used. Nothing was written.
        OSError: The storage of the output failed. The next run resumes from what was stored.
    """
    check(options)
    was_there = exists(options.out)
    out = staging.begin(options.out, options.configuration())
    options = dataclasses.replace(options, out=out)
    try:
        plan = read_plan(out) if is_planned(out) else find(options, out, beam_flags)
    except InputError:
        staging.finish(out)
        if not was_there:
            remove(str(out))
        raise
    if plan.is_empty:
        staging.finish(out)
        return read_dataset(str(out))
    PHOTOGRAPHS_DONE.reset()
    try:
        with track("Photographs", plan.photographs, lambda: PHOTOGRAPHS_DONE.count, details()):
            run(options, plan, beam_flags)
    except (Detached, StaleRunError, UnwatchedError):  # the shards belong to a job that may go on
        raise
    except BaseException:
        staging.discard_shards(out, read_dataset_if_any(out))
        raise
    staging.finish(out)
    return read_dataset(str(out))


@contextmanager
def planned(options: IngestOptions) -> Iterator[tuple[str, Plan]]:
    """Yields the plan of a run, and the folder that holds it; writes nothing to the set's folder.

    Raises:
        InputError: The sources or the output folder cannot be used.
    """
    check(options)
    if is_planned(options.out):
        yield options.out, read_plan(options.out)
        return
    where = f"memory://infinitygan-{uuid.uuid4().hex}"
    try:
        staging.note(where, read_dataset_if_any(options.out), options.configuration())
        yield where, find(options, where, None)
    finally:
        remove(where)


def check(options: IngestOptions) -> None:
    """Checks that a run can begin. Writes nothing, except that it completes an interrupted repack.

    Raises:
        InputError: The output folder cannot be used.
    """
    out = options.out
    if staging.install_repacked(out):
        print(f"{out}: completed the interrupted repack", file=sys.stderr)
    staging.check_out(out, options.configuration())
    if is_planned(out):
        print(f"{out}: resuming the interrupted run", file=sys.stderr)
        return
    dataset = read_dataset_if_any(out)
    if dataset:
        check_sizes(options, dataset)
    if options.retry_rejects:
        check_reasons(options, dataset)


def check_sizes(options: IngestOptions, dataset: Dataset) -> None:
    """Raises InputError if the sizes requested differ from those of the set."""
    preparation = options.preparation
    for flag, asked, there in (
        ("--full-size", preparation.full_height_px, dataset["full_height_px"]),
        ("--patch-size", preparation.patch_size_px, dataset["patch_size_px"]),
    ):
        if asked != there:
            raise InputError(f"{options.out} contains a set made with {flag} {there}, not {asked}: give {flag} {there}")


def check_reasons(options: IngestOptions, dataset: Dataset | None) -> None:
    """Raises InputError if there is no set, or nothing was rejected for one of the reasons to retry."""
    if not dataset:
        raise InputError(f"{options.out} does not contain a training set, so there are no rejects to retry")
    reasons = retried_reasons(options.out)
    asked = set(reasons) if ALL_REASONS in options.retry_rejects else set(options.retry_rejects)
    unknown = sorted(asked - set(reasons))
    if unknown or not asked:
        there = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "nothing"
        said = unknown[0] if unknown else ALL_REASONS
        raise InputError(
            f"--retry-rejects {said}: nothing in {options.out} was rejected for this; its reasons are: {there}"
        )


def retried_reasons(out: str) -> Counter[str]:
    """Counts the rejects of a set that can be tried again, by reason."""
    return Counter(reject.reason for reject in read_rejects(out) if can_retry(reject))


def find(options: IngestOptions, where: str, beam_flags: PipelineOptions | None) -> Plan:
    """Finds the photographs to process: those that are neither in the set nor among its rejects.

    Args:
        options: what is asked for.
        where: the folder in whose staging folder the plan is made.
        beam_flags: for Beam; None for its in-process runner.

    Raises:
        InputError: The sources cannot be used, or hold no photographs.
    """
    for source in filter(is_on_web, options.sources):
        check_source(source)
    write_sources(where, options.arrived or options.sources)
    retry = options.retry_rejects
    if ALL_REASONS in retry:
        retry = tuple(retried_reasons(options.out))
    sources = [file for file, _ in options.arrived] or options.sources
    sight = look([sources_url(where), *files_of(sources)]) if is_remote(beam_flags) else None
    extends = staging.read_base(where) is not None
    progress = track("Pages and responses read", 0, lambda: ANSWERS_READ.count)
    with progress, attached(beam_flags), job(beam_flags, where) as pipeline:
        _ = pipeline | FindPhotographs(
            options.out, where, options.manners, options.depth, extends, retry, options.crawlers, sight
        )
    plan, found = read_found(where)
    if not found and not retry and not options.arrived:
        raise no_photographs(options, where, plan)
    if not plan.is_empty:
        accept(where, plan)
    return plan


def files_of(sources: Iterable[str]) -> Iterator[str]:
    """Yields a file for each local source, which every worker must see: itself, or one in the folder."""
    for source in sources:
        if scheme_of(source) in LOCAL:
            path = Path(filesystem(source)[1])
            with suppress(PermissionError):  # the search will say so
                files = (file for file in path.iterdir() if file.is_file()) if path.is_dir() else iter([path])
                yield from map(str, islice(files, 1))


def no_photographs(options: IngestOptions, where: str, plan: Plan) -> InputError:
    """Returns the error for sources without photographs, which names the first reject that explains it."""
    sources = options.sources
    web = [source for source in sources if is_on_web(source)]
    globs = any(map(has_magic, sources))
    first = telling = None
    for reject in merge_runs(where, planned_rejects(where)):
        first = first or reject
        if reject.reason != "not_a_picture" or reject.source in sources or globs:
            telling = reject
            break
    others = f" (rejected: {plan.rejects})" if plan.rejects else ""
    if web:
        reason = f": {first.source}: {first.message}" if first else ""
        what = f"none of the {len(web)} web sources has any{reason}"
    else:
        what = what_to_give(sources, options.out)
    if telling:
        what = f"{telling.source}: {telling.message.removeprefix(f'{telling.source}: ')}"
        what = f"none of the {len(web)} web sources has any: {what}" if web else what
    return InputError(redact(f"{', '.join(sources)}: no photographs{others}; {what}"))


def what_to_give(sources: Sequence[str], out: str) -> str:
    """Returns what to do about local sources without photographs."""
    if any(is_in(source, out) for source in sources):
        return f"files in --out are not taken: choose a folder for the training set that is not {out}"
    if all(source.lower().endswith(LIST_SUFFIXES) for source in sources):
        return "the list has no rows"
    return f"give files ending in {', '.join(PICTURE_SUFFIXES)}"


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
