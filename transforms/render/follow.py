"""Keeps the manifest and index.html of a job up to date while it runs.

Workers log the rows of panoramas that they have made to the job's folder; the process that waits for the job takes them
from there.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from model.errors import one_line
from transforms.panoramas.manifest import ManifestRow, write_manifest
from transforms.render.index_page import write_index
from transforms.render.job_folder import JobFolder, Merged
from transforms.storage.background import meanwhile
from transforms.storage.files import join, list_files, remove
from transforms.storage.notes import say_once

EVERY_S = 10.0
SHARE = 20
"""Updates take at most one part in this of the time."""


class RowLog:
    """Logs rows, from any thread: the first one at once, and the later ones together, every few seconds.

    Nothing depends on the log: all rows go to the manifest at the end of the job.
    """

    def __init__(self, job: JobFolder):
        self._job, self._lock = job, threading.Lock()
        self._rows: list[ManifestRow] = []
        self._due_at = 0.0
        self._timer: threading.Timer | None = None

    def add(self, row: ManifestRow) -> None:
        """Logs a row soon."""
        with self._lock:
            self._rows.append(row)
            if self._timer is None:
                self._timer = threading.Timer(max(0.0, self._due_at - time.monotonic()), self._write)
                self._timer.daemon = True
                self._timer.start()

    def pause(self) -> None:
        """Writes nothing from now on, until a row is added."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _write(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            rows, self._rows, self._timer = self._rows, [], None
            self._due_at = time.monotonic() + EVERY_S
            try:
                self._job.log.write(rows)
            except Exception as error:
                say_once(f"finished panoramas cannot be added to the manifest while the job runs: {one_line(error)}")


@contextmanager
def followed(out: str, job: JobFolder) -> Iterator[None]:
    """Adds panoramas to the manifest and the page as they are finished, by whatever worker, while the block runs."""
    with meanwhile(partial(_follow, out, job)):
        yield


def _follow(out: str, job: JobFolder, stop: threading.Event) -> None:
    pause_s = EVERY_S
    while not stop.wait(pause_s):
        start = time.monotonic()
        try:
            _update(out, job)
        except Exception as error:  # the job goes on, and writes both at its end
            say_once(f"the manifest of {out} cannot be updated while the job runs: {one_line(error)}")
        pause_s = max(EVERY_S, SHARE * (time.monotonic() - start))


def _update(out: str, job: JobFolder) -> None:
    """Takes all rows from the log."""
    logged = [join(job.log.folder, name) for name in list_files(job.log.folder)]
    if logged:
        write_manifest(out, Merged(job.log, logged))
        write_index(out)
        for url in logged:
            remove(url)
