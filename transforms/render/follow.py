"""Keeps the manifest and index.html of a job up to date while it runs."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from model.errors import one_line
from transforms.panoramas.folder import PANORAMAS, read_record
from transforms.panoramas.manifest import DONE, manifest_row, write_manifest
from transforms.panoramas.plan import Plan
from transforms.render.index_page import write_index
from transforms.storage.background import meanwhile
from transforms.storage.files import join, list_files
from transforms.storage.notes import say_once

EVERY_S = 10.0
SHARE = 20
"""Updates take at most one part in this of the time."""


@contextmanager
def followed(out: str, plans: Iterable[Plan]) -> Iterator[None]:
    """Adds panoramas to the manifest and the page as they are finished, by whatever worker, while the block runs.

    Args:
        out: the folder of the job.
        plans: the plans whose panoramas are not finished.
    """
    with meanwhile(partial(_follow, out, {plan.request.id: plan for plan in plans})):
        yield


def _follow(out: str, waiting: dict[str, Plan], stop: threading.Event) -> None:
    pause_s = EVERY_S
    while waiting and not stop.wait(pause_s):
        start = time.monotonic()
        try:
            _update(out, waiting)
        except Exception as error:  # the job goes on, and writes both at its end
            say_once(f"the manifest of {out} cannot be updated while the job runs: {one_line(error)}")
        pause_s = max(EVERY_S, SHARE * (time.monotonic() - start))


def _update(out: str, waiting: dict[str, Plan]) -> None:
    """Adds the panoramas that are finished, and removes them from those waiting."""
    names = set(list_files(join(out, PANORAMAS)))
    records = {key: read_record(out, key) for key in waiting if f"{key}.json" in names}
    finished = {key: record for key, record in records.items() if record.get("plan") == waiting[key].digest}
    if finished:
        rows = [manifest_row(waiting.pop(key), DONE, None, record) for key, record in sorted(finished.items())]
        write_manifest(out, rows)
        write_index(out)
