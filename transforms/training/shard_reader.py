"""Reads shards of samples from any store: whole, checked against the set's checksums, with retries.

A shard that cannot be read is replaced by the next readable one of the epoch, so that the number of samples in the
epoch, and the position of every other sample, stays the same.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import webdataset as wds

from model.errors import one_line
from transforms.storage.files import join, read_bytes
from transforms.storage.retry import pauses, repeat
from transforms.training_set.dataset import ShardRecord, damaged

RawSample = dict[str, Any]

RETRY_AFTER_S = (0.5, 1.0, 2.0)
MOST_SHARD_BYTES = 8 << 30
"""The largest shard that is read, because a shard is read whole. Real shards are far smaller."""

READERS = 4
"""The number of shards read at the same time, to hide a distant store's latency."""


class Shards:
    """The shards of a training set.

    Args:
        data: the URL of the training set.
        records: the entry of ``dataset.json`` for each shard, with its number of samples and its sha256.
        strict: whether an unreadable shard is an error.

    Attributes:
        skipped: the shards given up so far, with the reasons.
    """

    def __init__(self, data: str, records: Mapping[str, ShardRecord], strict: bool = False):
        self.data, self.records, self.strict = data, records, strict
        self.skipped: dict[str, str] = {}

    def samples(self, names: Sequence[str]) -> int:
        """Returns the number of samples that these shards should have."""
        return sum(self.records[name]["samples"] for name in names)

    def read(self, names: Sequence[str], epoch: Sequence[str]) -> Iterator[RawSample]:
        """Yields the raw samples of some shards of an epoch, in order, as many as they should have.

        Raises:
            InputError: no shard of the epoch can be read; or one cannot, and that is an error.
        """
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(self.try_to_read, names))
        for name, samples in zip(names, found, strict=True):
            yield from islice(cycle(samples or self.replacement_for(name, epoch)), self.records[name]["samples"])

    def replacement_for(self, name: str, epoch: Sequence[str]) -> list[RawSample]:
        """Returns the samples of the first readable shard after this one, in the epoch's order."""
        place = epoch.index(name)
        for other in (*epoch[place + 1 :], *epoch[:place]):
            samples = self.try_to_read(other)
            if samples:
                return samples
        raise damaged(f"{self.data}, each of its {len(epoch)} shards,", self.skipped[name])

    def try_to_read(self, name: str) -> list[RawSample] | None:
        """Returns a shard's raw samples; None if all attempts fail. A shard skipped before gets a single attempt.

        Raises:
            InputError: the shard cannot be read, and that is an error.
        """
        url = join(self.data, name)
        waits_s = () if name in self.skipped else RETRY_AFTER_S
        try:
            samples = repeat(lambda attempt: read_shard(url, self.records[name]), pauses(waits_s, lambda error: True))
        except Exception as error:  # each store, and each kind of damage, raises errors of its own
            reason = "it is missing" if isinstance(error, FileNotFoundError) else one_line(error)
            if self.strict:
                raise damaged(url, reason) from None
            self.skipped[name] = reason
            return None
        self.skipped.pop(name, None)
        return samples


def set_checksum(records: Mapping[str, ShardRecord]) -> str:
    """Returns the checksum that identifies a training set, over the names and checksums of its shards."""
    lines = (f"{name} {record.get('sha256')}\n" for name, record in sorted(records.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_shard(url: str, record: ShardRecord) -> list[RawSample]:
    """Reads the raw samples of a shard with webdataset.

    Raises:
        Exception: of any kind, if the shard is missing or is not the expected file.
    """
    content = read_bytes(url, min(record.get("size_bytes", MOST_SHARD_BYTES), MOST_SHARD_BYTES))
    if hashlib.sha256(content).hexdigest() != record.get("sha256"):
        raise ValueError("its checksum differs from that in dataset.json")
    files = wds.tariterators.tar_file_expander([{"url": url, "stream": io.BytesIO(content)}])
    samples = list(wds.tariterators.group_by_keys(files))
    if len(samples) != record["samples"]:
        raise ValueError(f"it holds {len(samples)} samples, not {record['samples']}")
    return samples
