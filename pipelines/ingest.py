"""Photographs to training shards: ``infinitygan ingest SRC... --out DIR``."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import apache_beam as beam
import typer
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console
from rich.table import Table

from model.errors import InputError
from model.version import __version__
from pipelines.options import beam_options, own_flags, storage_errors
from pipelines.progress import track
from transforms import staging
from transforms.ingest import (
    DEDUP_WAYS,
    PHOTOGRAPHS_DONE,
    AssignShards,
    DropDuplicates,
    PreparePhotographs,
    WriteTables,
    WriteTrainingShards,
)
from transforms.photographs import LONGEST_SIDE_PX
from transforms.samples import SPLITS
from transforms.sources import Found, find_photographs
from transforms.storage import join
from transforms.training_shards import REJECTS, read_dataset


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What an ingest run is asked to do.

    Attributes:
        sources: folders, globs and files, as paths or URLs.
        out: where the training set goes.
        full_size_px: height to which photographs are scaled.
        patch_size_px: side of the patches that training and evaluation will crop.
        square: cut every photograph to its middle square.
        samples_per_shard: None to let the number of samples decide.
        dedup: exact or off.
    """

    sources: tuple[str, ...]
    out: str
    full_size_px: int = 197
    patch_size_px: int = 101
    square: bool = False
    samples_per_shard: int | None = None
    dedup: str = "exact"

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("no source given: name a folder, a glob or a file of photographs")
        if not self.out:
            raise InputError("--out is empty: name a folder for the training set")
        if self.patch_size_px < 1:
            raise InputError(f"--patch-size {self.patch_size_px} is too small: give 1 or more pixels")
        if not self.patch_size_px <= self.full_size_px <= LONGEST_SIDE_PX:
            bounds = f"the patch size, {self.patch_size_px}, to {LONGEST_SIDE_PX} pixels"
            raise InputError(f"--full-size {self.full_size_px} is out of range: give from {bounds}")
        if self.samples_per_shard is not None and self.samples_per_shard < 1:
            raise InputError(f"--samples-per-shard {self.samples_per_shard} is too small: give 1 or more")
        if self.dedup not in DEDUP_WAYS:
            raise InputError(f"--dedup {self.dedup} is unknown: give {' or '.join(DEDUP_WAYS)}")

    def configuration(self) -> dict[str, Any]:
        """What decides the set's bytes, for ``dataset.json``; where it is written does not."""
        values = dataclasses.asdict(self)
        del values["out"]
        return {**values, "sources": list(self.sources), "infinitygan_version": __version__}


def ingest(options: IngestOptions, beam_flags: PipelineOptions | None = None) -> dict[str, Any]:
    """Makes a training set; returns what its ``dataset.json`` says.

    Raises:
        InputError: the sources or the target cannot be used; nothing has been written then.
        OSError: the target's storage failed; what had been written is removed as far as that can be done.
    """
    staging.check_out(options.out)
    found = find_photographs(options.sources, options.out)
    staging.begin(options.out)
    PHOTOGRAPHS_DONE.reset()
    try:
        with track("Photographs", len(found.photographs), lambda: PHOTOGRAPHS_DONE.count), storage_errors():
            run(options, found, beam_flags or beam_options([]))
    except BaseException:
        staging.discard(options.out)
        raise
    staging.finish(options.out)
    return read_dataset(options.out)


def run(options: IngestOptions, found: Found, beam_flags: PipelineOptions) -> None:
    """Builds the pipeline and runs it to its end."""
    prepare = PreparePhotographs(options.out, options.full_size_px, options.patch_size_px, options.square)
    with beam.Pipeline(options=beam_flags) as pipeline:
        read = pipeline | "Photographs" >> beam.Create(found.photographs) | prepare
        distinct = read.prepared | DropDuplicates(options.dedup)
        shards = distinct.kept | AssignShards(options.samples_per_shard) | WriteTrainingShards(options.out)
        not_photographs = pipeline | "Other files" >> beam.Create(found.rejects)
        rejects = (not_photographs, read.rejected, distinct.rejected) | "All rejects" >> beam.Flatten()
        _ = (shards, rejects) | WriteTables(options.out, options.configuration())


def show_summary(options: IngestOptions, dataset: dict[str, Any]) -> None:
    """Prints what was kept, what was not and why, and the files made."""
    table = Table(title=f"Training set {options.out}", title_justify="left")
    table.add_column("what")
    table.add_column("samples", justify="right")
    table.add_column("files", justify="right")
    for split in SPLITS:
        shards = sum(name.startswith(f"{split}-") for name in dataset["shards"])
        table.add_row(split, str(dataset["samples"][split]), str(shards))
    table.add_section()
    for reason, count in dataset["rejects"].items():
        table.add_row(f"rejected: {reason}", str(count), "")
    Console(stderr=True).print(table)


def ingest_command(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="SRC...", help="Folders, globs, files; paths or URLs.")],
    out: Annotated[str, typer.Option(help="Folder or URL for the training set.")],
    full_size: Annotated[int, typer.Option(help="Height to which photographs are scaled, px.")] = 197,
    patch_size: Annotated[int, typer.Option(help="Side of the patches cropped from them, px.")] = 101,
    square: Annotated[bool, typer.Option("--square", help="Cut every photograph to its middle square.")] = False,
    samples_per_shard: Annotated[
        int | None, typer.Option(help="Samples in a shard.", show_default="at least 16 train shards")
    ] = None,
    dedup: Annotated[
        str, typer.Option(help="exact keeps one of the photographs with equal bytes, off keeps all.")
    ] = "exact",
) -> None:
    """Makes a training set of photographs: WebDataset shards, an index, and the rejects with their reasons.

    Beam's own flags are passed on in the form --flag=value.
    """
    # The parser leaves flags that it does not know, which are Beam's, among the sources.
    flags = [value for value in sources if value.startswith("--")]
    paths = tuple(value for value in sources if not value.startswith("--"))
    options = IngestOptions(paths, out, full_size, patch_size, square, samples_per_shard, dedup)
    dataset = ingest(options, beam_options([*flags, *context.args], own_flags(context)))
    show_summary(options, dataset)
    if not sum(dataset["samples"].values()):
        print(f"no photograph could be used: {join(out, REJECTS)} says why of each", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["ingest", *sys.argv[1:]])
