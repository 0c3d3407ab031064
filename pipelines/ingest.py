"""Photographs to training shards: ``infinitygan ingest SRC... --out DIR``."""

import sys
from collections import Counter
from typing import Annotated, Any

import apache_beam as beam
import typer
from apache_beam.options.pipeline_options import PipelineOptions

from model.errors import InputError
from pipelines.ingest_display import details, show_plan, show_summary
from pipelines.ingest_options import IngestOptions, check_out_and_size
from pipelines.options import beam_options, own_flags, storage_errors
from pipelines.progress import track
from transforms import staging
from transforms.crawler import PHOTOGRAPHS_DONE
from transforms.ingest import AssignShards, DropDuplicates, PreparePhotographs, WriteTables, WriteTrainingShards
from transforms.manners import Manners
from transforms.pieces import Piece
from transforms.prepare import Preparation
from transforms.report import write_report
from transforms.samples import Sample
from transforms.sources import Found, find_photographs
from transforms.storage import join
from transforms.training_shards import DATASET, REJECTS, StagedSample, TrainingSet, read_dataset
from transforms.web import ANSWERS_READ

ALL_REASONS = "all"
POLITE = Manners()


def ingest(options: IngestOptions, beam_flags: PipelineOptions | None = None) -> dict[str, Any]:
    """Makes a training set, or adds to one, or goes on where a run was cut off; returns what ``dataset.json`` says.

    Raises:
        InputError: the sources or the target cannot be used; nothing has been written then.
        OSError: the target's storage failed; what had been done waits for the next run as far as it was stored.
    """
    found = plan(options)
    if not found.photographs and not found.rejects:
        return read_dataset(options.out)
    staging.begin(options.out, options.configuration(), found)
    PHOTOGRAPHS_DONE.reset()
    try:
        with track("Photographs", len(found.photographs), lambda: PHOTOGRAPHS_DONE.count, details()), storage_errors():
            run(options, found, beam_flags or beam_options([]))
        write_report(options.out)
    except BaseException:
        staging.discard_shards(options.out)
        raise
    staging.finish(options.out)
    return read_dataset(options.out)


def plan(options: IngestOptions) -> Found:
    """What a run would deal with: neither what is in the set, nor what has been rejected from it.

    Nothing is written, but that a repacking that was cut off is ended.

    Raises:
        InputError: the sources or the target cannot be used.
    """
    out = options.out
    if staging.install_repacked(out):
        print(f"{out}: the repacking that was cut off has been ended", file=sys.stderr)
    staging.check_out(out, options.configuration())
    if staging.is_unfinished(out):
        print(f"{out}: going on with the run that was cut off", file=sys.stderr)
        return staging.read_plan(out)
    base = staging.read_base(out)
    if base:
        check_sizes(options, base)
    if options.retry_rejects:
        return rejects_to_retry(options, base)
    with track("Pages and answers read", 0, lambda: ANSWERS_READ.count):
        found = find_photographs(options.sources, out, options.manners, options.depth)
    if not base:
        return found
    known = {row["source"] for row in base.rows} | {reject.source for reject in base.rejects}
    return Found(
        [photograph for photograph in found.photographs if photograph.source not in known],
        [reject for reject in found.rejects if reject.source not in known],
    )


def check_sizes(options: IngestOptions, base: TrainingSet) -> None:
    """Raises InputError if what is to be added has other sizes than the set."""
    for flag, name in (("--full-size", "full_size_px"), ("--patch-size", "patch_size_px")):
        asked, there = getattr(options.preparation, name), base.dataset[name]
        if asked != there:
            raise InputError(f"{options.out} holds a set made with {flag} {there}, not {asked}: give {flag} {there}")


def rejects_to_retry(options: IngestOptions, base: TrainingSet | None) -> Found:
    """The photographs that were rejected for certain reasons.

    Raises:
        InputError: there is no set, or nothing was rejected for one of the reasons.
    """
    if not base:
        raise InputError(f"{options.out} holds no training set whose rejects could be tried again")
    photographs = [reject for reject in base.rejects if reject.stage != "find"]
    reasons = Counter(reject.reason for reject in photographs)
    asked = set(reasons) if ALL_REASONS in options.retry_rejects else set(options.retry_rejects)
    unknown = sorted(asked - set(reasons))
    if unknown or not asked:
        there = ", ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items())) or "nothing"
        said = unknown[0] if unknown else ALL_REASONS
        raise InputError(f"--retry-rejects {said}: {options.out} has none of these; rejected were: {there}")
    return Found([reject.photograph() for reject in photographs if reject.reason in asked])


def run(options: IngestOptions, found: Found, beam_flags: PipelineOptions) -> None:
    """Builds the pipeline and runs it to its end."""
    out = options.out
    prepare = PreparePhotographs(out, options.preparation, options.manners, options.crawlers)
    with beam.Pipeline(options=beam_flags) as pipeline:
        read = pipeline | "Photographs" >> beam.Create(found.photographs) | prepare
        distinct = read.prepared | DropDuplicates(out, options.dedup)
        shards = distinct.kept | AssignShards(out, options.samples_per_shard) | WriteTrainingShards(out)
        not_photographs = pipeline | "Other files" >> beam.Create(found.rejects)
        rejects = (not_photographs, read.rejected, distinct.rejected) | "All rejects" >> beam.Flatten()
        _ = (shards, rejects) | WriteTables(out, provenance(staging.read_base(out), options.configuration()))


def provenance(base: TrainingSet | None, configuration: dict[str, Any] | None) -> dict[str, Any]:
    """What made a set, and what has added to it since."""
    if not base:
        return {"configuration": configuration}
    later = base.dataset.get("later_configurations", []) + ([configuration] if configuration else [])
    return {"configuration": base.dataset["configuration"], **({"later_configurations": later} if later else {})}


def repack(out: str, samples_per_shard: int | None = None, beam_flags: PipelineOptions | None = None) -> dict[str, Any]:
    """Deals all samples of a set out anew, as one run would have; returns what its ``dataset.json`` says then.

    Raises:
        InputError: there is no set, or a run on it is unfinished.
    """
    check_out_and_size(out, samples_per_shard)
    staging.install_repacked(out)
    configuration = {"repack": samples_per_shard}
    staging.check_out(out, configuration)
    base = staging.read_base(out)
    if base is None:
        raise InputError(f"{out} is no training set (it has no {DATASET}): there is nothing to repack")
    new = staging.begin_repack(out, configuration)
    samples = [to_sample(row, out) for row in base.rows]
    with storage_errors(), beam.Pipeline(options=beam_flags or beam_options([])) as pipeline:
        assigned = pipeline | "Samples" >> beam.Create(samples) | AssignShards(new, samples_per_shard)
        rejects = pipeline | "Rejects" >> beam.Create(base.rejects)
        _ = (assigned | WriteTrainingShards(new), rejects) | WriteTables(new, provenance(base, None))
    staging.install_repacked(out)
    write_report(out)
    return read_dataset(out)


def to_sample(row: dict[str, Any], out: str) -> StagedSample:
    """A sample of a set, whose image lies in one of its shards."""
    place = Piece(join(out, row["shard"]), row["offset"], row["size"])
    metadata = {name: value for name, value in row.items() if name not in ("shard", "offset", "size")}
    return StagedSample(Sample.from_json(metadata), place)


def ingest_command(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder or URL for the training set.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SRC...",
            help="Folders, globs, pictures, lists of URLs (.txt, .csv, .tsv, .jsonl, .parquet), WebDataset tars; as "
            "paths or URLs. Web pages. commons:Category:NAME. flickr:group/ID.",
        ),
    ] = None,
    full_size: Annotated[int, typer.Option(help="Height to which photographs are scaled, px.")] = 197,
    patch_size: Annotated[int, typer.Option(help="Side of the patches cropped from them, px.")] = 101,
    square: Annotated[bool, typer.Option("--square", help="Cut every photograph to its middle square.")] = False,
    via_size: Annotated[
        int | None, typer.Option(help="Height to which they are scaled first, px; the paper's is 128, with --square.")
    ] = None,
    suffix: Annotated[str, typer.Option("--format", help="What they are stored as: jpg, webp or png.")] = "jpg",
    quality: Annotated[int, typer.Option(help="Of the stored jpg or webp, 1 to 100.")] = 95,
    min_side: Annotated[
        int | None, typer.Option(help="Least short side of a photograph, px.", show_default="the patch size")
    ] = None,
    max_aspect: Annotated[float, typer.Option(help="Most that a long side may be of the short one.")] = 20.0,
    no_filters: Annotated[
        bool, typer.Option("--no-filters", help="Keep what is nearly black, flat, mostly text or mostly border.")
    ] = False,
    samples_per_shard: Annotated[
        int | None, typer.Option(help="Samples in a shard.", show_default="at least 16 train shards")
    ] = None,
    dedup: Annotated[
        str, typer.Option(help="near keeps one of those that look alike, exact of those with equal bytes, off all.")
    ] = "near",
    depth: Annotated[int, typer.Option(help="Links to follow from a web page, on its own site.")] = 1,
    connections: Annotated[int, typer.Option(help="Requests at once.")] = POLITE.connections,
    host_connections: Annotated[int, typer.Option(help="Requests at once to one host.")] = POLITE.host_connections,
    host_rate: Annotated[float, typer.Option(help="Requests a second to one host.")] = POLITE.host_rate,
    deadline: Annotated[float, typer.Option(help="Time for a request and its whole answer, s.")] = POLITE.deadline_s,
    cap_mb: Annotated[float, typer.Option(help="Largest file fetched, MB.")] = POLITE.cap_bytes / 1e6,
    attempts: Annotated[int, typer.Option(help="Times that a request is made that may yet succeed.")] = POLITE.attempts,
    contact: Annotated[str | None, typer.Option(help="Address or URL for server owners; sent to each server.")] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Connect to private and loopback addresses too.")
    ] = False,
    no_robots: Annotated[bool, typer.Option("--no-robots", help="Ask for no robots.txt: on your own servers.")] = False,
    crawlers: Annotated[int, typer.Option(help="Workers that fetch at once; a host belongs to one of them.")] = 1,
    retry_rejects: Annotated[
        list[str] | None,
        typer.Option(metavar="REASON", help="Instead of SRC: try again what was rejected so; all for any reason."),
    ] = None,
    repack_set: Annotated[bool, typer.Option("--repack", help="Instead of SRC: deal the set out evenly.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
) -> None:
    """Makes or extends a training set of photographs: WebDataset shards, an index, and the rejects with their reasons.

    The same command again goes on with a run that was cut off, or adds what is new. Beam's own flags are passed on in
    the form --flag=value.
    """
    # The parser leaves flags that it does not know, which are Beam's, among the sources.
    given = sources or []
    flags = beam_options([*(value for value in given if value.startswith("--")), *context.args], own_flags(context))
    paths = tuple(value for value in given if not value.startswith("--"))
    if repack_set:
        if paths or retry_rejects or dry_run:
            raise InputError("--repack stands alone: it takes no sources, --retry-rejects or --dry-run")
        show_summary(out, repack(out, samples_per_shard, flags))
        return
    manners = Manners(
        connections,
        host_connections,
        host_rate,
        deadline,
        int(cap_mb * 1e6),
        attempts,
        contact,
        allow_private,
        not no_robots,
    )
    preparation = Preparation(
        full_size, patch_size, square, via_size, suffix, quality, min_side, max_aspect, not no_filters
    )
    options = IngestOptions(
        paths, out, preparation, samples_per_shard, dedup, manners, crawlers, depth, tuple(retry_rejects or ())
    )
    if dry_run:
        show_plan(out, plan(options), manners)
        return
    dataset = ingest(options, flags)
    show_summary(out, dataset)
    if not sum(dataset["samples"].values()):
        print(f"no photograph could be used: {join(out, REJECTS)} says why of each", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["ingest", *sys.argv[1:]])
