"""From photographs to a training set, as Beam transforms.

Pixels never cross a shuffle: a worker that has fetched photographs leaves their images in the staging folder and passes
on rows of metadata, which locate the bytes. Repeating any step gives the same set.

The transforms are dataclasses, but not frozen ones, because Beam stores attributes on a transform that it applies.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.typehints.decorators import no_annotations

from transforms.ingest.crawler import crawl, web_host
from transforms.ingest.duplicates import drop_duplicates
from transforms.ingest.staging import write_faults
from transforms.photographs.prepare import Preparation
from transforms.sources.manners import Manners
from transforms.storage.memory import DEFAULT_BYTES
from transforms.training_set.dataset import (
    Dataset,
    SetProvenance,
    TrainingSet,
    WrittenShard,
    read_training_set,
    write_tables,
)
from transforms.training_set.records import Photograph, Reject
from transforms.training_set.shards import StagedSample, TrainingShard, assign_shards, write_shard
from transforms.workers.faults import reported

_REJECTED = "rejected"

T = TypeVar("T")

Finished = tuple[beam.PCollection[WrittenShard], beam.PCollection[Reject], beam.PCollection[TrainingSet | None]]
"""The shards, the rejects and the set of `ReadExisting`."""


@dataclass(eq=False)
class ReadExisting(beam.PTransform[pvalue.PBegin, beam.PCollection[TrainingSet | None]]):
    """Reads the set that a run adds to, once for all steps; its only element is the set, or None if there is none.

    Attributes:
        out: the set's folder.
        dataset: its ``dataset.json``, as it was when the run began.
    """

    out: str
    dataset: Dataset | None

    @no_annotations
    def expand(self, root: pvalue.PBegin) -> beam.PCollection[TrainingSet | None]:
        """Applies the transform; called by Beam."""
        return root | "Named" >> beam.Create([self.dataset]) | "Read" >> beam.Map(self._read)

    def _read(self, dataset: Dataset | None) -> TrainingSet | None:
        return read_training_set(self.out, dataset) if dataset else None


@dataclass(eq=False)
class PreparePhotographs(beam.PTransform[beam.PCollection[Photograph], pvalue.DoOutputsTuple]):
    """Fetches, checks, resizes and stages photographs; outputs ``prepared`` and ``rejected``.

    All photographs of a host go to one of the ``crawlers``, so that its limits hold for any number of workers.
    """

    out: str
    preparation: Preparation
    manners: Manners
    crawlers: int = 1
    memory_bytes: int = DEFAULT_BYTES

    @no_annotations
    def expand(self, photographs: beam.PCollection[Photograph]) -> pvalue.DoOutputsTuple:
        """Applies the transform; called by Beam."""
        return (
            photographs
            | "By host" >> beam.WithKeys(lambda photograph: crawler_of(photograph, self.crawlers))
            | "Share out" >> beam.GroupByKey()
            | "Crawl" >> beam.FlatMap(self._crawl).with_outputs(_REJECTED, main="prepared")
        )

    def _crawl(self, share: tuple[int, Iterable[Photograph]]) -> Iterator[Any]:
        photographs = sorted(share[1], key=lambda photograph: photograph.source)
        with reported():
            outcomes = crawl(photographs, self.out, self.preparation, self.manners, self.memory_bytes)
        return (_sort_out(outcome) for outcome in outcomes)


@dataclass(eq=False)
class DropDuplicates(
    beam.PTransform[tuple[beam.PCollection[StagedSample], beam.PCollection[TrainingSet | None]], pvalue.DoOutputsTuple]
):
    """Decides which of several photographs of the same thing is kept; outputs ``kept`` and ``rejected``.

    One worker holds the rows of all samples, about two kilobytes each.
    """

    out: str
    dedup: str

    @no_annotations
    def expand(
        self, inputs: tuple[beam.PCollection[StagedSample], beam.PCollection[TrainingSet | None]]
    ) -> pvalue.DoOutputsTuple:
        """Applies the transform to the staged samples and the set of `ReadExisting`; called by Beam."""
        staged, existing = inputs
        choose = beam.FlatMap(self._choose, pvalue.AsSingleton(existing))
        return (
            staged
            | "As one" >> _as_one()
            | "Gather" >> beam.GroupByKey()
            | "Choose" >> choose.with_outputs(_REJECTED, main="kept")
        )

    def _choose(self, group: tuple[str, Iterable[StagedSample]], existing: TrainingSet | None) -> Iterator[Any]:
        outcomes = list(drop_duplicates(group[1], existing.rows if existing else [], self.dedup))
        write_faults(self.out)
        return (_sort_out(outcome) for outcome in outcomes)


@dataclass(eq=False)
class AssignShards(beam.PTransform[beam.PCollection[StagedSample], beam.PCollection[TrainingShard]]):
    """Sorts all samples by key and cuts them into shards, numbered on from the set's last.

    Attributes:
        samples_per_shard: the number in each shard; None to use that of the set, or to choose one.
        existing: the ``dataset.json`` of the set that is extended; None if there is no set.
    """

    samples_per_shard: int | None
    existing: Dataset | None

    @no_annotations
    def expand(self, kept: beam.PCollection[StagedSample]) -> beam.PCollection[TrainingShard]:
        """Applies the transform; called by Beam."""
        return kept | "As one" >> _as_one() | "Gather" >> beam.GroupByKey() | "Cut" >> beam.FlatMap(self._cut)

    def _cut(self, group: tuple[str, Iterable[StagedSample]]) -> Iterable[TrainingShard]:
        return assign_shards(group[1], self.samples_per_shard, self.existing)


@dataclass(eq=False)
class WriteTrainingShards(beam.PTransform[beam.PCollection[TrainingShard], beam.PCollection[WrittenShard]]):
    """Writes each shard from its staged images."""

    out: str

    @no_annotations
    def expand(self, shards: beam.PCollection[TrainingShard]) -> beam.PCollection[WrittenShard]:
        """Applies the transform; called by Beam."""
        return shards | "Spread" >> beam.Reshuffle() | "Write" >> beam.Map(lambda shard: write_shard(self.out, shard))


@dataclass(eq=False)
class WriteTables(beam.PTransform[Finished, beam.PCollection[Dataset]]):
    """Writes ``index.parquet``, ``rejects.parquet`` and ``dataset.json`` once every shard is written."""

    out: str
    provenance: SetProvenance
    mended: frozenset[str] = frozenset()

    @no_annotations
    def expand(self, inputs: Finished) -> beam.PCollection[Dataset]:
        """Applies the transform to the written shards, the rejects and the set of `ReadExisting`; called by Beam."""
        shards, rejects, existing = inputs
        keyed = {
            "shards": shards | "Shards as one" >> _as_one(),
            "rejects": rejects | "Rejects as one" >> _as_one(),
        }
        return keyed | "Gather" >> beam.CoGroupByKey() | "Write" >> beam.Map(self._write, pvalue.AsSingleton(existing))

    def _write(self, group: tuple[str, dict[str, Iterable[Any]]], existing: TrainingSet | None) -> Dataset:
        shards: Iterable[WrittenShard] = group[1]["shards"]
        rejects: Iterable[Reject] = group[1]["rejects"]
        return write_tables(self.out, shards, rejects, self.provenance, existing, self.mended)


def crawler_of(photograph: Photograph, crawlers: int) -> int:
    """Returns the crawler for a photograph: always the same one for each host, any for a file."""
    name = web_host(photograph) or photograph.source
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % crawlers


def _as_one() -> beam.PTransform[beam.PCollection[T], beam.PCollection[tuple[str, T]]]:
    """Gives all elements the same key, so that one worker gathers them."""
    return beam.WithKeys("all")


def _sort_out(outcome: StagedSample | Reject) -> Any:
    return pvalue.TaggedOutput(_REJECTED, outcome) if isinstance(outcome, Reject) else outcome
