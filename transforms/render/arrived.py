"""From files of requests that have arrived, and messages, to work."""

import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.coders import FloatCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from model.errors import InputError, one_line
from transforms.panoramas.folder import begin
from transforms.panoramas.manifest import ManifestRow, refused_row
from transforms.panoramas.requests import Refused, RequestFile, Row, parse_rows
from transforms.render.intake import ROWS, Batch, TakeIn, first_row
from transforms.render.look import Arrived
from transforms.storage.arrivals import digest
from transforms.storage.files import join, write_bytes
from transforms.storage.retry import passes, retried
from transforms.storage.tables import local_copy
from transforms.workers.faults import reported

ID_GROUPS: Final = 64
"""The number of groups of ids. One worker at a time takes in the rows of a group."""

BATCH_ROWS: Final = 1000


class ReadArrived(beam.DoFn):
    """Reads files; outputs batches of rows by groups of ids and, tagged `ROWS`, the manifest's row of each bad file."""

    def process(self, arrived: Arrived) -> Iterator[Any]:
        """Reads a file."""
        file = arrived.file
        try:
            rows = _rows_of(file.url)
        except FileNotFoundError:  # it was removed before its turn
            return
        except InputError as error:
            yield pvalue.TaggedOutput(ROWS, refused_file(file, str(error).removeprefix("--requests ")))
            return
        except OSError as error:
            if passes(error):  # storage has failed, not the file
                raise
            yield pvalue.TaggedOutput(ROWS, refused_file(file, f"it cannot be read: {one_line(error)}"))
            return
        groups: dict[int, list[Row]] = {}
        for number, values in enumerate(rows, start=1):
            group = groups.setdefault(_group(values), [])
            group.append(Row(number, values))
        for key, whole in groups.items():
            for first in range(0, len(whole), BATCH_ROWS):
                yield key, Batch(file, tuple(whole[first : first + BATCH_ROWS]))


def refused_file(file: RequestFile, reason: str) -> ManifestRow:
    """Returns the manifest's row of a file that cannot be read."""
    return refused_row(file.label, Refused(None, reason).reason)


def _rows_of(url: str) -> list[Any]:
    with local_copy(url) as path:
        return list(parse_rows(url, path))


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
        for name, reason in taken.refused.values():
            yield pvalue.TaggedOutput(ROWS, refused_row(name, reason))


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
