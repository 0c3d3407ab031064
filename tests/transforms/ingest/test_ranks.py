import hashlib
import random

import numpy as np
import oracles
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.training_set.test_samples import make_sample
from transforms.ingest.batches import RECORD, keys_of, sha256_words
from transforms.ingest.ranks import Shards, count_bins, deal, no_counts, plan_shards, take
from transforms.training_set.samples import as_copy
from transforms.training_set.shards import choose_samples_per_shard


def records_of(samples):
    records = np.zeros(len(samples), dtype=RECORD)
    for record, sample in zip(records, samples, strict=True):
        record["sha256"], record["copy"] = sha256_words(sample.sha256), int(sample.key[17:] or 0)
    return records


@given(
    count=st.integers(1, 150),
    copies=st.integers(0, 12),
    size=st.none() | st.integers(1, 40),
    first=st.tuples(*[st.integers(0, 3)] * 3),
    bits=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_samples_are_dealt_out_as_if_all_had_been_sorted(count, copies, size, first, bits, seed):
    samples = [make_sample(hashlib.sha256(str(index).encode()).hexdigest(), f"{index}.jpg") for index in range(count)]
    samples += [as_copy(samples[0], number) for number in range(1, 1 + copies)]
    random.Random(seed).shuffle(samples)
    parts = np.array_split(records_of(samples), 3)
    counts = sum((count_bins(part, bits) for part in parts), no_counts(bits))
    shards = Shards(first, size, bits)
    gathered = {}
    for part in parts:
        for name, some in deal(part, counts, shards):
            gathered.setdefault(name, []).append(some)
    found = {name: keys_of(take(name, np.concatenate(some), counts, shards)) for name, some in gathered.items()}
    assert found == oracles.assign_shards(samples, size, first)


def test_no_shard_gathers_much_more_than_it_takes():
    words = np.random.default_rng(0).integers(0, 2**64, (50_000, 4), dtype=np.uint64)
    records = np.zeros(len(words), dtype=RECORD)
    records["sha256"] = words
    shards = plan_shards(None, None, len(records))
    counts = count_bins(records, shards.bits)
    gathered = [len(some) for _, some in deal(records, counts, shards)]
    assert max(gathered) <= 1.1 * choose_samples_per_shard(int(counts[0].sum()))


def test_numbering_goes_on_after_the_shards_of_the_set():
    shards = {"train-000000.tar": {"samples": 5}, "train-000001.tar": {"samples": 2}, "val-000000.tar": {"samples": 1}}
    planned = plan_shards(None, {"shards": shards}, 7)
    assert (planned.first, planned.samples) == ((2, 1, 0), 5)
    assert plan_shards(3, {"shards": shards}, 7).samples == 3
