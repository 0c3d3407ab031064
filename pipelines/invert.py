"""Invert: photographs to overlays of a world."""

import re
import sys
from collections.abc import Iterable, Sequence

import apache_beam as beam
import torch
from apache_beam.options.pipeline_options import PipelineOptions

from model.world.overlay import Overlay
from pipelines.terminal.beam_flags import storage_errors
from pipelines.terminal.progress import track
from transforms.applications.inversions import read_inversions, write_inversions
from transforms.applications.invert import (
    INVERTED_DONE,
    STEPS_DONE,
    SUFFIX,
    InversionJob,
    Inverted,
    InvertPhotographs,
    invert,
)
from transforms.storage.files import join


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


if __name__ == "__main__":
    from pipelines.cli import main

    main(["invert", *sys.argv[1:]])
