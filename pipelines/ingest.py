"""Turns photographs into training shards: ``infinitygan ingest SRC... --out DIR``."""

import dataclasses
import posixpath
import sys
from collections import Counter
from collections.abc import Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from model.errors import InputError
from pipelines.terminal.failures import Detached
from pipelines.terminal.ingest_tables import details
from pipelines.terminal.jobs import is_remote, job
from pipelines.terminal.paths import absolute
from pipelines.terminal.progress import track
from transforms.ingest import staging
from transforms.ingest.crawler import PHOTOGRAPHS_DONE, is_fetched
from transforms.ingest.options import IngestOptions, check_out_and_size
from transforms.ingest.report import write_report
from transforms.ingest.steps import (
    AssignShards,
    DropDuplicates,
    PreparePhotographs,
    ReadExisting,
    WriteTables,
    WriteTrainingShards,
)
from transforms.sources.find import Found, can_retry, find_again, find_photographs
from transforms.sources.manners import Manners
from transforms.sources.web import ANSWERS_READ
from transforms.storage.byte_ranges import Piece
from transforms.storage.fence import StaleRunError
from transforms.storage.files import join
from transforms.storage.urls import redact
from transforms.training_set.dataset import (
    DATASET,
    Configuration,
    Dataset,
    IndexRow,
    SetProvenance,
    TrainingSet,
    read_dataset,
    read_dataset_if_any,
    read_training_set,
    sample_of,
)
from transforms.training_set.shards import StagedSample
from transforms.workers.sight import CheckSight, look

ALL_REASONS = "all"
POLITE = Manners()


def ingest(options: IngestOptions, beam_flags: PipelineOptions | None = None) -> Dataset:
    """Makes or extends a training set, or resumes an interrupted run; returns the content of ``dataset.json``.

    Raises:
        InputError: The sources or the output folder cannot be used. Nothing was written.
        OSError: The storage of the output failed. The next run resumes from what was stored.
    """
    found = plan(options)
    if not found.photographs and not found.rejects and not found.mended:
        return read_dataset(options.out)
    options = dataclasses.replace(options, out=staging.begin(options.out, options.configuration(), found))
    existing = staging.read_base(options.out)
    PHOTOGRAPHS_DONE.reset()
    try:
        with track("Photographs", len(found.photographs), lambda: PHOTOGRAPHS_DONE.count, details()):
            run(options, found, existing, beam_flags)
        dataset = report(options.out)
    except (Detached, StaleRunError):
        raise
    except BaseException:
        staging.discard_shards(options.out, read_dataset_if_any(options.out))
        raise
    staging.finish(options.out)
    return dataset


def plan(options: IngestOptions) -> Found:
    """Finds the photographs to process: those that are neither in the set nor among its rejects.

    Writes nothing, except that it completes an interrupted repack.

    Raises:
        InputError: The sources or the output folder cannot be used.
    """
    out = options.out
    if staging.install_repacked(out):
        print(f"{out}: completed the interrupted repack", file=sys.stderr)
    staging.check_out(out, options.configuration())
    if staging.is_unfinished(out):
        print(f"{out}: resuming the interrupted run", file=sys.stderr)
        return staging.read_plan(out)
    base = read_training_set_if_any(out)
    if base:
        check_sizes(options, base)
    if options.retry_rejects:
        return rejects_to_retry(options, base)
    with track("Pages and responses read", 0, lambda: ANSWERS_READ.count):
        found = find_photographs(options.sources, out, options.manners, options.depth)
    return only_new(found, base) if base else found


def read_training_set_if_any(out: str) -> TrainingSet | None:
    """Reads the set in a folder; returns None if there is none.

    Raises:
        InputError: it is damaged, or of another format.
    """
    dataset = read_dataset_if_any(out)
    return read_training_set(out, dataset) if dataset else None


def only_new(found: Found, base: TrainingSet) -> Found:
    """Removes the photographs that the set already knows. Rejects found while listing are checked again each time."""
    known = {redact(row["source"]) for row in base.rows} | {
        reject.source for reject in base.rejects if reject.stage != "find"
    }
    known |= set(map(absolute, known))  # sets of earlier versions hold relative paths as they were given
    said = {(reject.source, reject.reason) for reject in base.rejects}
    return Found(
        [photograph for photograph in found.photographs if photograph.source not in known],
        [reject for reject in found.rejects if (reject.source, reject.reason) not in said],
        found.examined,
        found.gone(base.rejects),
    )


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
    found.photographs += [reject.photograph() for reject in rejects if reject.stage != "find"]
    return found


def run(options: IngestOptions, found: Found, existing: Dataset | None, beam_flags: PipelineOptions | None) -> None:
    """Builds the pipeline and runs it.

    Args:
        options: what is asked for.
        found: what is to be dealt with.
        existing: the ``dataset.json`` of the set that is added to; None if there is none.
        beam_flags: for Beam; None for its in-process runner.
    """
    out = options.out
    prepare = PreparePhotographs(out, options.preparation, options.manners, options.crawlers, options.memory_bytes)
    sight = look(needs(out, found)) if is_remote(beam_flags) else None
    with job(beam_flags, out) as pipeline:
        base = pipeline | ReadExisting(out, existing)
        read = pipeline | "Photographs" >> beam.Create(found.photographs) | CheckSight(sight) | prepare
        distinct = (read.prepared, base) | DropDuplicates(out, options.dedup)
        shards = distinct.kept | AssignShards(options.samples_per_shard, existing) | WriteTrainingShards(out)
        not_photographs = pipeline | "Other files" >> beam.Create(found.rejects)
        rejects = (not_photographs, read.rejected, distinct.rejected) | "All rejects" >> beam.Flatten()
        configuration = options.configuration()
        made_by = provenance(existing, configuration) if existing else SetProvenance(configuration=configuration)
        _ = (shards, rejects, base) | WriteTables(out, made_by, frozenset(found.mended))


def needs(out: str, found: Found) -> Iterator[str]:
    """Yields files that the workers of a job must see: the run's plan, and one photograph of each folder."""
    yield staging.plan_path(out)
    files = [photograph for photograph in found.photographs if not is_fetched(photograph)]
    yield from {posixpath.dirname(photograph.url): photograph.url for photograph in files}.values()


def provenance(existing: Dataset, configuration: Configuration | None = None) -> SetProvenance:
    """Records what made a set, what was added to it since, and the options of the run that now adds to it, if any."""
    before = existing.get("later_configurations")
    later = [*(before if isinstance(before, list) else []), *([configuration] if configuration else [])]
    made: SetProvenance = {"configuration": existing["configuration"]}
    return {**made, "later_configurations": later} if later else made


def report(out: str) -> Dataset:
    """Writes the report of a set that is whole; returns what its ``dataset.json`` says."""
    training_set = read_training_set(out, read_dataset(out))
    write_report(out, training_set)
    return training_set.dataset


def repack(out: str, samples_per_shard: int | None = None, beam_flags: PipelineOptions | None = None) -> Dataset:
    """Distributes all samples of a set evenly, as a single run would have; returns the new ``dataset.json``.

    Raises:
        InputError: There is no set, or a run on it is unfinished.
    """
    check_out_and_size(out, samples_per_shard)
    staging.install_repacked(out)
    configuration = {"repack": samples_per_shard}
    staging.check_out(out, configuration)
    base = read_training_set_if_any(out)
    if base is None:
        raise InputError(f"{out} is not a training set (it has no {DATASET}), so it cannot be repacked")
    new = staging.begin_repack(out, configuration)
    samples = [to_sample(row, out) for row in base.rows]
    with job(beam_flags, out) as pipeline:
        assigned = pipeline | "Samples" >> beam.Create(samples) | AssignShards(samples_per_shard, None)
        rejects = pipeline | "Rejects" >> beam.Create(base.rejects)
        nothing = pipeline | ReadExisting(new, None)
        shards = assigned | WriteTrainingShards(new)
        _ = (shards, rejects, nothing) | WriteTables(new, provenance(base.dataset))
    staging.install_repacked(out)
    return report(out)


def to_sample(row: IndexRow, out: str) -> StagedSample:
    """Makes a sample of a set whose image is in one of its shards."""
    place = Piece(join(out, row["shard"]), row["offset"], row["size"])
    return StagedSample(sample_of(row), place)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["ingest", *sys.argv[1:]])
