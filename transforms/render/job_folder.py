"""The files of a render job at work, in a folder of its own below its output folder, which is removed at its end.

.tmp-render-<stamp>-<random>/requests.<suffix>       the requests, or a copy of their file that all workers can read
.tmp-render-<stamp>-<random>/left-out                a byte for each row of the file, 1 for those of other slices
.tmp-render-<stamp>-<random>/taken/<bucket>.jsonl    rows of the manifest that the requests of a bucket change, by id
.tmp-render-<stamp>-<random>/done/<bucket>.jsonl     the ids of its other requests, whose panoramas are done
.tmp-render-<stamp>-<random>/log/<random>.jsonl      rows of panoramas that have just been made, for the manifest
.tmp-render-<stamp>-<random>/made/<random>.jsonl     the rows of all panoramas that have been made
"""

import dataclasses
import operator
import posixpath
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from transforms.panoramas.manifest import ManifestRow, stream_manifest
from transforms.panoramas.requests import RenderRequest, RequestFile, store_requests
from transforms.storage.files import (
    exists,
    filesystem,
    iterate_names,
    join,
    list_files,
    open_atomic,
    read_bytes,
    remove,
    write_bytes,
)
from transforms.storage.retry import retried
from transforms.storage.runs import Runs
from transforms.storage.urls import LOCAL, scheme_of
from transforms.workers.faults import reported

ROWS_IN_A_RUN: Final = 5000

_NAME = re.compile(r"\.tmp-render-([0-9]{20})-[0-9a-f]{8}")

_DEAD_NS: Final = 7 * 24 * 3600 * 10**9
"""The age at which a folder must be that of a job that was killed."""


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folder of a job.

    Attributes:
        url: its URL.
    """

    url: str

    @property
    def taken(self) -> Runs[dict[str, Any]]:
        """The rows of the manifest that the requests change, before anything is rendered."""
        return self._runs("taken")

    @property
    def done(self) -> Runs[dict[str, Any]]:
        """The ids of the other requests."""
        return self._runs("done")

    @property
    def log(self) -> Runs[ManifestRow]:
        """Rows of panoramas that have just been made."""
        return self._runs("log")

    @property
    def made(self) -> Runs[ManifestRow]:
        """The rows of all panoramas that have been made."""
        return self._runs("made")

    def _runs(self, name: str) -> Runs[Any]:
        return Runs(join(self.url, name), operator.itemgetter("id"), _same, _same)

    def store(self, requests: tuple[RenderRequest, ...] | RequestFile, copies: bool) -> RequestFile:
        """Returns the file from which workers read requests.

        Args:
            requests: the requests, or a file.
            copies: whether to copy a file that is on this machine.
        """
        if not isinstance(requests, RequestFile):
            return retried(store_requests, join(self.url, "requests.jsonl"), requests)
        if not copies or scheme_of(requests.url) not in LOCAL:
            return requests
        copy = join(self.url, f"requests{posixpath.splitext(requests.url)[1]}")
        retried(_copy, requests.url, copy)
        return dataclasses.replace(requests, stored_at=copy)

    def leave_out(self, marks: bytes) -> None:
        """Stores which rows belong to other slices."""
        retried(write_bytes, join(self.url, "left-out"), marks)

    def left_out(self, file: RequestFile) -> "LeftOut":
        """Returns the names of the rows that belong to other slices."""
        url = join(self.url, "left-out")
        return LeftOut(file.place(""), retried(read_bytes, url) if retried(exists, url) else b"")

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yields the id of each request, or all that is in `taken` of it, by their ids."""
        folders = self.taken.folder, self.done.folder
        return self.taken.merge([join(folder, name) for folder in folders for name in retried(list_files, folder)])

    def rows(self, out: str) -> Iterator[ManifestRow]:
        """Yields the manifest's rows of all requests, by id.

        Raises:
            OSError: the manifest lacks one.
        """
        manifest = stream_manifest(out)
        for name in map(self.taken.order, self.requests()):
            row = next((row for row in manifest if row["id"] >= name), None)
            if row is None or row["id"] != name:
                raise OSError(f"another run wrote the manifest of {out} at the same time; run the command again")
            yield row


def _same(value: Any) -> Any:
    return value


def _copy(source: str, target: str) -> None:
    fs, path = filesystem(source)
    with fs.open(path, "rb") as file, open_atomic(target) as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


@dataclass(frozen=True, slots=True)
class Merged:
    """The items of some runs, in order, as often as they are asked for."""

    runs: Runs[Any]
    urls: Collection[str]

    def __iter__(self) -> Iterator[Any]:
        return self.runs.merge(self.urls)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The names of the rows of a file that belong to other slices.

    Attributes:
        start: the start of such names.
        marks: a byte for each row, 1 for those.
    """

    start: str
    marks: bytes

    def __contains__(self, name: object) -> bool:
        number = str(name).removeprefix(self.start)
        return number.isdecimal() and 0 < int(number) <= len(self.marks) and self.marks[int(number) - 1] == 1


def new_job_folder(out: str) -> JobFolder:
    """Returns the folder of a new job, which does not exist yet; removes those of jobs that were killed long ago."""
    for name in list(iterate_names(out)):
        match = _NAME.fullmatch(name)
        if match and time.time_ns() - int(match[1]) > _DEAD_NS:
            retried(remove, join(out, name))
    return JobFolder(join(out, f".tmp-render-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"))


class StoreRows(beam.DoFn):
    """Stores rows of the manifest in runs in `JobFolder.made`; outputs the URLs of the runs."""

    def __init__(self, job: JobFolder):
        self.job = job

    def start_bundle(self) -> None:
        """Forgets the rows of a bundle that has failed."""
        self.rows: list[ManifestRow] = []

    def process(self, row: ManifestRow) -> Iterator[str]:
        """Takes a row."""
        self.rows.append(row)
        if len(self.rows) >= ROWS_IN_A_RUN:
            yield self.store()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Stores the rest."""
        if self.rows:
            yield GlobalWindows.windowed_value(self.store())

    def store(self) -> str:
        """Stores the rows; returns the URL of their run."""
        rows, self.rows = self.rows, []
        with reported():
            return self.job.made.write(rows)
