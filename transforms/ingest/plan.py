"""The plan of a run: what it deals with, as files in the staging folder that workers write and read.

    sources.jsonl                    the sources of the run
    found.json                       how much is found
    plan.json                        the same; written last, so a plan with it is complete
    plan/<share>/<part>.jsonl        the photographs of a share, the unit in which they are fetched and prepared
    plan/rejects/<part>.jsonl        a sorted run of files that are not photographs
    plan/taken-back/<part>.jsonl     sources, sorted, whose rejects in the set are dropped

A share has photographs of files, of which any worker takes some; or those of some hosts, each of which belongs to one
share, so that its limits hold for any number of workers.
"""

import dataclasses
import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.checks import is_count
from model.errors import InputError
from transforms.ingest.batches import read_lines, reject_json, write_lines
from transforms.ingest.run_mark import STAGING
from transforms.storage.files import exists, join, list_files, read_json, write_bytes, write_json
from transforms.storage.urls import host_key, is_web
from transforms.training_set.dataset import reject_order
from transforms.training_set.records import Photograph, Reject

PLAN: Final = "plan.json"
SHARE_PHOTOGRAPHS: Final = 4096
PHOTOGRAPHS_OF_HOSTS: Final = 1024
"""The number of photographs in a share of files, and the least number in a share of hosts, on average."""

_SOURCES, _FOUND = "sources.jsonl", "found.json"
_PARTS, _REJECTS, _TAKEN_BACK = "plan", "rejects", "taken-back"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much a run deals with.

    Attributes:
        photographs: the number of photographs.
        rejects: the number of files that are not photographs.
        taken_back: the number of sources whose rejects are dropped.
        shares_of_files: the number of shares of photographs that are files; these have the first numbers.
        shares_of_hosts: the number of shares of photographs that are on the web.
    """

    photographs: int
    rejects: int
    taken_back: int
    shares_of_files: int
    shares_of_hosts: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not is_count(getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be a count")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.photographs or self.rejects or self.taken_back)

    @property
    def shares(self) -> int:
        """The number of all shares."""
        return self.shares_of_files + self.shares_of_hosts


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a worker has found: the parts of a `Plan`."""

    files: int
    fetched: int
    rejects: int
    taken_back: int
    found: int

    @classmethod
    def of(
        cls, photographs: Sequence[Photograph], rejects: Sequence[Reject], back: Sequence[str], found: int
    ) -> "Counts":
        """Counts what is planned, of a number of photographs found."""
        fetched = sum(map(is_fetched, photographs))
        return cls(len(photographs) - fetched, fetched, len(rejects), len(back), found)

    @staticmethod
    def plan(counts: Iterable["Counts"], shares_of_hosts: int | None = None) -> Plan:
        """Returns the plan for all that is found."""
        rows = [(some.files, some.fetched, some.rejects, some.taken_back) for some in counts]
        files, fetched, rejects, back = map(sum, zip(*rows, strict=True)) if rows else (0, 0, 0, 0)
        of_hosts = min(shares_of_hosts or fetched, -(-fetched // PHOTOGRAPHS_OF_HOSTS))
        return Plan(files + fetched, rejects, back, -(-files // SHARE_PHOTOGRAPHS), of_hosts)


def write_sources(where: str, sources: Iterable[str | tuple[str, str | None]]) -> None:
    """Writes the sources of a run, for workers to read; a file may be given with the folder that it was found in."""
    write_lines(sources_url(where), sources)


def read_sources(where: str) -> Iterator[str | tuple[str, str | None]]:
    """Yields the sources of a run, as they were written."""
    return read_lines(sources_url(where), _source)


def write_part(where: str, share: int, part: int, lines: Iterable[str]) -> None:
    """Writes a part of a share from lines of JSON."""
    write_bytes(_url(where, f"{share:06d}", part), "".join(f"{line}\n" for line in lines).encode())


def write_notes(where: str, bucket: int, rejects: Sequence[Reject], back: Sequence[str]) -> None:
    """Writes a sorted run of rejects, and one of sources whose rejects are dropped, unless they are empty."""
    if rejects:
        write_lines(_url(where, _REJECTS, bucket), map(reject_json, sorted(rejects, key=reject_order)))
    if back:
        write_lines(_url(where, _TAKEN_BACK, bucket), sorted(back))


def write_found(where: str, plan: Plan, photographs: int) -> None:
    """Writes how much is planned, and the number of photographs found; `accept` completes the plan."""
    write_json(join(where, STAGING, _FOUND), [dataclasses.asdict(plan), photographs])


def read_found(where: str) -> tuple[Plan, int]:
    """Reads how much is planned, and the number of photographs found."""
    plan, photographs = read_json(join(where, STAGING, _FOUND))
    return Plan(**plan), photographs


def sources_url(where: str) -> str:
    """Returns the URL of the file of sources."""
    return join(where, STAGING, _SOURCES)


def accept(where: str, plan: Plan) -> None:
    """Marks the plan as complete, so that an interrupted run goes on with it."""
    write_json(plan_url(where), dataclasses.asdict(plan))


def plan_url(out: str) -> str:
    """Returns the URL of the file that says that the plan is complete."""
    return join(out, STAGING, PLAN)


def is_planned(out: str) -> bool:
    """Returns whether there is the plan of an interrupted run, which can be resumed."""
    return exists(plan_url(out))


def read_plan(out: str) -> Plan:
    """Reads the plan of the unfinished run.

    Raises:
        InputError: it is damaged.
    """
    url = plan_url(out)
    value = read_json(url)
    try:
        return Plan(**value)
    except (TypeError, InputError) as error:
        raise InputError(f"{url} is damaged ({error}): remove {join(out, STAGING)} to start again") from None


def read_share(out: str, share: int) -> Iterator[Photograph]:
    """Yields the photographs of a share.

    Raises:
        InputError: a line is damaged.
    """
    for url in _parts(out, f"{share:06d}"):
        yield from read_lines(url, Photograph.from_json)


def planned_rejects(out: str) -> list[str]:
    """Returns the URLs of the runs of planned rejects."""
    return _parts(out, _REJECTS)


def read_taken_back(out: str) -> Iterator[str]:
    """Yields the sources whose rejects in the set are dropped, in order."""
    yield from heapq.merge(*(read_lines(url, _text) for url in _parts(out, _TAKEN_BACK)))


def _source(value: Any) -> str | tuple[str, str | None]:
    if not isinstance(value, list):
        return _text(value)
    file, folder = value
    return _text(file), folder and _text(folder)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _parts(out: str, name: str) -> list[str]:
    folder = join(out, STAGING, _PARTS, name)
    return [join(folder, part) for part in list_files(folder)]


def _url(out: str, name: str, part: int) -> str:
    return join(out, STAGING, _PARTS, name, f"{part:06d}.jsonl")


def share_of(photograph: Photograph, plan: Plan) -> int:
    """Returns the share of a photograph: the same one for all of a host."""
    number = _number(web_host(photograph) or photograph.source)
    if is_fetched(photograph):
        return plan.shares_of_files + number % plan.shares_of_hosts
    return number % plan.shares_of_files


def part_of(photograph: Photograph, plan: Plan) -> int:
    """Returns the part of a photograph in its share; even a host with all photographs makes no large parts."""
    parts = -(-plan.photographs // SHARE_PHOTOGRAPHS) if is_fetched(photograph) else 1
    return _number(photograph.source) % parts


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def is_fetched(photograph: Photograph) -> bool:
    """Returns whether a photograph is requested from a web server, rather than read from a file system."""
    return photograph.piece is None and is_web(photograph.source)


def web_host(photograph: Photograph) -> str:
    """Returns the host that a photograph is fetched from; an empty string if no host is asked."""
    return host_key(photograph.source) if is_fetched(photograph) else ""
