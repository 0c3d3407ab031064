"""Invert: photographs to overlays of a world."""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

import apache_beam as beam
import torch
import typer
from apache_beam.options.pipeline_options import PipelineOptions

from model.bundled import BUNDLED
from model.errors import InputError
from model.inversion import InversionConfig
from model.overlay import Overlay
from pipelines.flags import Checkpoint, PhotographSeed, Size, Steps, check_folder, size_px, split_flags, whole_numbers
from pipelines.options import beam_options, own_flags, storage_errors
from pipelines.progress import track
from transforms.inversions import INVERSIONS, read_inversions, write_inversions
from transforms.invert import (
    INVERTED_DONE,
    STEPS_DONE,
    SUFFIX,
    InversionJob,
    Inverted,
    InvertPhotographs,
    invert,
    photographs_at,
)
from transforms.storage import join


def invert_all(jobs: Sequence[InversionJob]) -> list[Overlay]:
    """Inverts photographs in this process, one after the other, and shows how far it is."""
    STEPS_DONE.reset()
    with track("Steps", sum(job.config.steps for job in jobs), lambda: STEPS_DONE.count):
        return [invert(job) for job in jobs]


def invert_many(jobs: Sequence[InversionJob], out: str, beam_flags: PipelineOptions) -> list[Inverted]:
    """Inverts photographs by a Beam pipeline; what became of each stands in a table in the folder."""
    INVERTED_DONE.reset()
    with (
        track("Photographs", len(jobs), lambda: INVERTED_DONE.count),
        storage_errors(),
        beam.Pipeline(options=beam_flags) as pipeline,
    ):
        results = pipeline | "Photographs" >> beam.Create(jobs) | InvertPhotographs()
        _ = results | "All" >> beam.combiners.ToList() | "Table" >> beam.Map(lambda rows: write_inversions(out, rows))
    return read_inversions(out)


def default_network() -> str:
    """What LPIPS looks with: VGG16 on a GPU, AlexNet, which is much lighter, on a CPU."""
    return "vgg" if torch.cuda.is_available() else "alex"


def name_of(photograph: str) -> str:
    """A file's name as part of an id: without its folder and suffix, in letters, digits, _ and -."""
    stem = photograph.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:100] or "photograph"


def overlay_paths(photographs: Iterable[str], folder: str) -> list[str]:
    """Where the overlay of each photograph goes; of two with one name the second gets a number."""
    paths: list[str] = []
    for photograph in photographs:
        name, number = name_of(photograph), 1
        while (path := join(folder, f"{name}{f'-{number}' if number > 1 else ''}{SUFFIX}")) in paths:
            number += 1
        paths.append(path)
    return paths


def invert_command(
    context: typer.Context,
    photographs: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Files, folders and lists; paths or URLs.")
    ],
    out: Annotated[str, typer.Option(help="The overlay, FILE.safetensors; a folder for those of many.")],
    checkpoint: Checkpoint = None,
    steps: Steps = 3000,
    size: Size = None,
    origin: Annotated[
        str | None,
        typer.Option(metavar="X,Y", help="World pixel of its top left corner.", show_default="0,-height/2"),
    ] = None,
    cyclic_width: Annotated[
        int | None, typer.Option(help="Of the cyclic panorama that it is for, px.", show_default="not cyclic")
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Adam's highest.")] = 0.1,
    pixel_weight: Annotated[float, typer.Option(help="Of the squared difference of pixels.")] = 10.0,
    lpips_weight: Annotated[float, typer.Option(help="Of LPIPS.")] = 10.0,
    z_g_weight: Annotated[float, typer.Option(help="Of the prior on z_g.")] = 10.0,
    z_l_weight: Annotated[float, typer.Option(help="Of the prior on z_l.")] = 10.0,
    w_weight: Annotated[float, typer.Option(help="Of the prior on W+.")] = 0.01,
    noise_weight: Annotated[float, typer.Option(help="Of the noise's correlation.")] = 1000.0,
    lpips: Annotated[str | None, typer.Option(help="alex or vgg.", show_default="vgg on a GPU")] = None,
    tile: Annotated[int, typer.Option(help="Larger photographs are seen in tiles of this side, px.")] = 256,
    seed: PhotographSeed = 0,
) -> None:
    """Finds the fields of the world that give a photograph; run again, it goes on where it was."""
    paths, flags = split_flags(photographs)
    beam_flags = beam_options([*flags, *context.args], own_flags(context))
    config = InversionConfig(
        steps=steps,
        learning_rate=learning_rate,
        pixel_weight=pixel_weight,
        lpips_weight=lpips_weight,
        z_g_weight=z_g_weight,
        z_l_weight=z_l_weight,
        w_weight=w_weight,
        noise_weight=noise_weight,
        tile_px=tile,
        network=lpips or default_network(),
        seed=seed,
    )
    x_px, y_px = whole_numbers("--origin", origin, 2, "0,-64") if origin else (0, None)
    single = out.endswith(SUFFIX)
    if not single:
        check_folder(out)
    found = photographs_at(paths)
    if single and len(found) > 1:
        raise InputError(f"--out {out} is one file for {len(found)} photographs; give a folder")
    outs = [out] if single else overlay_paths(found, out)
    jobs = [
        InversionJob(
            photograph=photograph,
            out=file,
            checkpoint=checkpoint or BUNDLED,
            config=config,
            size_px=size_px(size),
            x_px=x_px,
            y_px=y_px,
            cyclic_px=cyclic_width,
        )
        for photograph, file in zip(found, outs, strict=True)
    ]
    if single:
        (overlay,) = invert_all(jobs)
        fit = overlay.provenance
        print(f"{out}: PSNR {fit['psnr_db']:.2f} dB, LPIPS {fit['lpips']:.4f}", file=sys.stderr)
        return
    rows = invert_many(jobs, out, beam_flags)
    failed = [row for row in rows if row.reason]
    for row in failed:
        print(f"{row.photograph}: {row.reason}", file=sys.stderr)
    print(f"{len(rows) - len(failed)} of {len(rows)} overlays are there; {join(out, INVERSIONS)}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    from pipelines.cli import main

    main(["invert", *sys.argv[1:]])
