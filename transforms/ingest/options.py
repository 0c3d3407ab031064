"""The options of ``infinitygan ingest``, with their checks."""

import dataclasses
from dataclasses import KW_ONLY, dataclass, field
from typing import cast

from model.errors import InputError
from model.version import __version__
from transforms.ingest.duplicates import DEDUP_WAYS
from transforms.photographs.prepare import Preparation
from transforms.sources.manners import Manners
from transforms.storage.memory import DEFAULT_BYTES, LEAST_BYTES
from transforms.storage.urls import redact
from transforms.training_set.dataset import Configuration


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """The options of an ingest run.

    Attributes:
        sources: folders, globs, files, lists, tars, web pages and APIs.
        out: the folder of the training set.
        preparation: the settings for converting photographs.
        samples_per_shard: the number of samples per shard; None to derive it from the number of samples.
        dedup: near, exact or off.
        manners: the limits for requests to servers.
        crawlers: the largest number of workers that fetch at once; None for as many as there are.
        depth: the number of links followed from a web page.
        retry_rejects: the reasons of the rejects to try again, instead of sources.
        memory_bytes: the memory that a worker process may take in all.
        watch: whether the run is one of many that take what has arrived in the sources.
        arrived: the files to take instead of all that the sources hold, each with its source if that is a folder.
    """

    sources: tuple[str, ...]
    out: str
    _: KW_ONLY
    preparation: Preparation = field(default_factory=Preparation)
    samples_per_shard: int | None = None
    dedup: str = "near"
    manners: Manners = field(default_factory=Manners)
    crawlers: int | None = None
    depth: int = 1
    retry_rejects: tuple[str, ...] = ()
    memory_bytes: int = DEFAULT_BYTES
    watch: bool = False
    arrived: tuple[tuple[str, str | None], ...] = ()

    def __post_init__(self) -> None:
        if not self.sources and not self.retry_rejects:
            raise InputError("no source given: name a folder, file, list, tar, web page or API of photographs")
        if self.sources and self.retry_rejects:
            raise InputError("--retry-rejects takes no sources: it retries the rejects in rejects.parquet")
        check_out_and_size(self.out, self.samples_per_shard)
        if self.dedup not in DEDUP_WAYS:
            raise InputError(f"--dedup {self.dedup} is unknown: give {' or '.join(DEDUP_WAYS)}")
        if self.crawlers is not None and self.crawlers < 1:
            raise InputError(f"--crawlers {self.crawlers} is too small: give 1 or more")
        if self.memory_bytes < LEAST_BYTES:
            raise InputError(f"--memory {self.memory_bytes >> 20} is too small: give {LEAST_BYTES >> 20} MiB or more")
        if self.depth < 0:
            raise InputError(f"--depth {self.depth} is too small: give 0 or more")

    def configuration(self) -> Configuration:
        """Returns for ``dataset.json`` the options that decide the set's bytes: not where to write or how to fetch."""
        values = dataclasses.asdict(self)
        values |= values.pop("preparation")
        for name in ("out", "manners", "crawlers", "memory_bytes", "arrived", *(() if self.watch else ("watch",))):
            del values[name]
        lists = {"sources": [redact(source) for source in self.sources], "retry_rejects": list(self.retry_rejects)}
        return cast(Configuration, {**values, **lists, "infinitygan_version": __version__})


def check_out_and_size(out: str, samples_per_shard: int | None) -> None:
    """Raises InputError if there is nowhere to write to, or shards would be empty."""
    if not out:
        raise InputError("--out is empty: name a folder for the training set")
    if samples_per_shard is not None and samples_per_shard < 1:
        raise InputError(f"--samples-per-shard {samples_per_shard} is too small: give 1 or more")
