"""Looks for files of requests that have arrived, and have not been handled."""

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from model.errors import InputError, one_line
from transforms.panoramas.handled import WATCHED, Handled
from transforms.panoramas.requests import REQUEST_SUFFIXES, RequestFile
from transforms.storage.arrivals import EVERY_S, SHARE, Listed, digest, list_arrivals, take_whole
from transforms.storage.fence import RUN, RunFence, StaleRunError
from transforms.storage.files import filesystem, join, write_json
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.urls import redact
from transforms.workers.faults import reported

MOST_OPEN: Final = 10_000
"""The most files that have been found and not been noted; they bound what a stream holds."""

FILES_A_SECOND: Final = 100
"""The most files that are found in a second, so that a window does not get all that has piled up."""

LONGEST_BETWEEN_LOOKS_S: Final = 60.0

PUBSUB: Final = "pubsub"
MESSAGES: Final = ("requests", "messages")
"""The folder, in that of the job, for messages of Pub/Sub."""

_SUBSCRIPTION: Final = re.compile(r"([^/]+)/([^/]+)")


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched.

    Attributes:
        place: a folder or pattern.
        out: the folder of the job.
        defaults: the JSON values of fields that rows do not give.
        folder: the folder to which paths in the rows are relative.
        run: the id of this watch.
        subscription: a subscription of Pub/Sub whose messages become files in `place`; empty for none.
    """

    place: str
    out: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    subscription: str = ""

    def files(self) -> Iterator[Listed]:
        """Yields the files of requests that are there."""
        return list_arrivals(self.place, REQUEST_SUFFIXES, self.out)


def watched_at(place: str, out: str, defaults: Mapping[str, Any], folder: str) -> Watched:
    """Returns what a path or URL names: a folder, a pattern, or a subscription of Pub/Sub.

    Raises:
        InputError: the URL of a subscription is not complete.
    """
    scheme, mark, rest = place.partition("://")
    if scheme != PUBSUB or not mark:
        return Watched(place, out, defaults, folder)
    match = _SUBSCRIPTION.fullmatch(rest)
    if not match:
        raise InputError(f"--watch {place}: give {PUBSUB}://PROJECT/SUBSCRIPTION")
    subscription = f"projects/{match[1]}/subscriptions/{match[2]}"
    return Watched(join(out, *MESSAGES), out, defaults, folder, subscription=subscription)


def mark_of(out: str) -> str:
    """Returns the URL of the file that names the current watch."""
    return join(out, WATCHED, "watch.json")


def begin_watch(watched: Watched) -> None:
    """Makes a watch the current one. A job that an earlier one has left ends at its next look."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    retried(write_json, mark_of(watched.out), {RUN: watched.run, "place": redact(watched.place), "since": since})


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that has arrived.

    Attributes:
        file: the file.
        digest: the checksum of its URL and version.
    """

    file: RequestFile
    digest: bytes


@dataclass(slots=True)
class Looked:
    """What is kept from one look to the next.

    Attributes:
        waiting: the versions of files that may be incomplete, or that have to wait.
        open: the checksums of files that have been found and not been noted.
        last_s: the time of the last look.
        next_s: the time of the next one.
    """

    waiting: dict[str, str] = field(default_factory=dict)
    open: set[bytes] = field(default_factory=set)
    last_s: float = 0.0
    next_s: float = 0.0


class Looker:
    """Looks for files that have arrived, and have not been handled by this watch or an earlier one."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._handled = Handled(watched.out)

    def look(self, looked: Looked, most: int = FILES_A_SECOND) -> list[Arrived]:
        """Returns files that are new and whole. If the listing fails, the next look sees them.

        Args:
            looked: what is known from the look before; it is updated.
            most: the most files to return.

        Raises:
            StaleRunError: another watch has begun.
        """
        try:
            return self._look(looked, min(most, MOST_OPEN - len(looked.open)))
        except StaleRunError:
            raise
        except Exception as error:  # stores raise errors of their own classes, and most of them pass
            say_once(f"{redact(self._watched.place)} cannot be listed, which is tried again: {one_line(error)}")
            return []

    def _look(self, looked: Looked, most: int) -> list[Arrived]:
        out = self._watched.out
        RunFence(out, mark_of(out), self._watched.run).refuse_stale(self._watched.place, filesystem(out)[0])
        self._handled.refresh()
        looked.open -= self._handled.digests
        there: set[bytes] = set()

        def is_known(file: Listed) -> bool:
            name = digest(file.url, file.version() or "")
            there.add(name)
            return name in looked.open or name in self._handled.digests

        whole = take_whole(self._watched.files(), is_known, looked.waiting, most)
        new = [self._arrived(file, version) for file, version in whole]
        self._handled.tidy(there)
        looked.open |= {file.digest for file in new}
        return sorted(new, key=lambda arrived: arrived.file.url)

    def _arrived(self, file: Listed, version: str) -> Arrived:
        """Returns a file, whose name in the manifest is its path below the watched folder."""
        watched = self._watched
        request_file = RequestFile(file.url, watched.defaults, watched.folder, file.name)
        return Arrived(request_file, digest(file.url, version))


class LookAgain(beam.DoFn):
    """Outputs files that have arrived, at each tick of a clock with the key of a watch.

    What is found and not noted is part of the step's state, so a runner that starts the step again elsewhere finds no
    file twice.
    """

    LOOKED = ReadModifyWriteStateSpec("looked", PickleCoder())

    def __init__(self, watched: Watched) -> None:
        self.watched = watched

    def setup(self) -> None:
        """Makes what looks."""
        self.looker = Looker(self.watched)

    def process(self, tick: tuple[str, Any], state: Any = beam.DoFn.StateParam(LOOKED)) -> Iterator[Arrived]:
        """Looks, unless the last look was a moment ago."""
        looked, now_s = state.read() or Looked(), time.time()
        if looked.last_s <= now_s < looked.next_s:  # unless the clock was set back
            return
        since_s = now_s - looked.last_s if looked.last_s else 1.0
        most = FILES_A_SECOND * min(max(since_s, 1.0), LONGEST_BETWEEN_LOOKS_S)
        with reported():
            new = self.looker.look(looked, int(most))
        looked.last_s, took_s = now_s, time.time() - now_s
        looked.next_s = now_s + max(EVERY_S / 2, SHARE * took_s)
        state.write(looked)
        yield from new
