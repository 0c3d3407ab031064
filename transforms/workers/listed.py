"""The items of a job, in a file that a worker reads, so that the job's graph does not grow with their number."""

from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin
from apache_beam.typehints.decorators import no_annotations

from transforms.storage.runs import Runs


@dataclass(eq=False)
class ReadListed(beam.PTransform[PBegin, beam.PCollection[Any]]):
    """Outputs the items of a run, each to any worker.

    Attributes:
        runs: how to read it.
        url: its URL.
    """

    runs: Runs[Any]
    url: str

    @no_annotations
    def expand(self, root: PBegin) -> beam.PCollection[Any]:
        """Applies the transform; called by Beam."""
        return (
            root
            | "Once" >> beam.Impulse()
            | "Read" >> beam.FlatMap(lambda _: self.runs.read(self.url))
            | "Share out" >> beam.Reshuffle()
        )
