"""From requests to work, as Beam transforms: workers read the requests, look what there is, and begin the panoramas.

Rows of requests, names of files and rows of the manifest cross a shuffle as lines, packed by bucket, a number that
depends on an id. So all that concerns an id comes to one worker. The work goes on about in the order of the requests.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.typehints.decorators import no_annotations

from transforms.panoramas.folder import PANORAMAS, PATCHES, RECORD, Known
from transforms.panoramas.manifest import DONE, MANIFEST, stream_manifest, write_manifest
from transforms.panoramas.requests import ID_PATTERN, Refused, RequestFile, Row
from transforms.render.estimate import estimate
from transforms.render.intake import Intake, Taken, count_taken, planner_of
from transforms.render.job_folder import JobFolder, Merged
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner
from transforms.render.work import Work
from transforms.storage.files import exists, iterate_names, join
from transforms.storage.retry import retried
from transforms.workers.faults import reported
from transforms.workers.packs import pack, unpack
from transforms.workers.sight import CheckSight, Sight

NEIGHBOURS: Final = 16
"""The number of consecutive requests whose order is random, so that two runs of one job share most of the work."""

PARTS: Final = 4
"""The number of parts in which rows and names cross the shuffle, one after the other on an in-process runner."""

_REQUESTS, _LISTED = "requests", "manifest"
_SOURCES: Final = (_REQUESTS, PANORAMAS, PATCHES, _LISTED)
_ORDER, _TAKEN = "order", "taken"


@dataclass(eq=False)
class TakeRequests(beam.PTransform[pvalue.PBegin, pvalue.DoOutputsTuple]):
    """Reads all requests of a job and takes them in.

    Outputs ``work``, (place, (number, work)) of the panoramas that are not done, where the place is that of some
    neighbours in the file; ``order``, (place, None) of all places in order; and ``taken``, the URLs of runs in
    `JobFolder.taken`.

    Attributes:
        options: the options of the job, without the requests.
        file: the requests.
        job: the folder of the job.
        begins: whether to begin panoramas; if not, only the job's folder is written.
        sight: what the workers must see.
    """

    options: RenderOptions
    file: RequestFile
    job: JobFolder
    begins: bool = True
    sight: Sight | None = None

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> Any:
        """Applies the transform; called by Beam."""
        read = (
            root
            | "Once" >> beam.Impulse()
            | CheckSight(self.sight)
            | "Sources" >> beam.FlatMap(lambda _: ((source, None) for source in _SOURCES))
            | "Share out" >> beam.GroupByKey()
            | "Read" >> beam.FlatMap(self._read).with_outputs(_ORDER, main="packs")
        )
        # Divided, because an in-process runner holds several copies of what it hands over at once.
        parts = read.packs | "Divide" >> beam.Partition(part_of, PARTS)  # type: ignore[arg-type]
        taken = [
            part
            | f"Gather ids {number}" >> beam.GroupByKey()
            | f"Take in {number}" >> beam.ParDo(_TakeIn(self)).with_outputs(_TAKEN, main="work")
            for number, part in enumerate(parts)
        ]
        work = [each.work for each in taken] | "All work" >> beam.Flatten()
        return work, read[_ORDER], [each[_TAKEN] for each in taken] | "All runs" >> beam.Flatten()

    def _read(self, source: tuple[str, Iterable[None]]) -> Iterator[Any]:
        with reported():
            if source[0] == _REQUESTS:
                yield from self._read_requests()
            else:
                lines = self._listed() if source[0] == _LISTED else self._names(source[0])
                for bucket, packed in pack(lines):
                    yield bucket, (source[0], packed)

    def _read_requests(self) -> Iterator[Any]:
        """Yields the packed rows of the slice, and then the places of all neighbours."""
        marks = bytearray()

        def lines() -> Iterator[tuple[str, str]]:
            for row in self.file.rows():
                request_id = _id_of(row.values)
                name = request_id or self.file.place(row.number)
                is_ours = self.options.slice is None or self.options.slice.holds(name)
                marks.append(not is_ours)
                if is_ours:
                    yield name, _to_line(row, self.file)

        for bucket, packed in pack(lines()):
            yield bucket, (_REQUESTS, packed)
        if self.options.slice is not None:
            self.job.leave_out(bytes(marks))
        for place in range(len(marks) // NEIGHBOURS + 1):
            yield pvalue.TaggedOutput(_ORDER, (place, None))

    def _names(self, folder: str) -> Iterator[tuple[str, str]]:
        """Yields the ids in a folder, each with the suffix of the file."""
        for name in iterate_names(join(self.options.out, folder)):
            request_id, _, suffix = name.partition(".")
            yield request_id, f"{request_id} {suffix}"

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Yields the ids that the manifest lists as done, each with its plan and its formats."""
        if not retried(exists, join(self.options.out, MANIFEST)):
            return
        for row in stream_manifest(self.options.out):
            if row["state"] == DONE:
                formats = (file.rpartition(".")[2] for file in row["files"])
                yield row["id"], " ".join((row["id"], row["plan"] or "", *formats))


def _id_of(values: Any) -> str | None:
    """Returns the id of a row; None if it has none, or an invalid one."""
    request_id = values.get("id") if isinstance(values, dict) else None
    return request_id if isinstance(request_id, str) and ID_PATTERN.fullmatch(request_id) else None


def _to_line(row: Row, file: RequestFile) -> str:
    """Returns a row as a line: its number, then its values, or its id and the reason for which it is refused."""
    number, values = row
    if not isinstance(values, Refused):
        try:
            return json.dumps((number, values))
        except TypeError:  # a table may hold values that JSON has not, and no request either
            values = file.parse(values)
    return json.dumps((number, values.id, values.reason))


def _from_line(line: str) -> Row:
    number, *values = json.loads(line)
    return Row(number, values[0] if len(values) == 1 else Refused(*values))


def part_of(packed: tuple[int, Any], count: int) -> int:
    """Returns the part in which the lines of a bucket cross the shuffle."""
    return packed[0] % count


class _TakeIn(beam.DoFn):
    """Takes in all rows of a bucket, knowing all that there is under their ids."""

    def __init__(self, step: TakeRequests):
        self.step = step

    def setup(self) -> None:
        options, job = self.step.options, self.step.job
        self.intake = Intake(options, planner_of(job.url), self.step.begins)

    def process(self, group: tuple[int, Iterable[tuple[str, bytes]]]) -> Iterator[Any]:
        bucket, packs = group
        lines: dict[str, list[str]] = defaultdict(list)
        for source, packed in packs:
            lines[source] += unpack(packed)
        if not lines[_REQUESTS]:
            return
        rows = sorted((_from_line(line) for line in lines.pop(_REQUESTS)), key=lambda row: row.number)
        with reported():
            taken = self.intake.take(self.step.file, rows, _all_known(lines).get)
            runs = list(self._store(taken, f"{bucket:03d}"))
        count_taken(taken)
        for number, work in taken.work.items():
            if not work.is_done:
                yield number // NEIGHBOURS, (number, work)
        yield from (pvalue.TaggedOutput(_TAKEN, run) for run in runs)

    def _store(self, taken: Taken, name: str) -> Iterator[str]:
        """Stores what became of some rows; yields the URL of those that the manifest lacks, if there are any."""
        job = self.step.job
        if not self.step.begins:
            yield job.taken.write(weigh(taken, self.intake.planner), name)
            return
        if taken.done:
            job.done.write(({"id": plan.request.id} for plan in taken.done.values()), name)
        if taken.work or taken.refused:
            yield job.taken.write(map(dict, taken.rows()), name)


def _all_known(lines: dict[str, list[str]]) -> dict[str, Known]:
    """Returns what is known of the ids that names and rows of the manifest are about."""
    suffixes: dict[str, set[str]] = defaultdict(set)
    for line in lines[PANORAMAS]:
        request_id, _, suffix = line.partition(" ")
        suffixes[request_id].add(suffix)
    listed = {name: (plan, frozenset(formats)) for name, plan, *formats in map(str.split, lines[_LISTED])}
    with_patches = {line.rstrip() for line in lines[PATCHES]}
    return {
        name: Known(name in with_patches, frozenset(suffixes[name]), *listed.get(name, ()))
        for name in {name for name, there in suffixes.items() if RECORD in there} | with_patches
    }


def weigh(taken: Taken, planner: Planner) -> Iterator[dict[str, Any]]:
    """Yields what `JobFolder.taken` holds if nothing is to be begun: an estimate, then refusals by their numbers."""
    plans = [*taken.done.values(), *(work.plan for work in taken.work.values())]
    work = [*(Work(plan, {}, (), 1) for plan in taken.done.values()), *taken.work.values()]
    cost = estimate(work, planner.networks_of)
    yield {"id": "", "estimate": asdict(cost), "scales": sorted({plan.request.scale for plan in plans})}
    for number, (name, reason) in taken.refused.items():
        yield {"id": f"{number:09d}", "name": name, "reason": reason}


@dataclass(eq=False)
class FindWork(beam.PTransform[pvalue.PBegin, beam.PCollection[Work]]):
    """Outputs the work of all panoramas that are not done, after the manifest lists all requests.

    Attributes:
        take: how the requests are taken in.
    """

    take: TakeRequests

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> beam.PCollection[Work]:
        """Applies the transform; called by Beam."""
        work, order, taken = root | "Take requests" >> self.take
        runs = pvalue.AsIter(taken | "Runs" >> beam.Map(lambda url: url))
        listed = root | "Once for the manifest" >> beam.Impulse() | "List" >> beam.Map(self._list, runs)
        return (
            (order, work)
            | "All places" >> beam.Flatten()
            | "Gather neighbours" >> beam.GroupByKey()
            | "In order" >> beam.FlatMap(almost_in_order, pvalue.AsIter(listed))
        )

    @no_annotations
    def _list(self, _: bytes, runs: Iterable[str]) -> None:
        """Adds what became of the requests to the manifest."""
        options, file, job = self.take.options, self.take.file, self.take.job
        with reported():
            write_manifest(
                options.out, Merged(job.taken, frozenset(runs)), replaces=file.place(""), left_out=job.left_out(file)
            )


def almost_in_order(group: tuple[int, Iterable[tuple[int, Work] | None]], _: Iterable[None]) -> list[Work]:
    """Returns the work of neighbours in random order."""
    work = [each[1] for each in group[1] if each is not None]
    random.shuffle(work)
    return work
