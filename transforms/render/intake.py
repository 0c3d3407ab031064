"""Takes rows of requests in: which panoramas are begun, which are done already, and which requests are refused.

Ids are independent of each other. Of several rows with one id, the first that can be rendered is.
"""

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from model.errors import InputError
from transforms.panoramas.folder import Known, begin, existing_shards, look_for
from transforms.panoramas.manifest import DONE, FAILED, ManifestRow, manifest_row, refused_row
from transforms.panoramas.plan import PatchShard, Plan
from transforms.panoramas.requests import Refused, RenderRequest, RequestFile, Row, cautions, occurs_twice, refused_by
from transforms.render.assemble import PANORAMAS_DONE
from transforms.render.options import RenderOptions
from transforms.render.planner import Examined, Planner
from transforms.render.repair import remove_damaged
from transforms.render.reuse import reuse_patches
from transforms.render.work import STORAGE_CALLS, Work, remove_unused, work_on
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried
from transforms.storage.tally import Tally
from transforms.workers.faults import reported

ROWS = "rows"

CHECKPOINTS_KEPT_S = 60.0
"""How long it takes until an endless job sees that a checkpoint that was missing has come, or is another one."""

TAKEN, DONE_BEFORE = Tally("requests"), "done before"
"""The requests that are rendered; the number of those that were done before the job has a name of its own."""

TILES_TO_MAKE = Tally("tiles to make")
CAUTIONS = Tally("cautions")
"""The panoramas that each warning is about, by its text."""

Numbered = Sequence[tuple[int, RenderRequest | Refused]]
"""Requests, or why they are refused, by the numbers of their rows."""


@dataclass(slots=True)
class Taken:
    """What became of some rows.

    Attributes:
        done: the plans of panoramas that the manifest lists as done, and rightly so, by the numbers of their rows.
        work: the work on each other panorama, whether done or not, by the number of its row.
        refused: the names in the manifest of other rows, and why they are refused, by their numbers.
    """

    done: dict[int, Plan] = field(default_factory=dict)
    work: dict[int, Work] = field(default_factory=dict)
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)

    def rows(self) -> Iterator[ManifestRow]:
        """Yields the rows that the manifest lacks."""
        yield from map(first_row, self.work.values())
        yield from itertools.starmap(refused_row, self.refused.values())


def first_row(work: Work) -> ManifestRow:
    """Returns a panorama's row of the manifest at the start of a job."""
    if work.record is None:
        return manifest_row(work.plan, FAILED, "not finished", {})
    return manifest_row(work.plan, DONE, None, work.record)


_PLANNERS: dict[str, Planner] = {}


def planner_of(job: str, planner: Planner | None = None) -> Planner:
    """Returns the planner that all steps of a job share in this process, and so the checkpoints that it has read.

    Args:
        job: the URL of the job's folder.
        planner: the planner that they are to share; None for a new one.
    """
    known = _PLANNERS.get(job)
    if known is None:
        known = planner or Planner()
        _PLANNERS.clear()  # earlier jobs have read checkpoints that may be others now
        _PLANNERS[job] = known
    return known


def count_taken(taken: Taken) -> None:
    """Counts for the progress of the job."""
    work = taken.work.values()
    done = len(taken.done) + sum(each.is_done for each in work)
    TAKEN.add(len(work) + len(taken.done))
    TAKEN.add(done, DONE_BEFORE)
    PANORAMAS_DONE.add(done)
    TILES_TO_MAKE.add(sum(each.tiles for each in work))
    for plan in (*taken.done.values(), *(each.plan for each in work)):
        for remark in cautions(plan.request):
            CAUTIONS.add(name=remark)


class Intake:
    """Decides on rows. It reads a checkpoint once, however many rows need it.

    Args:
        options: the options of the job.
        planner: the planner.
        begins: whether to prepare the folder for the panoramas that are to be rendered. If not, nothing is written.
    """

    def __init__(self, options: RenderOptions, planner: Planner, begins: bool = True):
        self.options, self.planner, self.begins = options, planner, begins

    def take(self, file: RequestFile, rows: Iterable[Row], known: Callable[[str], Known | None]) -> Taken:
        """Decides on rows of a file, and begins their panoramas. Doing it again changes nothing.

        Args:
            file: the file.
            rows: all of its rows with certain ids, in order.
            known: returns what the folder holds under an id. If that is None, storage is not queried.

        Raises:
            OSError: storage failed in a way that concerns more than a single row.
        """
        by_id: dict[str | None, list[tuple[int, RenderRequest | Refused]]] = defaultdict(list)
        for number, values in rows:
            request = file.parse(values)
            by_id[request.id].append((number, request))
        taken = Taken()
        self._refuse(taken, file, None, by_id.pop(None, ()))
        left = {key: group for key, group in by_id.items() if key and not self._is_done(group, known(key), taken)}

        def decide(key: str) -> Decided:
            return self._decide(left[key], known(key))

        for key, (work, refused) in zip(left, map_ahead(decide, left, STORAGE_CALLS, 2 * STORAGE_CALLS), strict=True):
            taken.work.update(work)
            self._refuse(taken, file, None if work or known(key) else key, refused)
        return taken

    def _refuse(self, taken: Taken, file: RequestFile, free_id: str | None, refused: Numbered) -> None:
        """Notes refusals: the first by its id if that is free, the others by their places in the file."""
        for number, row in refused:
            assert isinstance(row, Refused)
            taken.refused[number] = free_id or file.place(number), row.reason
            free_id = None

    def _is_done(self, group: Numbered, known: Known | None, taken: Taken) -> bool:
        """Notes a panorama that is done as far as the manifest and the names in its folder tell."""
        number, request = group[0]
        if known is None or isinstance(request, Refused) or len(group) > 1 or not self._may_be_done(known):
            return False
        try:
            plan, _ = self.planner.plan(self.options, request)
        except Exception:  # `_decide` finds the same
            return False
        if known.shows(plan):
            taken.done[number] = plan
        return number in taken.done

    def _may_be_done(self, known: Known) -> bool:
        """Returns whether a panorama that is done needs no look at its files."""
        has_unused = known.has_patches and not self.options.keep_patches  # of a job that was killed, perhaps
        return bool(known.plan) and not has_unused and not self.options.repair

    def _decide(self, group: Numbered, known: Known | None) -> "Decided":
        """Begins the first panorama of an id that can be rendered."""
        work: dict[int, Work] = {}
        refused: list[tuple[int, Refused]] = []
        for number, request in group:
            try:
                if isinstance(request, Refused):
                    refused.append((number, request))
                elif work:
                    raise InputError(occurs_twice(request.id))
                else:
                    examined = self.planner.examine(self.options, request, known is not None)
                    work[number] = self._begin(examined)
            except OSError:
                raise
            except Exception as error:  # a fault of one request must not end the others' work
                refused.append((number, refused_by(error, request.id)))
        return work, refused

    def _begin(self, examined: Examined) -> Work:
        """Writes the plan to the folder, in place of those that it replaces; returns the work left on it."""
        options, (plan, held, networks) = self.options, examined
        damaged: Iterable[PatchShard] = ()
        if self.begins:
            if options.replace and held is not None:
                reuse_patches(options.out, plan, held.others, networks)
            retried(begin, options.out, plan, held, options.stores_patches(plan))
            if options.repair and held is not None:
                damaged = remove_damaged(options.out, retried(existing_shards, options.out, plan))[plan]
        work = work_on(options, plan, held, damaged)
        if self.begins:
            remove_unused(options, work)
        return work


Decided = tuple[dict[int, Work], list[tuple[int, Refused]]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a file.

    Attributes:
        file: the file.
        rows: its rows.
    """

    file: RequestFile
    rows: tuple[Row, ...]


class TakeIn(beam.DoFn):
    """Turns batches of rows into work, for streams of any length: nothing is kept between batches but on storage.

    Outputs the `Work` of panoramas that are not done, ready for `CutShards`; and, tagged `ROWS`, the manifest's row of
    every request: done, refused, or failed with the reason "not finished". A row should be in the manifest before its
    work is passed on, so that a panorama that is never finished is listed too.

    A bundle that is tried again gives the same work: a panorama is begun by writing its plan, and the same plan may be
    begun twice. Within a batch the first row of an id that can be rendered wins; across batches the first plan that
    is begun, because the folder then holds the id "with another plan". Only if two workers begin different plans of one
    id at the same moment are both begun; to rule that out, key a stream by id first.

        batches = files | "Rows" >> beam.FlatMap(...)  # Batch(RequestFile(url), rows), where rows = tuple(file.rows())
        taken = batches | "Take in" >> beam.ParDo(TakeIn(options)).with_outputs(ROWS, main="work")
        taken.work | CutShards() | SkipStored(...) | ...

    Args:
        options: the options of the job; the requests in them are not used.
    """

    def __init__(self, options: RenderOptions):
        self.options = options.without_requests()

    def setup(self) -> None:
        """Begins without an intake."""
        self.made_s = -math.inf

    def start_bundle(self) -> None:
        """Makes an intake, which keeps what it has read of checkpoints: in a job without end, only for a while."""
        if time.monotonic() - self.made_s > CHECKPOINTS_KEPT_S:
            self.intake, self.made_s = Intake(self.options, Planner()), time.monotonic()

    def process(self, batch: Batch) -> Iterator[Any]:
        """Decides on a batch of rows."""
        with reported():
            taken = self.intake.take(batch.file, batch.rows, self.look_for)
        for row in taken.rows():
            yield pvalue.TaggedOutput(ROWS, row)
        yield from (work for work in taken.work.values() if not work.is_done)

    def look_for(self, request_id: str) -> Known | None:
        """Looks for anything in the folder under an id."""
        return retried(look_for, self.options.out, request_id)
