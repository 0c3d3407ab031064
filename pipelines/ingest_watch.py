"""Ingest for as long as photographs arrive: ``infinitygan ingest --watch FOLDER... --out DIR``.

Duplicates, ranks and tables need a closed set of photographs. So what has arrived is taken in jobs, one after the
other, each of which is an ordinary one that extends the set.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from apache_beam.options.pipeline_options import PipelineOptions
from fsspec.core import has_magic

from model.errors import InputError, one_line
from pipelines.ingest import ingest
from pipelines.terminal.jobs import is_detached, repeated
from pipelines.terminal.progress import say
from transforms.ingest.options import IngestOptions
from transforms.ingest.plan import is_planned
from transforms.sources.archives import TAR_SUFFIX
from transforms.sources.lists import LIST_SUFFIXES, PICTURE_SUFFIXES
from transforms.sources.web import is_on_web
from transforms.storage.arrivals import Listed, check_place, digest, list_arrivals, pause_after, take_whole
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.urls import check_scheme, redact
from transforms.training_set.dataset import read_dataset_if_any

SAMPLES_PER_SHARD = 1000
"""The number of photographs after which a job begins, and of samples in a shard, if none is given."""

File = tuple[str, str | None]
"""A file that has arrived, and the folder that is its source; None for one that matches a pattern."""


def ingest_arrivals(
    options: IngestOptions, shard_minutes: float, stop: threading.Event, beam_flags: PipelineOptions | None = None
) -> None:
    """Extends a training set by what arrives in its sources, until it is stopped.

    Args:
        options: the options of each job. With `samples_per_shard` photographs waiting, the next job begins.
        shard_minutes: the longest time that a photograph waits for others.
        stop: ends the watch, after the job at work.
        beam_flags: the options of the Beam runner.

    Raises:
        InputError: the sources cannot be watched, or the output folder cannot be used.
        OSError: the storage of the output failed. The next watch goes on from what was stored.
    """
    check(options, shard_minutes, beam_flags)
    options = dataclasses.replace(options, watch=True, samples_per_shard=options.samples_per_shard or SAMPLES_PER_SHARD)
    most = options.samples_per_shard or SAMPLES_PER_SHARD
    arrivals, waiting, due_s = Arrivals(options.sources, options.out), list[File](), math.inf
    repeated(partial(resume, options, beam_flags))
    say(redact(f"{options.out}: watching {', '.join(options.sources)}"))
    while not stop.is_set():
        start_s = time.monotonic()
        new = arrivals.look()
        if new and not waiting:
            due_s = start_s + 60 * shard_minutes
        waiting = [*filter(arrivals.shows, waiting), *new]
        if len(waiting) >= most or (waiting and start_s >= due_s):
            repeated(partial(take, dataclasses.replace(options, arrived=tuple(waiting)), beam_flags))
            waiting.clear()
        else:
            stop.wait(pause_after(time.monotonic() - start_s))


def check(options: IngestOptions, shard_minutes: float, beam_flags: PipelineOptions | None) -> None:
    """Raises InputError if the sources cannot be watched."""
    if options.retry_rejects:
        raise InputError("--watch takes what arrives in SRC, so it cannot be combined with --retry-rejects")
    for source in options.sources:
        check_scheme(source)
        if is_on_web(source):
            raise InputError(f"--watch {source}: only folders and patterns can be watched, on disks and stores")
        retried(check_place, source, options.out)
    if not shard_minutes > 0:
        raise InputError(f"--shard-minutes {shard_minutes}: give more than 0")
    if is_detached(beam_flags):
        raise InputError("--watch starts one job after the other, so it cannot be combined with --detach")


def resume(options: IngestOptions, beam_flags: PipelineOptions | None) -> None:
    """Completes the job that an earlier watch has left behind."""
    if is_planned(options.out):
        take(options, beam_flags)


def take(options: IngestOptions, beam_flags: PipelineOptions | None) -> None:
    """Runs a job, and says what the set has become."""
    before = read_dataset_if_any(options.out)
    dataset = ingest(options, beam_flags)
    if dataset != before:
        samples, rejects = sum(dataset["samples"].values()), sum(dataset["rejects"].values())
        say(f"{options.out}: {samples} samples in {len(dataset['shards'])} shards, {rejects} rejects")


@dataclass(slots=True)
class Arrivals:
    """The files in the sources that have not been taken yet.

    At the beginning all are new; a job finds what the set knows. Only a checksum of each name in the last listing is
    kept.

    Attributes:
        sources: folders and patterns.
        out: the folder of the training set, whose contents are not sources.
    """

    sources: tuple[str, ...]
    out: str
    _known: set[bytes] = field(default_factory=set)
    _waiting: dict[str, str] = field(default_factory=dict)

    def look(self) -> list[File]:
        """Returns the files that have become whole since the last look. If a listing fails, the next look sees them."""
        there: set[bytes] = set()

        def is_known(file: Listed) -> bool:
            name = digest(file.url)
            if name in self._known:
                there.add(name)
            return name in there

        new: list[File] = []
        try:
            for file, _ in take_whole(self._listed(), is_known, self._waiting):
                there.add(digest(file.url))
                new.append((file.url, None if has_magic(file.place) else file.place.rstrip("/")))
        except Exception as error:  # stores raise errors of their own classes, and most of them pass
            say_once(redact(f"{', '.join(self.sources)}: cannot be listed, which is tried again: {one_line(error)}"))
            there |= self._known
        self._known = there
        return new

    def shows(self, file: File) -> bool:
        """Returns whether the last listing shows a file that was returned before."""
        return digest(file[0]) in self._known

    def _listed(self) -> Iterator[Listed]:
        for source in self.sources:
            lists = LIST_SUFFIXES if has_magic(source) else ()
            yield from list_arrivals(source, (*PICTURE_SUFFIXES, TAR_SUFFIX, *lists), self.out)
