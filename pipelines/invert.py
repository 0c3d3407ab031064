"""Invert: turns photographs into overlays of a world."""

import re
import sys
from collections.abc import Iterable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from model.bundled import resolve
from model.world.overlay import Overlay
from pipelines.terminal.jobs import is_remote, job
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
from transforms.workers.sight import CheckSight, look


def invert_all(jobs: Sequence[InversionJob]) -> list[Overlay]:
    """Inverts photographs in this process, one at a time, and shows progress."""
    STEPS_DONE.reset()
    with track("Steps", sum(job.config.steps for job in jobs), lambda: STEPS_DONE.count):
        return [invert(job) for job in jobs]


def invert_many(jobs: Sequence[InversionJob], out: str, beam_flags: PipelineOptions) -> list[Inverted]:
    """Inverts photographs with a Beam pipeline; the folder receives a table with the result of each."""
    INVERTED_DONE.reset()
    needed = [file for each in jobs for file in (each.photograph, resolve(each.checkpoint))]
    sight = look(needed) if is_remote(beam_flags) else None
    with track("Photographs", len(jobs), lambda: INVERTED_DONE.count), job(beam_flags, out) as pipeline:
        results = pipeline | "Photographs" >> beam.Create(jobs) | CheckSight(sight) | InvertPhotographs()
        _ = results | "All" >> beam.combiners.ToList() | "Table" >> beam.Map(lambda rows: write_inversions(out, rows))
    return read_inversions(out)


def name_of(photograph: str) -> str:
    """Returns a file's name as part of an id: without folder and suffix, in letters, digits, _ and -."""
    stem = photograph.rstrip("/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:100] or "photograph"


def overlay_paths(photographs: Iterable[str], folder: str) -> list[str]:
    """Returns the path of each photograph's overlay; a repeated name gets a number."""
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
