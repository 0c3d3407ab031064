"""Invert: turns photographs into overlays of a world."""

import dataclasses
import operator
import posixpath
import re
import sys
from collections.abc import Iterable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from model.bundled import resolve
from model.world.overlay import Overlay
from pipelines.terminal.job_folders import folder_of_job
from pipelines.terminal.jobs import is_detached, is_remote, job
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
from transforms.storage.files import join, remove
from transforms.storage.retry import retried
from transforms.storage.runs import Runs
from transforms.workers.listed import ReadListed
from transforms.workers.sight import CheckSight, Sight, look


def invert_all(jobs: Sequence[InversionJob]) -> list[Overlay]:
    """Inverts photographs in this process, one at a time, and shows progress."""
    STEPS_DONE.reset()
    with track("Steps", sum(job.config.steps for job in jobs), lambda: STEPS_DONE.count):
        return [invert(job) for job in jobs]


def invert_many(jobs: Sequence[InversionJob], out: str, beam_flags: PipelineOptions) -> list[Inverted]:
    """Inverts photographs with a Beam pipeline; the folder receives a table with the result of each.

    Args:
        jobs: The photographs, which differ in nothing but their files and overlays.
        out: The folder.
        beam_flags: Beam's options.
    """
    INVERTED_DONE.reset()
    with (
        folder_of_job(out, beam_flags) as folder,
        track("Photographs", len(jobs), lambda: INVERTED_DONE.count),
        job(beam_flags, out) as pipeline,
    ):
        build(pipeline, jobs, out, folder.url, is_remote(beam_flags), is_detached(beam_flags))
    return read_inversions(out)


def build(
    pipeline: beam.Pipeline, jobs: Sequence[InversionJob], out: str, folder: str, remote: bool, detached: bool
) -> None:
    """Adds the steps of an inversion to a pipeline; its photographs are listed in the folder of the job."""
    files: Runs[tuple[str, str]] = Runs(folder, operator.itemgetter(0), list, tuple)
    listed = files.write((each.photograph, each.out) for each in jobs)
    first = jobs[0]

    def job_of(paths: tuple[str, str]) -> InversionJob:
        return dataclasses.replace(first, photograph=paths[0], out=paths[1])

    def finish(rows: Iterable[Inverted]) -> None:
        write_inversions(out, rows)
        if detached:
            retried(remove, folder)

    sight = sight_of(jobs, listed) if remote else None
    results = (
        pipeline
        | "Photographs" >> ReadListed(files, listed)
        | CheckSight(sight)
        | "Jobs" >> beam.Map(job_of)
        | InvertPhotographs()
    )
    _ = results | "All" >> beam.combiners.ToList() | "Table" >> beam.Map(finish)


def sight_of(jobs: Sequence[InversionJob], listed: str) -> Sight:
    """Returns what workers must see: the list, the checkpoint, and a photograph of each folder."""
    photographs = {posixpath.dirname(each.photograph): each.photograph for each in jobs}
    return look([listed, resolve(jobs[0].checkpoint), *photographs.values()])


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
