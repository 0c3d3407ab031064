"""From sources to a plan, as Beam transforms: workers list folders, read lists and tars, and crawl pages.

What is found crosses shuffles as lines of JSON, packed by *bucket*: a number that depends on the name of a find. So all
finds that may be the same, and all that the set knows of them, come to one worker.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints.decorators import no_annotations
from apache_beam.utils.windowed_value import WindowedValue

from transforms.ingest.batches import reject_json, write_faults
from transforms.ingest.known import groups
from transforms.ingest.plan import Counts, part_of, read_sources, share_of, write_found, write_notes, write_part
from transforms.ingest.staging import read_base
from transforms.sources.find import (
    Find,
    Outcome,
    Place,
    Read,
    distinct,
    expand,
    find_of,
    find_on_web_places,
    follow,
    grouping_key,
    holders,
    look,
    place_of,
    search,
)
from transforms.sources.manners import Manners
from transforms.sources.web import is_on_web
from transforms.storage.urls import host_key, redact
from transforms.training_set.dataset import read_index_parts, read_rejects
from transforms.training_set.records import Photograph, Reject
from transforms.workers.faults import reported
from transforms.workers.packs import Pack, compress, pack, unpack
from transforms.workers.sight import CheckSight, Sight

BUCKETS: Final = 512
_PACKED_AT_ONCE: Final = 4096
_WEB: Final = "web"
_PLACES, _FINDS, _READ, _LINKS, _COUNTS = "places", "finds", "read", "links", "counts"


@dataclass(eq=False)
class FindPhotographs(beam.PTransform[pvalue.PBegin, beam.PCollection[None]]):
    """Finds what the sources hold and the set does not know, and writes the plan; its summary is written last.

    Attributes:
        out: the folder of the set.
        where: the folder in whose staging folder the sources are and the plan is written: usually the same.
        manners: the limits for requests to servers.
        depth: the number of links followed from a web page.
        extends: whether there is a set.
        retry: the reasons of the rejects of the set to try again, instead of sources.
        shares_of_hosts: the number of shares of hosts; None to choose it.
        sight: what the workers must see.
    """

    out: str
    where: str
    manners: Manners
    depth: int
    extends: bool
    retry: tuple[str, ...] = ()
    shares_of_hosts: int | None = None
    sight: Sight | None = None
    cwd: str = field(default_factory=os.getcwd)

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> beam.PCollection[None]:
        """Applies the transform; called by Beam."""
        outputs = (_FINDS, _READ, _LINKS)
        looked = (
            root
            | "Once" >> beam.Impulse()
            | CheckSight(self.sight)
            | "Look" >> beam.FlatMap(self._look).with_outputs(_PLACES, *outputs)
        )
        searched = (
            looked.places
            | "Share out" >> beam.GroupByKey()
            | "Search" >> beam.ParDo(_Search(self.out, self.manners, self.depth)).with_outputs(*outputs)
        )
        followed = (
            (looked.links, searched.links)
            | "All links" >> beam.Flatten()
            | "Gather links" >> beam.GroupByKey()
            | "Follow" >> beam.FlatMap(lambda group: _sort(follow(group[1], self.out))).with_outputs(_FINDS, _READ)
        )
        finds = (
            (looked.finds, searched.finds, followed.finds)
            | "All finds" >> beam.Flatten()
            | "Gather finds" >> beam.GroupByKey()
        )
        if self.extends:
            planned = self._plan_new(root, finds, (looked.read, searched.read, followed.read))
        else:
            planned = finds | "Plan" >> beam.FlatMap(self._plan).with_outputs(_COUNTS, main="photographs")
        # A list is read once a bundle; an iterable would be read again for each element.
        counts = pvalue.AsList(planned.counts | "View counts" >> beam.Map(lambda counts: counts))
        written = (
            planned.photographs
            | "Deal" >> beam.FlatMap(self._deal, counts)
            | "Gather shares" >> beam.GroupByKey()
            | "Write" >> beam.Map(self._write_part)
        )
        return root | "Once more" >> beam.Impulse() | "Sum up" >> beam.Map(self._sum_up, counts, pvalue.AsIter(written))

    def _plan_new(self, root: Any, finds: Any, read: tuple[Any, ...]) -> pvalue.DoOutputsTuple:
        """Compares what is found with what the set knows."""
        known = (
            root
            | "Once for the index" >> beam.Impulse()
            | "Row groups" >> beam.FlatMap(lambda _: ((group, None) for group in range(groups(self.out))))
            | "Share out row groups" >> beam.GroupByKey()
            | "Read index" >> beam.FlatMap(self._known)
        )
        rejects = root | "Once for the rejects" >> beam.Impulse() | "Read" >> beam.FlatMap(self._rejects)
        places = pvalue.AsList(read | "All read" >> beam.Flatten())
        return (
            {"found": finds | "Distinct" >> beam.FlatMap(self._distinct), "known": known, "rejects": rejects}
            | "Compare" >> beam.CoGroupByKey()
            | "Plan" >> beam.FlatMap(self._plan_unknown, places).with_outputs(_COUNTS, main="photographs")
        )

    def _look(self, _: bytes) -> Iterator[Any]:
        with reported():
            sources = self._again() if self.retry else self._sources()
            yield from _sort(sources)

    def _sources(self) -> Iterator[Outcome]:
        for number, source in enumerate(read_sources(self.where)):
            if not isinstance(source, str):
                yield from look(Place(source[0], number, root=source[1]), self.out)
            elif is_on_web(source):
                yield Place(source, number, _WEB)
            else:
                yield from chain.from_iterable(look(place, self.out) for place in expand(number, source))

    def _again(self) -> Iterator[Outcome]:
        """Yields the places of rejects that are tried again, except photographs, which `_plan_unknown` sees anyway."""
        places: set[str] = set()
        for reject in read_rejects(self.out):
            place = place_of(reject) if reject.stage == "find" and reject.reason in self.retry else None
            if place and place not in places:
                places.add(place)
                if is_on_web(place):
                    yield Place(place, 1, _WEB)
                else:
                    yield from look(Place(place, 0), self.out)

    def _known(self, group: tuple[int, Iterable[None]]) -> Iterator[Pack]:
        base = read_base(self.where)
        for part in read_index_parts(self.out, base["shards"] if base else (), ["shard", "source"], [group[0]]):
            yield from _pack((source, source) for row in part["source"].to_pylist() for source in self._names(row))

    def _names(self, source: str) -> set[str]:
        """Returns the names of a photograph in the set; sets of earlier versions hold relative paths as given."""
        source = redact(source)
        is_relative = ":" not in source and not source.startswith("/")
        return {source, os.path.normpath(os.path.join(self.cwd, source))} if is_relative else {source}

    def _rejects(self, _: bytes) -> Iterator[Pack]:
        """Yields the rejects of the set; of photographs also their further names."""

        def named() -> Iterator[tuple[str, Any]]:
            for reject in read_rejects(self.out):
                yield reject.source, reject_json(reject)
                if reject.stage != "find":
                    yield from ((name, name) for name in self._names(reject.source) - {reject.source})

        return _pack(named())

    def _distinct(self, group: tuple[int, Iterable[bytes]]) -> Iterator[Pack]:
        return _pack((item.source, find_of(item, (0, "", 0)).to_json()) for item in _items(group[1], self.out))

    def _plan(self, group: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        items = list(_items(group[1], self.out))
        return self._write(group[0], items, [], sum(isinstance(item, Photograph) for item in items))

    def _plan_unknown(self, group: tuple[int, dict[str, Iterable[bytes]]], read: Iterable[str]) -> Iterator[Any]:
        bucket, parts = group
        known = set(_values(parts["known"]))
        rejects: dict[str, list[Reject]] = defaultdict(list)
        for row in _values(parts["rejects"]):
            if isinstance(row, str):
                known.add(row)
            else:
                rejects[row["source"]].append(Reject(**row))
        known |= {source for source, some in rejects.items() if any(reject.stage != "find" for reject in some)}
        found = [Find.from_json(value).item for value in _values(parts["found"])]
        said = {(reject.source, reject.reason) for some in rejects.values() for reject in some}
        items: list[Photograph | Reject] = [
            item
            for item in found
            if (item.source not in known if isinstance(item, Photograph) else (item.source, item.reason) not in said)
        ]
        items += [
            reject.photograph()
            for some in rejects.values()
            for reject in some
            if reject.stage != "find" and reject.reason in self.retry
        ]
        still = {item.source for item in found if isinstance(item, Reject)}
        tried = {item.source for item in items}
        examined = {redact(place).rstrip("/") for place in read}
        back = [
            source
            for source, some in rejects.items()
            if source in tried
            or (
                source not in still
                and any(reject.stage == "find" for reject in some)
                and not examined.isdisjoint(holders(source))
            )
        ]
        return self._write(bucket, items, back, sum(isinstance(item, Photograph) for item in found))

    def _write(self, bucket: int, items: list[Photograph | Reject], back: list[str], found: int) -> Iterator[Any]:
        """Writes the rejects of a bucket; yields its photographs, and how much there is of everything."""
        photographs = [item for item in items if isinstance(item, Photograph)]
        rejects = [item for item in items if isinstance(item, Reject)]
        write_notes(self.where, bucket, rejects, back)
        write_faults(self.where)
        yield pvalue.TaggedOutput(_COUNTS, Counts.of(photographs, rejects, back, found))
        for start in range(0, len(photographs), _PACKED_AT_ONCE):
            yield compress(_to_line(photo.to_json()) for photo in photographs[start : start + _PACKED_AT_ONCE])

    def _deal(self, packed: bytes, counts: Iterable[Counts]) -> Iterator[tuple[tuple[int, int], bytes]]:
        plan = Counts.plan(counts, self.shares_of_hosts)
        parts: dict[tuple[int, int], list[str]] = defaultdict(list)
        for line in unpack(packed):
            photograph = Photograph.from_json(json.loads(line))
            parts[share_of(photograph, plan), part_of(photograph, plan)].append(line)
        for key, lines in parts.items():
            yield key, compress(lines)

    def _write_part(self, group: tuple[tuple[int, int], Iterable[bytes]]) -> None:
        (share, part), packed = group
        write_part(self.where, share, part, chain.from_iterable(map(unpack, packed)))

    @no_annotations
    def _sum_up(self, _: bytes, counts: Iterable[Counts], written: Iterable[None]) -> None:
        for _done in written:
            pass
        counts = list(counts)
        write_found(self.where, Counts.plan(counts, self.shares_of_hosts), sum(some.found for some in counts))


class _Search(beam.DoFn):
    """Searches places: each as it comes, but web sources of a bundle at once, because servers take their time."""

    def __init__(self, out: str, manners: Manners, depth: int) -> None:
        self._out, self._manners, self._depth = out, manners, depth
        self._web: list[tuple[int, str]] = []

    def start_bundle(self) -> None:
        """Forgets the sources of an earlier bundle."""
        self._web = []

    def process(self, group: tuple[str, Iterable[Place]]) -> Iterator[Any]:
        """Searches a place, or takes web sources of a host."""
        places = sorted(group[1], key=lambda place: place.number)
        if places[0].kind == _WEB:
            self._web += [(place.number, place.url) for place in places]
            return
        with reported():
            yield from _sort(search(places[0], self._out))

    def finish_bundle(self) -> Iterator[Any]:
        """Searches the web sources."""
        with reported():
            for output in _sort(find_on_web_places(self._web, self._manners, self._depth)) if self._web else ():
                yield pvalue.TaggedOutput(output.tag, WindowedValue(output.value, 0, (GlobalWindow(),)))


def _sort(outcomes: Iterable[Outcome]) -> Iterator[pvalue.TaggedOutput[str, Any]]:
    """Sorts outcomes by output: packed finds, linked folders, what was read, and places to search."""
    outcomes = iter(outcomes)
    while some := list(islice(outcomes, _PACKED_AT_ONCE)):
        finds = [(grouping_key(item), item.to_json()) for item in some if isinstance(item, Find)]
        yield from (pvalue.TaggedOutput(_FINDS, packed) for packed in _pack(finds))
        for item in some:
            if isinstance(item, Read):
                yield pvalue.TaggedOutput(_READ, item.url)
            elif isinstance(item, Place) and item.kind == "link":
                yield pvalue.TaggedOutput(_LINKS, (item.root or item.url, item))
            elif isinstance(item, Place):
                key = (host_key(item.url) or item.url) if item.kind == _WEB else item.key
                yield pvalue.TaggedOutput(_PLACES, (key, item))


def _pack(items: Iterable[tuple[str, Any]]) -> Iterator[Pack]:
    """Yields named JSON values by the buckets of their names."""
    return pack(((name, _to_line(value)) for name, value in items), BUCKETS)


def _to_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _values(packed: Iterable[bytes]) -> Iterator[Any]:
    for lines in map(unpack, packed):
        yield from map(json.loads, lines)


def _items(packed: Iterable[bytes], out: str) -> Iterator[Photograph | Reject]:
    """Yields each of the finds of a bucket once."""
    groups: dict[str, list[Find]] = defaultdict(list)
    for value in _values(packed):
        find = Find.from_json(value)
        groups[grouping_key(find)].append(find)
    for finds in groups.values():
        yield from distinct(finds, out)
