"""The plan of a run: what it deals with, as files in the staging folder that workers write and read.

    plan.json                        how much there is; written last, so a plan with it is complete
    plan/<share>/<part>.jsonl        the photographs of a share, the unit in which they are fetched and prepared
    plan/rejects/<part>.jsonl        a sorted run of files that are not photographs
    plan/taken-back/<part>.jsonl     sources, sorted, whose rejects in the set are dropped

A share has photographs of files, of which any worker takes some; or those of some hosts, each of which belongs to one
share, so that its limits hold for any number of workers.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from model.checks import is_count
from model.errors import InputError
from transforms.ingest.batches import read_lines, reject_json, write_lines
from transforms.ingest.lock import STAGING
from transforms.sources.find import Found
from transforms.storage.files import exists, join, list_files, read_json, write_json
from transforms.storage.urls import host_key, is_web
from transforms.training_set.dataset import reject_order
from transforms.training_set.records import Photograph

PLAN: Final = "plan.json"
SHARE_PHOTOGRAPHS: Final = 4096
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
    def shares(self) -> int:
        """The number of all shares."""
        return self.shares_of_files + self.shares_of_hosts


def write_plan(out: str, found: Found) -> Plan:
    """Writes the plan."""
    shares: dict[int, list[Photograph]] = {}
    files = sum(not is_fetched(photograph) for photograph in found.photographs)
    of_files, of_hosts = (-(-count // SHARE_PHOTOGRAPHS) for count in (files, len(found.photographs) - files))
    for photograph in found.photographs:
        shares.setdefault(share_of(photograph, of_files, of_hosts), []).append(photograph)
    for share, photographs in shares.items():
        write_part(out, share, 0, photographs)
    write_lines(_url(out, _REJECTS, 0), map(reject_json, sorted(found.rejects, key=reject_order)))
    write_lines(_url(out, _TAKEN_BACK, 0), sorted(found.mended))
    plan = Plan(len(found.photographs), len(found.rejects), len(found.mended), of_files, of_hosts)
    write_json(plan_url(out), dataclasses.asdict(plan))
    return plan


def write_part(out: str, share: int, part: int, photographs: Iterable[Photograph]) -> None:
    """Writes a part of a share."""
    write_lines(_url(out, f"{share:06d}", part), (photograph.to_json() for photograph in photographs))


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
    for url in _parts(out, _TAKEN_BACK):
        yield from read_lines(url, _text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _parts(out: str, name: str) -> list[str]:
    folder = join(out, STAGING, _PARTS, name)
    return [join(folder, part) for part in list_files(folder)]


def _url(out: str, name: str, part: int) -> str:
    return join(out, STAGING, _PARTS, name, f"{part:06d}.jsonl")


def share_of(photograph: Photograph, of_files: int, of_hosts: int) -> int:
    """Returns the share of a photograph: the same one for all of a host."""
    name = web_host(photograph) or photograph.source
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return of_files + digest % of_hosts if is_fetched(photograph) else digest % of_files


def is_fetched(photograph: Photograph) -> bool:
    """Returns whether a photograph is requested from a web server, rather than read from a file system."""
    return photograph.piece is None and is_web(photograph.source)


def web_host(photograph: Photograph) -> str:
    """Returns the host that a photograph is fetched from; an empty string if no host is asked."""
    return host_key(photograph.source) if is_fetched(photograph) else ""
