"""Requests in files that arrive: from looks at a folder to work, and from rows to the manifest and the notes.

In a stream, files, work and rows have the time of the look that found the file, and windows of that time. A window ends
when all that it contains has been made; then its rows and its files are noted. So a file is noted when nothing of it is
left to do, and a job that is killed and started again reads the others again. What they ask for and is done already
costs a look at storage.
"""

import posixpath
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.coders import FloatCoder, PickleCoder
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec

from model.errors import InputError, one_line
from transforms.panoramas.folder import begin
from transforms.panoramas.handled import WATCHED, Handled, write_note
from transforms.panoramas.manifest import ManifestRow, refused_row, write_manifest
from transforms.panoramas.requests import REQUEST_SUFFIXES, RequestFile, Row, parse_rows
from transforms.render.index_page import write_index
from transforms.render.intake import ROWS, Batch, TakeIn, first_row
from transforms.storage.arrivals import EVERY_S, SHARE, Listed, digest, list_arrivals, take_whole
from transforms.storage.fence import RUN, RunFence, StaleRunError
from transforms.storage.files import filesystem, join, read_bytes, write_bytes, write_json
from transforms.storage.notes import say_once
from transforms.storage.retry import retried
from transforms.storage.tally import count_in_beam
from transforms.workers.faults import reported

MOST_OPEN: Final = 10_000
"""The most files that have been found and not been noted; they bound what a stream holds."""

ID_GROUPS: Final = 64
"""The number of groups of ids. One worker at a time takes in the rows of a group."""

BATCH_ROWS: Final = 1000
SHOWN_AFTER_S: Final = 10.0
"""How long the row of a finished panorama waits for the others of its window, until it is shown without them."""


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
        return list_arrivals(self.place, REQUEST_SUFFIXES, None if self.subscription else self.out)

    def request_file(self, url: str) -> RequestFile:
        """Returns a file, whose name in the manifest is its path below the watched folder."""
        folder = self.place.rstrip("/") + "/"
        name = url.removeprefix(folder) if url.startswith(folder) else posixpath.basename(url)
        return RequestFile(url, self.defaults, self.folder, name)


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
    retried(write_json, mark_of(watched.out), {RUN: watched.run, "place": watched.place, "since": since})


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
        growing: the versions of files that may be incomplete.
        open: the checksums of files that have been found and not been noted.
        next_s: the time of the next look.
    """

    growing: dict[str, str] = field(default_factory=dict)
    open: set[bytes] = field(default_factory=set)
    next_s: float = 0.0


class Looker:
    """Looks for files that have arrived, and have not been handled by this watch or an earlier one."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._handled = Handled(watched.out)

    def look(self, looked: Looked) -> list[Arrived]:
        """Returns files that are new and whole. If the listing fails, the next look sees them.

        Args:
            looked: what is known from the look before; it is updated.

        Raises:
            StaleRunError: another watch has begun.
        """
        try:
            return self._look(looked)
        except StaleRunError:
            raise
        except Exception as error:  # stores raise errors of their own classes, and most of them pass
            say_once(f"{self._watched.place} cannot be listed, which is tried again: {one_line(error)}")
            return []

    def _look(self, looked: Looked) -> list[Arrived]:
        out = self._watched.out
        RunFence(out, mark_of(out), self._watched.run).refuse_stale(self._watched.place, filesystem(out)[0])
        self._handled.refresh()
        looked.open -= self._handled.digests
        there: set[bytes] = set()

        def is_known(file: Listed) -> bool:
            name = digest(file.url, file.version() or "")
            there.add(name)
            return name in looked.open or name in self._handled.digests

        room = MOST_OPEN - len(looked.open)
        whole = islice(take_whole(self._watched.files(), is_known, looked.growing), room)
        new = [Arrived(self._watched.request_file(file.url), digest(file.url, version)) for file, version in whole]
        if len(new) < room:
            self._handled.tidy(there)
        looked.open |= {file.digest for file in new}
        return sorted(new, key=lambda arrived: arrived.file.url)


class StoreMessages(beam.DoFn):
    """Writes the messages of a bundle, each a request as JSON, to a file in a watched folder.

    Pub/Sub is told that they have arrived when the bundle has ended, so none is lost from then on, even if the job is
    cancelled. A bundle that is tried again asks for the same panoramas again.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def start_bundle(self) -> None:
        """Begins a file."""
        self.lines: list[bytes] = []

    def process(self, message: bytes) -> None:
        """Takes a message as a line."""
        self.lines.append(b" ".join(message.splitlines()))

    def finish_bundle(self) -> None:
        """Writes the file."""
        if self.lines:
            url = join(self.folder, f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl")
            with reported():
                retried(write_bytes, url, b"".join(line + b"\n" for line in self.lines))


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
        if now_s < looked.next_s < now_s + 3600:  # or the clock was set back
            return
        start_s = time.monotonic()
        with reported():
            new = self.looker.look(looked)
        looked.next_s = time.time() + max(EVERY_S / 2, (SHARE - 1) * (time.monotonic() - start_s))
        state.write(looked)
        yield from new


class ReadArrived(beam.DoFn):
    """Reads files; outputs batches of rows by groups of ids and, tagged `ROWS`, the manifest's row of each bad file."""

    def process(self, arrived: Arrived) -> Iterator[Any]:
        """Reads a file."""
        file = arrived.file
        try:
            rows = parse_rows(file.url, retried(read_bytes, file.url))
        except FileNotFoundError:  # it was removed before its turn
            return
        except InputError as error:
            yield pvalue.TaggedOutput(ROWS, refused_row(file.name, str(error).removeprefix("--requests ")))
            return
        groups: dict[int, list[Row]] = {}
        for number, values in enumerate(rows, start=1):
            group = groups.setdefault(_group(values), [])
            group.append(Row(number, values))
        for key, whole in groups.items():
            for first in range(0, len(whole), BATCH_ROWS):
                yield key, Batch(file, tuple(whole[first : first + BATCH_ROWS]))


def _group(values: Any) -> int:
    name = values.get("id") if isinstance(values, dict) else None
    return digest(str(name))[0] % ID_GROUPS


class TakeInByGroup(TakeIn):
    """Turns batches of rows into work, one batch of a group at a time, so that an id never gets two plans at once.

    Outputs work that is not done and, tagged `ROWS`, rows of the manifest for all other requests.
    """

    TURN = ReadModifyWriteStateSpec("turn", FloatCoder())
    """Nothing is written to it: a runner processes elements with one key in turn where a step has a state."""

    def process(  # type: ignore[override]
        self, keyed: tuple[int, Batch], turn: Any = beam.DoFn.StateParam(TURN)
    ) -> Iterator[Any]:
        """Decides on a batch of rows."""
        with reported():
            taken = self.intake.take(keyed[1].file, keyed[1].rows, self.look_for)
            for work in taken.work.values():
                # Without patches, too, the folder must say from now on that the id is taken.
                if not work.is_done and not self.options.stores_patches(work.plan):
                    retried(begin, self.options.out, work.plan, None, True)
        for work in taken.work.values():
            yield pvalue.TaggedOutput(ROWS, first_row(work)) if work.is_done else work
        for name, reason in taken.refused.items():
            yield pvalue.TaggedOutput(ROWS, refused_row(name, reason))


@dataclass(frozen=True, slots=True)
class Closed:
    """All that has become of some files.

    Attributes:
        rows: the rows of the manifest, by id.
        files: the URLs of the files, by the checksums of their versions.
    """

    rows: dict[str, ManifestRow]
    files: dict[bytes, str]


def close(group: tuple[str, Iterable[Any]]) -> tuple[str, Closed]:
    """Returns what has become of the files of a window, from rows and files that have arrived."""
    closed = Closed({}, {})
    for item in group[1]:
        if isinstance(item, Arrived):
            closed.files[item.digest] = item.file.url
        else:
            closed.rows[item["id"]] = item
    return group[0], closed


class Record(beam.DoFn):
    """Writes the manifest, index.html and the notes of what has been handled, in one worker at a time.

    Its inputs are rows of the manifest, which may be written soon; what has become of files, which is written at once;
    and None, at each tick of a clock.
    """

    WAITING = BagStateSpec("waiting", PickleCoder())
    SINCE = ReadModifyWriteStateSpec("since", FloatCoder())
    PAGE = ReadModifyWriteStateSpec("page", FloatCoder())
    """The time from which the page is to be written; 0 if it is up to date."""

    def __init__(self, out: str) -> None:
        self.out, self.page_took_s = out, 0.0

    def process(
        self,
        item: tuple[str, Any],
        waiting: Any = beam.DoFn.StateParam(WAITING),
        since: Any = beam.DoFn.StateParam(SINCE),
        page: Any = beam.DoFn.StateParam(PAGE),
    ) -> None:
        """Keeps a row for a while, or writes what is due."""
        what, now_s = item[1], time.time()
        if isinstance(what, dict):
            waiting.add(what)
            if since.read() is None:
                since.write(now_s)
            return
        with reported():
            if what is not None or now_s - (since.read() or now_s) > SHOWN_AFTER_S:
                self.write({row["id"]: row for row in waiting.read()}, what)
                waiting.clear()
                since.clear()
                page.write(page.read() or now_s + SHARE * self.page_took_s)
            elif 0.0 < (page.read() or 0.0) <= now_s:
                self.write_page()
                page.clear()

    def write(self, rows: dict[str, ManifestRow], closed: Closed | None) -> None:
        """Writes rows and, when they are safe, the notes of the files that are closed."""
        rows |= closed.rows if closed else {}
        if rows:
            write_manifest(self.out, [rows[name] for name in sorted(rows)])
        if closed and closed.files:
            write_note(self.out, closed.files.items())
            count_in_beam("request files", len(closed.files))

    def write_page(self) -> None:
        """Writes index.html, and measures how long it takes, because that grows with the manifest."""
        start_s = time.monotonic()
        write_index(self.out)
        self.page_took_s = time.monotonic() - start_s
