"""Render for as long as requests arrive: ``infinitygan render --watch FOLDER --out DIR``.

files -> rows of requests -> work -> panoramas -> manifest, and notes of the files that have been handled

On a cluster this is one job on an endless stream, which goes on without the process that submitted it. Beam's runner in
this process holds back what an endless source gives, so there the same steps run on what each look finds.
"""

import itertools
import threading
import time
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.io import ReadFromPubSub
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.transforms.periodicsequence import PeriodicImpulse, RebaseMode
from apache_beam.transforms.window import FixedWindows, GlobalWindows

from model.bundled import BUNDLED, resolve
from model.errors import InputError
from pipelines.render import make_panoramas
from pipelines.terminal.jobs import is_remote, job, repeated, uses_dataflow
from pipelines.terminal.progress import say, track
from transforms.panoramas.folder import FOLDERS
from transforms.panoramas.manifest import MANIFEST
from transforms.render.arrived import ReadArrived, StoreMessages, TakeInByGroup
from transforms.render.assemble import PANORAMAS_DONE
from transforms.render.index_page import write_index
from transforms.render.intake import ROWS
from transforms.render.look import Arrived, LookAgain, Looked, Looker, Watched, begin_watch, mark_of
from transforms.render.options import RenderOptions
from transforms.render.planner import check_out
from transforms.render.record import Record, close
from transforms.storage.arrivals import EVERY_S, SHARE, check_place, pause_after
from transforms.storage.files import exists, join, remove_leftovers
from transforms.storage.retry import retried
from transforms.storage.urls import redact
from transforms.workers.sight import CheckSight, Sight, look

Keyed = tuple[str, Any]
"""The elements of steps with a state. Beam must know that their keys are text, to tell them apart by their bytes."""

WINDOW_S = 5.0
"""The requests of files that are found within this time are noted together."""


def render_arrivals(
    options: RenderOptions, watched: Watched, stop: threading.Event, beam_flags: PipelineOptions | None = None
) -> None:
    """Renders the requests in files that arrive in a folder, until it is stopped.

    Args:
        options: the options of the job; the requests in them are not used.
        watched: what is watched.
        stop: ends the watch. What is not finished then is rendered by the next watch.
        beam_flags: the options of the Beam runner.

    Raises:
        InputError: the folder cannot be watched, or the output cannot be written.
        OSError: storage failed in a way that does not concern a single panorama.
        Detached: the job was submitted, and the flags say not to wait.
    """
    check_out(options.out)
    check_subscription(watched, beam_flags)
    retried(check_place, watched.place, options.out)
    retried(first_file, watched)  # checks that the folder can be listed
    retried(remove_leftovers, options.out, *FOLDERS)
    begin_watch(watched)
    say(redact(f"{options.out}: watching {watched.place}"))
    with track("Panoramas", 0, lambda: PANORAMAS_DONE.count):
        if is_remote(beam_flags):
            assert beam_flags is not None
            stream(options, watched, stop, beam_flags)
        else:
            take_turns(options, watched, stop, beam_flags)
    write_page(options.out)


def write_page(out: str) -> None:
    """Writes index.html if there is a manifest; there is none before the first request."""
    if retried(exists, join(out, MANIFEST)):
        write_index(out)


def check_subscription(watched: Watched, beam_flags: PipelineOptions | None) -> None:
    """Raises InputError if messages are watched that the runner cannot receive."""
    if not watched.subscription:
        return
    if not uses_dataflow(beam_flags):
        raise InputError(f"--watch {watched.subscription}: of the runners, only Dataflow receives messages of Pub/Sub")


def stream(options: RenderOptions, watched: Watched, stop: threading.Event, beam_flags: PipelineOptions) -> None:
    """Runs an endless job on a cluster."""
    beam_flags.view_as(StandardOptions).streaming = True
    checkpoint = resolve(options.checkpoint or BUNDLED)
    sight = look([mark_of(options.out), checkpoint, *retried(first_file, watched)])
    with job(beam_flags, options.out, stop) as pipeline:
        build_stream(pipeline, options, watched, sight)


def first_file(watched: Watched) -> list[str]:
    """Returns the URL of a file that is there already, if there is one."""
    return [file.url for file in itertools.islice(watched.files(), 1)]


def take_turns(
    options: RenderOptions, watched: Watched, stop: threading.Event, beam_flags: PipelineOptions | None
) -> None:
    """Looks for files and renders what they ask for, in turns, in this process."""
    looker, looked, next_page_s = Looker(watched), Looked(), 0.0
    while not stop.is_set():
        start_s = time.monotonic()
        arrived = looker.look(looked)
        if not arrived:
            stop.wait(pause_after(time.monotonic() - start_s))
            continue
        repeated(partial(take_turn, arrived, options, beam_flags))
        start_s = time.monotonic()
        if start_s >= next_page_s:
            write_page(options.out)
            next_page_s = start_s + SHARE * (time.monotonic() - start_s)


def take_turn(arrived: list[Arrived], options: RenderOptions, beam_flags: PipelineOptions | None) -> None:
    """Renders what files ask for, in this process."""
    with job(beam_flags, options.out) as pipeline:
        files = pipeline | "Arrived" >> beam.Create(arrived)
        closed, _ = handle(files, options)
        _ = closed | "Record" >> beam.ParDo(Record(options.out))


def build_stream(pipeline: beam.Pipeline, options: RenderOptions, watched: Watched, sight: Sight | None) -> None:
    """Adds the steps of an endless job to a pipeline."""
    if watched.subscription:
        messages = pipeline | "ReadFromPubSub" >> ReadFromPubSub(subscription=watched.subscription)
        _ = messages | "StoreMessages" >> beam.ParDo(StoreMessages(watched.place))
    ticks = (
        pipeline
        | "Clock" >> PeriodicImpulse(fire_interval=EVERY_S, rebase=RebaseMode.REBASE_START)
        | "Tick" >> beam.Map(lambda _: ("", None)).with_output_types(Keyed)
    )
    files = ticks | "CheckSight" >> CheckSight(sight) | "LookAgain" >> beam.ParDo(LookAgain(watched))
    closed, rows = handle(files, options, FixedWindows(WINDOW_S))
    _ = (
        (ticks, at_any_time(closed, "Closed at any time"), at_any_time(rows, "Rows at any time"))
        | "To record" >> beam.Flatten()
        | "Record" >> beam.ParDo(Record(options.out))
    )


def handle(
    files: beam.PCollection[Arrived], options: RenderOptions, windows: Any = None
) -> tuple[beam.PCollection[Any], beam.PCollection[Any]]:
    """Adds the steps from files to panoramas.

    Args:
        files: the files that have arrived.
        options: the options of the job.
        windows: the windows in which files are closed; None to close all of them at the end.

    Returns:
        What has become of files, when nothing is left to do on them; and the rows of the manifest, when they are known.
        Both have the same key.
    """
    windows = GlobalWindows() if windows is None else windows
    read = files | "ReadArrived" >> beam.ParDo(ReadArrived()).with_outputs(ROWS, main="batches")
    batches = read.batches | "By group" >> beam.Map(lambda batch: batch).with_output_types(tuple[int, Any])
    taken = batches | "TakeIn" >> beam.ParDo(TakeInByGroup(options)).with_outputs(ROWS, main="work")
    known = (read[ROWS], taken[ROWS]) | "Known rows" >> beam.Flatten() | "Window rows" >> beam.WindowInto(windows)
    work = taken.work | "Window work" >> beam.WindowInto(windows)
    made, early = make_panoramas(work, options)
    closed = (
        (files | "Window files" >> beam.WindowInto(windows), known, made)
        | "To close" >> beam.Flatten()
        | "One key" >> beam.Map(lambda each: ("", each)).with_output_types(Keyed)
        | "Gather closed" >> beam.GroupByKey()
        | "Close" >> beam.Map(close).with_output_types(Keyed)
    )
    rows = (known, early) | "Early rows" >> beam.Flatten()
    return closed, rows | "One key for rows" >> beam.Map(lambda row: ("", row)).with_output_types(Keyed)


def at_any_time(elements: beam.PCollection[Any], label: str) -> beam.PCollection[Any]:
    """Puts elements into the window of all times, where their steps' state outlasts their own windows."""
    return elements | label >> beam.WindowInto(GlobalWindows())


def check_watch(flags: dict[str, object]) -> None:
    """Raises InputError if flags are given that a watch cannot heed.

    Args:
        flags: the values of flags by their names; those that are not given are false.
    """
    for name, value in flags.items():
        if value:
            raise InputError(f"--watch renders what arrives, so it cannot be combined with {name}")
