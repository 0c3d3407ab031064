"""From a plan to a training set, as Beam transforms. ``docs/scale.md`` shows how they are connected.

Neither pixels nor rows cross a shuffle: a worker that has fetched photographs leaves them in the staging folder and
passes on records, some 70 bytes each, which locate the bytes. No worker gathers the records of all samples. Repeating
any step gives the same set.

The transforms hold options, never data, so a job's graph has the same size whatever it deals with. They are
dataclasses, but not frozen ones, because Beam stores attributes on a transform that it applies.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.transforms.window import GlobalWindow
from apache_beam.typehints.decorators import no_annotations
from apache_beam.utils.windowed_value import WindowedValue

from transforms.ingest.batches import RECORD, Records, keys_of, read_samples, read_staged, write_faults
from transforms.ingest.cells import COMPARED_EXACTLY, FOUND, assign, compare_cell, draw_pivots
from transforms.ingest.comparisons import (
    comparisons,
    decide_all,
    load_block,
    make_comparison,
    read_decided,
    store_block,
    store_found,
)
from transforms.ingest.crawler import crawl
from transforms.ingest.duplicates import KNOWN, find_copies, number_copies, same_bytes
from transforms.ingest.known import groups, read_known, stage_known
from transforms.ingest.plan import Plan
from transforms.ingest.publish import publish, publish_repacked, store_rows
from transforms.ingest.ranges import cut, draw, unpack
from transforms.ingest.ranks import Counts, Shards, count_bins, deal, no_counts, take
from transforms.ingest.runs import write_run
from transforms.ingest.staging import read_base
from transforms.photographs.prepare import Preparation
from transforms.sources.manners import Manners
from transforms.storage.memory import DEFAULT_BYTES
from transforms.training_set.dataset import WrittenShard
from transforms.training_set.records import Reject
from transforms.training_set.samples import Sample, SampleJson, as_copy
from transforms.training_set.shards import write_shard
from transforms.workers.faults import reported
from transforms.workers.sight import CheckSight, Sight

_RUNS: Final = "runs"
_BLOCKS: Final = "blocks"
_URLS: Final = "urls"
_COUNTS: Final = "counts"
_EMITTED_AT_ONCE: Final = 4096

Packed = beam.PCollection[bytes]
"""Records, many in each element."""

Runs = beam.PCollection[str]
"""The URLs of runs of rejects."""


@dataclass(eq=False)
class PreparePhotographs(beam.PTransform[pvalue.PBegin, pvalue.DoOutputsTuple]):
    """Fetches, checks, resizes and stages the photographs of the plan; outputs packed ``records``, and ``runs``.

    All photographs of a host are in one share, so that its limits hold for any number of workers.
    """

    out: str
    plan: Plan
    preparation: Preparation
    manners: Manners
    memory_bytes: int = DEFAULT_BYTES
    sight: Sight | None = None

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> pvalue.DoOutputsTuple:
        """Applies the transform; called by Beam."""
        crawl_shares = beam.ParDo(
            _Crawl(self.out, self.plan, self.preparation, self.manners, self.memory_bytes, self.sight)
        )
        shares = self.plan.shares
        return (
            root
            | "Once" >> beam.Impulse()
            | "Shares" >> beam.FlatMap(lambda _: ((share, None) for share in range(shares)))
            | "Share out" >> beam.GroupByKey()
            | CheckSight(self.sight)
            | "Crawl" >> crawl_shares.with_outputs(_RUNS, main="records")
        )


@dataclass
class _Crawl(beam.DoFn):
    """Crawls all shares of a bundle at once, because most of the time is spent waiting for servers."""

    out: str
    plan: Plan
    preparation: Preparation
    manners: Manners
    memory_bytes: int
    sight: Sight | None
    shares: list[int] = field(default_factory=list)

    def start_bundle(self) -> None:
        """Forgets the shares of an earlier bundle."""
        self.shares = []

    def process(self, share: tuple[int, Iterable[None]]) -> None:
        """Takes a share."""
        self.shares.append(share[0])

    def finish_bundle(self) -> Iterator[Any]:
        """Crawls, and yields the packed records and the runs of rejects of the shares."""
        settings = (self.plan.shares_of_files, self.out, self.preparation, self.manners, self.memory_bytes, self.sight)
        with reported():
            crawl(self.shares, *settings)
        for share in self.shares:
            for output in _outcomes(self.out, share):
                if isinstance(output, str):
                    yield pvalue.TaggedOutput(_RUNS, WindowedValue(output, 0, (GlobalWindow(),)))
                else:
                    yield WindowedValue(output, 0, (GlobalWindow(),))


def _outcomes(out: str, share: int) -> Iterator[bytes | str]:
    """Yields a share's records, packed, and the URLs of runs of its rejects."""
    records: list[bytes] = []
    rejects: list[Reject] = []
    for staged in read_staged(out, share):
        records.append(staged.records.tobytes())
        rejects += staged.rejects
        if sum(map(len, records)) >= _EMITTED_AT_ONCE * RECORD.itemsize:
            yield b"".join(records)
            records = []
        if len(rejects) >= _EMITTED_AT_ONCE:
            yield write_run(out, rejects)
            rejects = []
    if records:
        yield b"".join(records)
    if rejects:
        yield write_run(out, rejects)


@dataclass(eq=False)
class ReadKnown(beam.PTransform[pvalue.PBegin, pvalue.DoOutputsTuple]):
    """Reads the set that is extended; outputs its packed samples, ``known``, and the ``urls`` of their hashes."""

    out: str

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> pvalue.DoOutputsTuple:
        """Applies the transform; called by Beam."""
        return root | RowGroups(self.out) | "Read" >> beam.FlatMap(self._read).with_outputs(_URLS, main="known")

    def _read(self, group: tuple[int, Iterable[None]]) -> Iterator[Any]:
        base = read_base(self.out)
        for url, known in read_known(self.out, base, group[0]) if base else ():
            yield known.tobytes()
            yield pvalue.TaggedOutput(_URLS, url)


@dataclass(eq=False)
class StageKnown(beam.PTransform[pvalue.PBegin, Packed]):
    """Stages the rows of a set that is repacked; outputs packed records."""

    out: str

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> Packed:
        """Applies the transform; called by Beam."""
        return root | RowGroups(self.out) | "Stage" >> beam.FlatMap(self._stage)

    def _stage(self, group: tuple[int, Iterable[None]]) -> Iterator[bytes]:
        base = read_base(self.out)
        for records in stage_known(self.out, base, group[0]) if base else ():
            yield records.tobytes()


@dataclass(eq=False)
class RowGroups(beam.PTransform[pvalue.PBegin, beam.PCollection[tuple[int, Iterable[None]]]]):
    """Outputs the numbers of the row groups of a set's index."""

    out: str

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> beam.PCollection[tuple[int, Iterable[None]]]:
        """Applies the transform; called by Beam."""
        return (
            root
            | "Once" >> beam.Impulse()
            | "Row groups" >> beam.FlatMap(lambda _: ((group, None) for group in range(groups(self.out))))
            | "Share out" >> beam.GroupByKey()
        )


@dataclass(eq=False)
class DropDuplicates(beam.PTransform[tuple[beam.PCollection[Any], ...], tuple[Packed, Runs]]):
    """Decides which of several photographs of the same thing is kept; outputs packed records, ``kept``, and ``runs``.

    `transforms.ingest.duplicates` describes how.
    """

    out: str
    dedup: str
    photographs: int

    @no_annotations
    def expand(self, inputs: tuple[beam.PCollection[Any], ...]) -> tuple[Packed, Runs]:
        """Applies the transform to packed records, and to the two outputs of `ReadKnown` if a set is extended."""
        records, *there = inputs
        drawn = pvalue.AsIter(records | "Draw" >> beam.FlatMap(self._draw))
        parts = {"new": records | "Cut" >> beam.FlatMap(self._cut, drawn)}
        if there:
            parts["known"] = there[0] | "Cut known" >> beam.FlatMap(self._cut_known, drawn)
        alone = (
            parts
            | "Gather ranges" >> beam.CoGroupByKey()
            | "Same bytes" >> beam.FlatMap(self._same_bytes).with_outputs(_RUNS, _BLOCKS, main="kept")
        )
        if self.dedup != "near":
            return alone.kept, alone.runs
        in_pairs = self.photographs <= COMPARED_EXACTLY
        blocks = _views(alone.blocks, *there[1:])
        compared = [
            records.pipeline
            | "Once" >> beam.Impulse()
            | "Pairs" >> beam.FlatMap(_pairs, *blocks, in_pairs=in_pairs)
            | "Share out" >> beam.GroupByKey()
            | "Compare" >> beam.FlatMap(lambda group: [make_comparison(self.out, pair) for pair in group[1]])
        ]
        if not in_pairs:
            compared.append(alone.blocks | CompareInCells(self.out, self.photographs))
        decided = (
            records.pipeline
            | "Once more" >> beam.Impulse()
            | "Decide" >> beam.FlatMap(self._decide, *map(pvalue.AsIter, compared))
            | "Share out decided" >> beam.GroupByKey()
            | "Drop" >> beam.FlatMap(self._drop).with_outputs(_RUNS, main="kept")
        )
        return decided.kept, (alone.runs, decided.runs) | "All runs" >> beam.Flatten()

    def _draw(self, packed: bytes) -> Iterator[bytes]:
        return draw(unpack([packed], RECORD), self.photographs)

    def _cut(self, packed: bytes, drawn: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        return cut(unpack([packed], RECORD), drawn, self.photographs)

    def _cut_known(self, packed: bytes, drawn: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        return cut(unpack([packed], KNOWN), drawn, self.photographs)

    def _same_bytes(self, group: tuple[int, dict[str, Iterable[bytes]]]) -> Iterator[Any]:
        number, parts = group
        records, known = unpack(parts["new"], RECORD), unpack(parts.get("known", ()), KNOWN)
        if self.dedup == "off":
            yield from _kept(number_copies(self.out, records, known), [], self.out)
            return
        exact = find_copies(self.out, records, known)
        rejects = list(same_bytes(self.out, exact.known, exact.winners))
        if self.dedup == "near":
            store_block(self.out, number, exact)
            yield pvalue.TaggedOutput(_BLOCKS, number)
            yield from _kept(exact.first[:0], rejects, self.out)
        else:
            rejects += same_bytes(self.out, exact.copies, keys_of(exact.first[exact.copied]))
            yield from _kept(exact.first, rejects, self.out)

    @no_annotations
    def _decide(self, _: bytes, *made: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, None]]:
        return ((block, None) for block in decide_all(self.out, chain.from_iterable(made)))

    def _drop(self, block: tuple[int, Iterable[None]]) -> Iterator[Any]:
        kept, rejects = read_decided(self.out, block[0])
        yield from _kept(kept, list(rejects), self.out)


def _views(*outputs: beam.PCollection[Any]) -> list[pvalue.AsIter]:
    """Returns side inputs. One of Beam's runners confuses a transform's outputs unless they are mapped first."""
    return [pvalue.AsIter(some | f"View {number}" >> beam.Map(lambda x: x)) for number, some in enumerate(outputs)]


def _kept(records: Records, rejects: list[Reject], out: str) -> Iterator[Any]:
    """Yields packed records, and the URL of a run of rejects, unless they are empty."""
    if len(records):
        yield records.tobytes()
    if rejects:
        yield pvalue.TaggedOutput(_RUNS, write_run(out, rejects))


@no_annotations
def _pairs(_: bytes, blocks: Iterable[int], known: Iterable[str] = (), *, in_pairs: bool) -> Iterator[tuple[int, Any]]:
    return enumerate(comparisons(blocks, known, in_pairs))


@dataclass(eq=False)
class CompareInCells(beam.PTransform[beam.PCollection[int], beam.PCollection[tuple[int, int, int]]]):
    """Compares the samples of blocks in cells; outputs each block, the part of its likenesses, and its samples' number.

    `transforms.ingest.cells` describes how.
    """

    out: str
    photographs: int

    @no_annotations
    def expand(self, blocks: beam.PCollection[int]) -> beam.PCollection[tuple[int, int, int]]:
        """Applies the transform to the numbers of blocks; called by Beam."""
        shared = blocks | "Key" >> beam.Map(lambda block: (block, None)) | "Share out" >> beam.GroupByKey()
        drawn = pvalue.AsIter(shared | "Draw" >> beam.Map(self._draw))
        assigned = shared | "Assign" >> beam.FlatMap(self._assign, drawn).with_outputs(_COUNTS, main="cells")
        found = (
            assigned.cells
            | "Gather cells" >> beam.GroupByKey()
            | "Compare" >> beam.FlatMap(lambda cell: compare_cell(self.out, cell[1]))
        )
        return (
            {"count": assigned[_COUNTS], "found": found}
            | "Gather blocks" >> beam.CoGroupByKey()
            | "Store" >> beam.Map(self._store)
        )

    def _draw(self, block: tuple[int, Iterable[None]]) -> bytes:
        return draw_pivots(load_block(self.out, block[0]), self.photographs)

    def _assign(self, block: tuple[int, Iterable[None]], drawn: Iterable[bytes]) -> Iterator[Any]:
        number, samples = block[0], load_block(self.out, block[0])
        yield pvalue.TaggedOutput(_COUNTS, (number, len(samples.records)))
        yield from assign(number, samples, drawn)

    def _store(self, block: tuple[int, dict[str, Any]]) -> tuple[int, int, int]:
        number, parts = block
        (count,) = parts["count"]
        return number, store_found(self.out, number, unpack(parts["found"], FOUND)), count


@dataclass(eq=False)
class AssignShards(beam.PTransform[Packed, beam.PCollection[tuple[str, Records]]]):
    """Deals samples out to shards by the rank of their keys; outputs shards' names, with the samples of each."""

    shards: Shards

    @no_annotations
    def expand(self, kept: Packed) -> beam.PCollection[tuple[str, Records]]:
        """Applies the transform to packed records; called by Beam."""
        counted = (
            kept
            | "Count" >> beam.Map(lambda packed: (None, count_bins(unpack([packed], RECORD), self.shards.bits)))
            | "Sum up" >> beam.CombinePerKey(_Sum())
        )
        counts = pvalue.AsSingleton(counted, default_value=(None, no_counts(self.shards.bits)))
        return (
            kept
            | "Deal" >> beam.FlatMap(self._deal, counts)
            | "Gather shards" >> beam.GroupByKey()
            | "Take" >> beam.Map(self._take, counts)
        )

    def _deal(self, packed: bytes, counts: tuple[None, Counts]) -> Iterator[tuple[str, bytes]]:
        for name, records in deal(unpack([packed], RECORD), counts[1], self.shards):
            yield name, records.tobytes()

    def _take(self, shard: tuple[str, Iterable[bytes]], counts: tuple[None, Counts]) -> tuple[str, Records]:
        return shard[0], take(shard[0], unpack(shard[1], RECORD), counts[1], self.shards)


class _Sum(beam.CombineFn):
    """Adds up counts."""

    def create_accumulator(self) -> Any:
        return 0

    def add_input(self, total: Any, counts: Counts) -> Any:
        return total + counts

    def merge_accumulators(self, totals: Iterable[Any]) -> Any:
        return sum(totals)

    def extract_output(self, total: Any) -> Any:
        return total


@dataclass(eq=False)
class WriteTrainingShards(beam.PTransform[beam.PCollection[tuple[str, Records]], beam.PCollection[WrittenShard]]):
    """Writes each shard from its staged images, and stores its rows of the index.

    Attributes:
        out: the folder of the set.
        target: the folder for the shards.
    """

    out: str
    target: str

    @no_annotations
    def expand(self, shards: beam.PCollection[tuple[str, Records]]) -> beam.PCollection[WrittenShard]:
        """Applies the transform; called by Beam."""
        return shards | "Write" >> beam.Map(self._write)

    def _write(self, shard: tuple[str, Records]) -> WrittenShard:
        name, records = shard
        copies = records["copy"].tolist()
        samples = (
            (image, _numbered(row.sample, copy))
            for (image, row), copy in zip(read_samples(self.out, records), copies, strict=True)
        )
        with reported():
            written, rows = write_shard(self.target, name, samples)
            store_rows(self.out, written, rows)
        return written


def _numbered(sample: SampleJson, copy: int) -> SampleJson:
    """Returns the metadata of a sample under the key of its copy."""
    return as_copy(Sample.from_json(sample), copy).to_json() if copy and len(sample["key"]) == 16 else sample


@dataclass(eq=False)
class WriteTables(beam.PTransform[tuple[beam.PCollection[Any], ...], beam.PCollection[None]]):
    """Completes the set once every shard is written.

    Attributes:
        out: the folder of the set.
        target: the folder of the repacked set; None if the set is not repacked.
    """

    out: str
    target: str | None = None

    @no_annotations
    def expand(self, inputs: tuple[beam.PCollection[Any], ...]) -> beam.PCollection[None]:
        """Applies the transform to the written shards, and to the runs of rejects; called by Beam."""
        shards, *runs = inputs
        return (
            shards.pipeline
            | "Once" >> beam.Impulse()
            | "Write" >> beam.Map(self._write, pvalue.AsIter(shards), *_views(*runs))
        )

    @no_annotations
    def _write(self, _: bytes, shards: Iterable[WrittenShard], *runs: Iterable[str]) -> None:
        with reported():
            if self.target is None:
                publish(self.out, shards, [url for some in runs for url in some])
            else:
                publish_repacked(self.out, self.target, shards)
            write_faults(self.out)
