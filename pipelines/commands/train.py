"""The flags of ``infinitygan train``."""

from typing import Annotated

import typer

from model.config import PRECISIONS, PRESETS, RECIPES, VERTICAL_LAWS
from pipelines.terminal.flags import Quiet


def train(
    data: Annotated[str, typer.Option(help="Training set made by ingest; folder or URL.")],
    out: Annotated[str, typer.Option(help="Folder or URL for the run.")],
    preset: Annotated[str, typer.Option(help=f"Network: {', '.join(PRESETS)}.")] = "small",
    recipe: Annotated[
        str | None, typer.Option(help=f"Settings: {', '.join(RECIPES)}.", show_default="the preset's")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Stop when this run has seen so many photographs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes.")] = None,
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from, or bundled.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    batch: Annotated[
        int | None, typer.Option(help="Photographs a step, over all processes.", show_default="16")
    ] = None,
    accumulate: Annotated[int, typer.Option(help="Parts of a batch, to hold one at a time in memory.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help=f"{', '.join(PRECISIONS)}.", show_default="float32 on a CPU, tf32 on a GPU")
    ] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same bits again on a GPU.")] = False,
    vertical_law: Annotated[
        str, typer.Option(help=f"Of windows along the height: {', '.join(VERTICAL_LAWS)}.")
    ] = "crop",
    strict: Annotated[bool, typer.Option("--strict", help="End when a shard cannot be read.")] = False,
    quiet: Quiet = False,
) -> None:
    """Trains a generator from shards; what it leaves in --out explains itself."""
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
