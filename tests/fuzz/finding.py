"""What the job of ingest finds, put together in memory, for tests and inputs that are too many for a job each."""

from dataclasses import dataclass, field

from transforms.sources import find
from transforms.sources.find import Find, Place, Read
from transforms.training_set.records import Photograph


@dataclass
class Found:
    """The contents of some sources, sorted."""

    photographs: list = field(default_factory=list)
    rejects: list = field(default_factory=list)
    examined: set = field(default_factory=set)


def search(places, out):
    """Searches files and folders."""
    outcomes = [outcome for number, place in enumerate(places) for outcome in find.look(Place(str(place), number), out)]
    first = {}
    for place in (outcome for outcome in outcomes if isinstance(outcome, Place) and outcome.kind != "link"):
        first.setdefault(place.key, place)
    for place in first.values():
        outcomes += find.search(place, out)
    links = {}
    for link in (outcome for outcome in outcomes if isinstance(outcome, Place) and outcome.kind == "link"):
        links.setdefault(link.root, []).append(link)
    for some in links.values():
        outcomes += find.follow(some, out)
    groups = {}
    for item in (outcome for outcome in outcomes if isinstance(outcome, Find)):
        groups.setdefault(find.grouping_key(item), []).append(Find.from_json(item.to_json()))
    found = Found(examined={outcome.url for outcome in outcomes if isinstance(outcome, Read)})
    for item in sorted((item for some in groups.values() for item in find.distinct(some, out)), key=lambda i: i.source):
        (found.photographs if isinstance(item, Photograph) else found.rejects).append(item)
    return found


def find_again(rejects, out):
    """Searches the places of rejects of the stage find again."""
    places = {place for reject in rejects if reject.stage == "find" and (place := find.place_of(reject))}
    return search(sorted(places), out)


def write_plan(where, photographs):
    """Writes the plan of a run that deals with some photographs; returns it."""
    import json

    from transforms.ingest import plan

    photographs = list(photographs)
    made = plan.Counts.plan([plan.Counts.of(photographs, [], [], len(photographs))])
    parts = {}
    for photograph in photographs:
        line = json.dumps(photograph.to_json())
        parts.setdefault((plan.share_of(photograph, made), plan.part_of(photograph, made)), []).append(line)
    for (share, part), lines in parts.items():
        plan.write_part(where, share, part, lines)
    plan.accept(where, made)
    return made
