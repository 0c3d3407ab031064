"""The flags of ``infinitygan ingest``."""

import sys
from typing import Annotated

import typer

from model.errors import InputError
from pipelines.terminal.flags import Deduplication, Quiet, SampleFormat, beam_flags, split_flags
from transforms.sources.manners import Manners
from transforms.storage.memory import DEFAULT_BYTES

POLITE = Manners()

PANELS = {
    "What is stored": ("full_size", "patch_size", "square", "via_size", "suffix", "quality", "samples_per_shard"),
    "What is left out": ("min_side", "max_aspect", "no_filters", "dedup"),
    "Web servers": (
        *("depth", "connections", "host_connections", "host_rate", "deadline", "cap_mb", "attempts", "contact"),
        *("allow_private", "no_robots", "crawlers"),
    ),
    "Later runs": ("retry_rejects", "repack_set", "watch", "shard_minutes"),
}
"""The panels of the help page, and the parameters in each; the others are in the first."""


def ingest(
    context: typer.Context,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder or URL for the training set.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SRC...",
            help="Where the photographs are: folders, globs, image files, WebDataset tars, lists of URLs (.txt, .csv, "
            ".tsv, .jsonl, .parquet), given as paths or URLs; web pages; commons:Category:NAME; flickr:group/ID.",
        ),
    ] = None,
    full_size: Annotated[int, typer.Option(help="Height in pixels to which each photograph is scaled.")] = 197,
    patch_size: Annotated[int, typer.Option(help="Side in pixels of the patches cropped for training.")] = 101,
    square: Annotated[bool, typer.Option("--square", help="Crop each photograph to its central square.")] = False,
    via_size: Annotated[
        int | None, typer.Option(help="Height in pixels to scale to first. The paper uses 128, with --square.")
    ] = None,
    suffix: Annotated[SampleFormat, typer.Option("--format", help="Image format of the set.")] = "jpg",
    quality: Annotated[int, typer.Option(help="Quality of stored jpg or webp images, 1 to 100.")] = 95,
    min_side: Annotated[
        int | None, typer.Option(help="Smallest allowed short side, in pixels.", show_default="the patch size")
    ] = None,
    max_aspect: Annotated[float, typer.Option(help="Largest allowed ratio of long to short side.")] = 20.0,
    no_filters: Annotated[
        bool, typer.Option("--no-filters", help="Keep pictures that are nearly black, flat, or mostly text or border.")
    ] = False,
    samples_per_shard: Annotated[
        int | None, typer.Option(help="Number of samples in each shard.", show_default="at least 16 train shards")
    ] = None,
    dedup: Annotated[
        Deduplication,
        typer.Option(help="near drops photographs that look alike, exact those with equal bytes, off none."),
    ] = "near",
    depth: Annotated[int, typer.Option(help="How deep to follow links from a web page, on its own site.")] = 1,
    connections: Annotated[int, typer.Option(help="Largest number of concurrent requests.")] = POLITE.connections,
    host_connections: Annotated[int, typer.Option(help="Concurrent requests to one host.")] = POLITE.host_connections,
    host_rate: Annotated[float, typer.Option(help="Requests per second to one host.")] = POLITE.host_rate,
    deadline: Annotated[
        float, typer.Option(help="Seconds allowed for a request and its whole response.")
    ] = POLITE.deadline_s,
    cap_mb: Annotated[float, typer.Option(help="Largest file to download, in MB.")] = POLITE.cap_bytes / 1e6,
    attempts: Annotated[int, typer.Option(help="Attempts per request, for errors worth retrying.")] = POLITE.attempts,
    contact: Annotated[
        str | None, typer.Option(help="E-mail address or URL sent to each server for its owner.")
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Also connect to private and loopback addresses.")
    ] = False,
    no_robots: Annotated[bool, typer.Option("--no-robots", help="Ignore robots.txt (your own servers only).")] = False,
    memory: Annotated[
        int,
        typer.Option(
            help="Memory limit for each worker process, in MiB. Large photographs are decoded one at a time; a "
            "photograph that needs more on its own is rejected."
        ),
    ] = DEFAULT_BYTES >> 20,
    crawlers: Annotated[
        int | None,
        typer.Option(help="Largest number of workers that fetch from the web.", show_default="all workers"),
    ] = None,
    retry_rejects: Annotated[
        list[str] | None,
        typer.Option(metavar="REASON", help="Instead of SRC: retry what was rejected for this reason; all for any."),
    ] = None,
    repack_set: Annotated[
        bool, typer.Option("--repack", help="Instead of SRC: distribute the samples evenly over new shards.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep taking what arrives in the folders SRC, until interrupted.")
    ] = False,
    shard_minutes: Annotated[
        float, typer.Option(help="With --watch: how long a photograph waits at most until its shard is closed.")
    ] = 5.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    quiet: Quiet = False,
) -> None:
    """Makes or extends a training set: WebDataset shards, an index, and the rejected photographs with reasons.

    Run the same command again to resume an interrupted run or to add what is new.
    """
    # The parser leaves flags that it does not know, which are Beam's, among the sources.
    paths, unknown = split_flags(sources or [])
    flags = beam_flags(context, unknown)
    from pipelines.ingest import ingest, planned, repack
    from pipelines.ingest_watch import ingest_arrivals
    from pipelines.terminal.ingest_tables import show_plan, show_summary
    from pipelines.terminal.interrupts import stopped_by_signals
    from transforms.ingest.options import IngestOptions
    from transforms.photographs.prepare import Preparation
    from transforms.storage.files import join
    from transforms.training_set.dataset import REJECTS

    if repack_set:
        if paths or retry_rejects or dry_run or watch:
            raise InputError("--repack cannot be combined with sources, --retry-rejects, --watch or --dry-run")
        show_summary(out, repack(out, samples_per_shard, flags))
        return
    manners = Manners(
        connections=connections,
        host_connections=host_connections,
        host_rate=host_rate,
        deadline_s=deadline,
        cap_bytes=int(cap_mb * 1e6),
        attempts=attempts,
        contact=contact,
        allow_private=allow_private,
        heed_robots=not no_robots,
    )
    preparation = Preparation(
        full_height_px=full_size,
        patch_size_px=patch_size,
        square=square,
        via_size_px=via_size,
        suffix=suffix,
        quality=quality,
        min_side_px=min_side,
        max_aspect=max_aspect,
        content_filters=not no_filters,
    )
    options = IngestOptions(
        tuple(paths),
        out,
        preparation=preparation,
        samples_per_shard=samples_per_shard,
        dedup=dedup,
        manners=manners,
        crawlers=crawlers,
        depth=depth,
        retry_rejects=tuple(retry_rejects or ()),
        memory_bytes=memory << 20,
    )
    if dry_run:
        with planned(options) as (where, plan):
            show_plan(out, where, plan, manners)
        return
    if watch:
        with stopped_by_signals() as stop:
            ingest_arrivals(options, shard_minutes, stop, flags)
        return
    dataset = ingest(options, flags)
    show_summary(out, dataset)
    if not sum(dataset["samples"].values()):
        print(f"no photograph could be used; {join(out, REJECTS)} gives the reason for each", file=sys.stderr)
        raise typer.Exit(1)
