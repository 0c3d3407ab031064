import hashlib
from dataclasses import dataclass

import oracles
import pytest

from tests.transforms.training_set.test_samples import make_sample
from transforms.training_set.dataset import write_tables
from transforms.training_set.samples import Sample
from transforms.training_set.shards import write_shard


@dataclass(frozen=True)
class Item:
    """A sample and its encoded image."""

    sample: Sample
    image: bytes


def make_items(count):
    items = []
    for index in range(count):
        sha256 = hashlib.sha256(str(index).encode()).hexdigest()
        items.append(Item(make_sample(sha256, f"{index}.jpg"), sha256.encode() * (1 + int(sha256[0], 16))))
    return items


def write_set(out, items, size, rejects, provenance, write_tables=write_tables):
    """Writes the shards and tables of a set; returns its shards and the content of ``dataset.json``."""
    by_key = {item.sample.key: item for item in items}
    made = {}
    for name, keys in oracles.assign_shards([item.sample for item in items], size).items():
        shard, rows = write_shard(str(out), name, ((by_key[key].image, by_key[key].sample.to_json()) for key in keys))
        made[name] = (shard, rows)
    shards = [shard for shard, _ in made.values()]
    return shards, write_tables(str(out), shards, lambda shard: made[shard.name][1], rejects, provenance)


@pytest.fixture
def items():
    return make_items(40)
