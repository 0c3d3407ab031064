"""The flags of ``infinitygan ingest``."""

import sys
from typing import Annotated

import typer

from model.errors import InputError
from pipelines.terminal.flags import Quiet, beam_flags, split_flags
from transforms.sources.manners import Manners
from transforms.storage.memory import DEFAULT_BYTES

POLITE = Manners()


def ingest(
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
    memory: Annotated[
        int,
        typer.Option(
            help="Most memory that a worker process takes, MiB. Large photographs are decoded one after the other; one "
            "that alone needs more is rejected."
        ),
    ] = DEFAULT_BYTES >> 20,
    crawlers: Annotated[int, typer.Option(help="Workers that fetch at once; a host belongs to one of them.")] = 1,
    retry_rejects: Annotated[
        list[str] | None,
        typer.Option(metavar="REASON", help="Instead of SRC: try again what was rejected so; all for any reason."),
    ] = None,
    repack_set: Annotated[bool, typer.Option("--repack", help="Instead of SRC: deal the set out evenly.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    quiet: Quiet = False,
) -> None:
    """Makes or extends a training set of photographs: WebDataset shards, an index, and the rejects with their reasons.

    The same command again goes on with a run that was cut off, or adds what is new. Beam's own flags are passed on in
    the form --flag=value.
    """
    # The parser leaves flags that it does not know, which are Beam's, among the sources.
    paths, unknown = split_flags(sources or [])
    flags = beam_flags(context, unknown)
    from pipelines.ingest import ingest, plan, repack
    from pipelines.terminal.ingest_tables import show_plan, show_summary
    from transforms.ingest.options import IngestOptions
    from transforms.photographs.prepare import Preparation
    from transforms.storage.files import join
    from transforms.training_set.dataset import REJECTS

    if repack_set:
        if paths or retry_rejects or dry_run:
            raise InputError("--repack stands alone: it takes no sources, --retry-rejects or --dry-run")
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
        full_size_px=full_size,
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
        show_plan(out, plan(options), manners)
        return
    dataset = ingest(options, flags)
    show_summary(out, dataset)
    if not sum(dataset["samples"].values()):
        print(f"no photograph could be used: {join(out, REJECTS)} says why of each", file=sys.stderr)
        raise typer.Exit(1)
