"""Shards that another run makes while this one is at work are not made again."""

import apache_beam as beam
import pytest
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.testing.util import assert_that, equal_to

import transforms.render.skip_stored
import transforms.storage.retry
from transforms.panoramas.folder import plan_folder
from transforms.render.skip_stored import LOOKED_UP_AHEAD, SkipStored
from transforms.render.work import missing_shards
from transforms.storage.files import join, write_bytes
from transforms.storage.tally import NAMESPACE, TILES


def store(out, shard):
    write_bytes(join(plan_folder(out, shard.plan), shard.name), b"patches")


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_what_appears_before_its_turn_is_passed_over(where, plan_of, tmp_path):
    out = str(tmp_path) if where == "disk" else f"memory://skip/{tmp_path.name}"
    shards = list(missing_shards(plan_of(512, 64), (), 2))
    assert len(shards) == 16
    store(out, shards[0])

    def compute(shard):
        """Computes a shard, while another run makes the later ones."""
        if shard == shards[1]:
            for later in shards[2 + LOOKED_UP_AHEAD :]:
                store(out, later)
        return shard.name

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        computed = pipeline | beam.Create(shards) | SkipStored(out, True) | beam.Map(compute)
        assert_that(computed, equal_to([shard.name for shard in shards[1 : 2 + LOOKED_UP_AHEAD]]))


def test_what_is_passed_over_counts_as_stored(plan_of, tmp_path):
    """A job that a runner has started again reports what is there, not what its last attempt did."""
    shards = list(missing_shards(plan_of(512, 64), (), 2))
    for shard in shards[:10]:
        store(str(tmp_path), shard)
    pipeline = beam.Pipeline(runner="FnApiRunner")
    _ = pipeline | beam.Create(shards) | SkipStored(str(tmp_path), True)
    result = pipeline.run()
    (counter,) = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE).with_name(TILES))["counters"]
    assert counter.committed == sum(len(shard.indices) for shard in shards[:10])


def test_a_store_that_does_not_answer_costs_no_shard(plan_of, tmp_path, monkeypatch):
    def is_stored(out, shard):
        raise TimeoutError("the store did not answer")

    monkeypatch.setattr(transforms.render.skip_stored, "is_stored", is_stored)
    monkeypatch.setattr(transforms.storage.retry, "WAITS_S", ())
    shards = list(missing_shards(plan_of(128, 64), (), 2))
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        passed = pipeline | beam.Create(shards) | SkipStored(str(tmp_path), True)
        assert_that(passed | beam.Map(lambda shard: shard.name), equal_to([shard.name for shard in shards]))
