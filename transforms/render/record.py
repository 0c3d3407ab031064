"""Records what becomes of requests that arrive: in the manifest, on its page, and in the notes of handled files.

In a stream, files, work and rows have the time of the look that found the file, and windows of that time. A window ends
when all that it contains has been made; then its rows and its files are noted. So a file is noted when nothing of it is
left to do, and a job that is killed and started again reads the others again. What they ask for and is done already
costs a look at storage.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import apache_beam as beam
from apache_beam.coders import FloatCoder, PickleCoder
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec

from transforms.panoramas.handled import write_note
from transforms.panoramas.manifest import ManifestRow, write_manifest
from transforms.render.index_page import write_index
from transforms.render.look import Arrived
from transforms.storage.arrivals import SHARE
from transforms.storage.tally import count_in_beam
from transforms.workers.faults import reported

SHOWN_AFTER_S: Final = 10.0
"""How long the row of a finished panorama waits for the others of its window, until it is shown without them."""


@cache
def table_thread() -> ThreadPoolExecutor:
    """Returns the one thread of this process that reads and writes the manifest.

    A worker runs its steps in dozens of threads, and Arrow keeps some megabytes for each thread that handles a table.
    """
    return ThreadPoolExecutor(1)


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
                rows = {row["id"]: row for row in waiting.read()} | (what.rows if what else {})
                self.write(rows, what.files if what else {})
                waiting.clear()
                since.clear()
                if rows:
                    page.write(page.read() or now_s + SHARE * self.page_took_s)
            elif 0.0 < (page.read() or 0.0) <= now_s:
                self.write_page()
                page.clear()

    def write(self, rows: dict[str, ManifestRow], files: dict[bytes, str]) -> None:
        """Writes rows and, when they are safe, the note of files."""
        if rows:
            table_thread().submit(write_manifest, self.out, [rows[name] for name in sorted(rows)]).result()
        if files:
            write_note(self.out, files.items())
            count_in_beam("request files", len(files))

    def write_page(self) -> None:
        """Writes index.html, and measures how long it takes, because that grows with the manifest."""
        start_s = time.monotonic()
        table_thread().submit(write_index, self.out).result()
        self.page_took_s = time.monotonic() - start_s
