"""The flags of ``infinitygan train``."""

from typing import Annotated, get_args

import typer

from pipelines.terminal.flags import Preset, Quiet, Recipe, TrainingPrecision, VerticalLaw


def train(
    data: Annotated[str, typer.Option(metavar="DIR", help="Training set made by ingest: a folder or URL.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder or URL for the run.")],
    preset: Annotated[
        Preset,
        typer.Option(
            metavar="<name>", help=f"Network: {', '.join(get_args(Preset))}. detail trains a checkpoint's detail stage."
        ),
    ] = "small",
    recipe: Annotated[Recipe | None, typer.Option(help="Training settings.", show_default="the preset's")] = None,
    images: Annotated[int | None, typer.Option(help="Stop when the run has seen this many photographs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Checkpoint to start from, or bundled for the checkpoint of the package.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    batch: Annotated[
        int | None, typer.Option(help="Photographs per step, over all processes.", show_default="16; 4 for detail")
    ] = None,
    accumulate: Annotated[int, typer.Option(help="Number of parts of a batch; one at a time is held in memory.")] = 1,
    precision: Annotated[
        TrainingPrecision | None,
        typer.Option(
            metavar="<float32|tf32|bfloat16>",
            help="Precision of the networks' products.",
            show_default="float32 on a CPU, tf32 on a GPU",
        ),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Use only GPU kernels that reproduce the same bits.")
    ] = False,
    vertical_law: Annotated[
        VerticalLaw, typer.Option(help="Distribution of training windows along the height.")
    ] = "crop",
    strict: Annotated[bool, typer.Option("--strict", help="Stop if a shard cannot be read.")] = False,
    quiet: Quiet = False,
) -> None:
    """Trains a generator on a training set. --out receives checkpoints, samples, curves and a log."""
    from pipelines.train import TrainOptions, train

    train(
        TrainOptions(
            data=data,
            out=out,
            preset=preset,
            recipe=recipe,
            images=images,
            minutes=minutes,
            init=init,
            resume=resume,
            seed=seed,
            batch=batch,
            accumulate=accumulate,
            precision=precision,
            deterministic=deterministic,
            vertical_law=vertical_law,
            strict=strict,
        )
    )
