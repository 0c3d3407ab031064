"""Panoramas are finished as their patches are."""

import threading
import time

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

import transforms.panoramas.patch_shards
import transforms.render.publish
from transforms.panoramas.folder import existing_shards
from transforms.panoramas.patch_shards import write_patch_shard
from transforms.render.publish import FAILURES, PublishShards, Remaining
from transforms.render.work import missing_shards


class StoreError(Exception):
    """An error that a store may raise, which is not an OSError."""


def in_parts(plan, painted, tiles_per_shard):
    return [(shard, painted.samples(shard)) for shard in missing_shards(plan, [], tiles_per_shard)]


def test_a_shard_that_cannot_be_written_does_not_stop_the_others(plan_of, painted, tmp_path, monkeypatch):
    plan = plan_of(150, 70)
    pairs = in_parts(plan, painted, 4)
    names = [shard.name for shard, _ in pairs]
    original = transforms.panoramas.patch_shards.open_atomic

    def open_atomic(url):
        if url.endswith(names[1]):
            raise OSError(28, "No space left on device", url)
        if url.endswith(names[3]):
            raise StoreError("503 try later")
        return original(url)

    monkeypatch.setattr(transforms.panoramas.patch_shards, "open_atomic", open_atomic)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        results = pipeline | beam.Create(pairs) | PublishShards(str(tmp_path), True, "1")
        assert_that(results.rows, equal_to([]), label="rows")
        reasons = results[FAILURES] | beam.Map(
            lambda f: (f.request_id, f.part, f.reason.split(": ")[0], f.reason[-11:])
        )
        expected = [
            ("p", names[1], "cannot be written", "/04-07.tar'"),
            ("p", names[3], "cannot be written", "3 try later"),
        ]
        assert_that(reasons, equal_to(expected), label="failed")
    assert sorted(path.name for path in tmp_path.rglob("*.tar")) == [names[i] for i in (0, 2, 4)]


def test_a_shard_is_written_while_the_next_is_computed(plan_of, painted, tmp_path, monkeypatch):
    """The first shard's file opens only when the second shard is being computed."""
    plan, original = plan_of(150, 70), transforms.panoramas.patch_shards.open_atomic
    shards, mark = list(missing_shards(plan, [], 4)), tmp_path / "mark"  # a file, because Beam copies what it runs

    def compute(shard):
        if shard.first > 0:
            mark.touch()
        return shard, painted.samples(shard)

    def open_atomic(url):
        late = time.monotonic() + 20
        while not mark.exists():
            assert time.monotonic() < late
            time.sleep(0.01)
        return original(url)

    monkeypatch.setattr(transforms.panoramas.patch_shards, "open_atomic", open_atomic)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = pipeline | beam.Create(shards) | beam.Map(compute) | PublishShards(str(tmp_path), True, "1")
    assert existing_shards(str(tmp_path), plan) == shards


@pytest.mark.parametrize("tiles_per_shard", [3, 100])
@pytest.mark.parametrize("keep_patches", [True, False])
def test_a_panorama_is_finished_before_the_next_is_computed(tiles_per_shard, keep_patches, plan_of, painted, tmp_path):
    """Each waits for the one before it to be finished, which it would do in vain if all were assembled at the end."""
    plans = [plan_of(90, 70, id=f"p{number}") for number in range(3)]
    shards = [shard for plan in plans for shard in missing_shards(plan, [], tiles_per_shard)]

    def compute(shard):
        # A panorama of several shards is assembled while the next one is computed.
        number = int(shard.plan.request.id[1:]) - (1 if tiles_per_shard == 100 else 2)
        late = time.monotonic() + 20
        while number >= 0 and not (tmp_path / "panoramas" / f"p{number}.json").exists():
            assert time.monotonic() < late
            time.sleep(0.01)
        return shard, painted.samples(shard)

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        made = pipeline | beam.Create(shards) | beam.Map(compute)
        results = made | PublishShards(str(tmp_path), keep_patches, "1")
        states = results.rows | beam.Map(lambda row: (row["id"], row["state"]))
        assert_that(states, equal_to([(f"p{number}", "done") for number in range(3)]))
    for plan in plans:
        assert len(existing_shards(str(tmp_path), plan)) == (len(shards) // 3 if keep_patches else 0)
        assert (tmp_path / "patches" / plan.request.id / plan.digest).exists() == keep_patches


def test_a_panorama_made_in_memory_equals_one_made_from_its_patches(plan_of, painted, tmp_path, contents):
    plan = plan_of(150, 70, formats=("png", "tif"))
    for name, keep_patches, tiles in (("kept", True, 100), ("not kept", False, 100), ("parts", True, 4)):
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            pairs = pipeline | beam.Create(in_parts(plan, painted, tiles))
            _ = pairs | PublishShards(str(tmp_path / name), keep_patches, "1")
    kept, parts = contents(tmp_path / "kept" / "panoramas"), contents(tmp_path / "parts" / "panoramas")
    assert kept == parts == contents(tmp_path / "not kept" / "panoramas")
    assert set(kept) == {"p.png", "p.tif", "p.json"}


def test_a_panorama_that_cannot_be_assembled_is_a_failure_and_costs_no_other(
    plan_of, painted, tmp_path, monkeypatch, capsys
):
    plans = [plan_of(90, 70, id=name) for name in ("p", "q")]
    original = transforms.render.publish.write_files

    def write_files(out, plan, *arguments):
        if plan.request.id == "p":
            raise StoreError("503 try later")
        return original(out, plan, *arguments)

    monkeypatch.setattr(transforms.render.publish, "write_files", write_files)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        pairs = [pair for plan in plans for pair in in_parts(plan, painted, 100)]
        results = pipeline | beam.Create(pairs) | PublishShards(str(tmp_path), True, "1")
        assert_that(results.rows | "ids" >> beam.Map(lambda row: row["id"]), equal_to(["q"]), label="rows")
        reasons = results[FAILURES] | beam.Map(lambda failure: (failure.request_id, failure.reason))
        assert_that(reasons, equal_to([("p", "503 try later")]), label="failed")
    assert "p cannot be assembled: 503 try later; it is tried again at the end" in capsys.readouterr().err


def test_who_writes_all_shards_sees_the_last(plan_of, painted, tmp_path):
    remaining, pairs = Remaining(str(tmp_path)), in_parts(plan_of(150, 70), painted, 2)
    for shard, samples in pairs:
        write_patch_shard(str(tmp_path), shard, samples)
        assert remaining.is_last(shard) == (shard == pairs[-1][0])
    assert remaining.lists == {}


def test_panoramas_that_others_complete_do_not_fill_the_memory(plan_of, painted, tmp_path, monkeypatch):
    monkeypatch.setattr(transforms.render.publish, "MOST_LISTINGS", 3)
    remaining = Remaining(str(tmp_path))
    firsts = [in_parts(plan_of(150, 70, id=f"p{number}"), painted, 2)[0][0] for number in range(5)]
    assert not any(map(remaining.is_last, firsts))
    assert [plan.request.id for plan in remaining.lists] == ["p2", "p3", "p4"]


def test_of_shards_that_are_written_at_once_one_is_the_last(plan_of, painted, tmp_path):
    remaining, pairs = Remaining(str(tmp_path)), in_parts(plan_of(150, 70), painted, 2)
    for shard, samples in pairs:
        write_patch_shard(str(tmp_path), shard, samples)
    assert [remaining.is_last(shard) for shard, _ in pairs] == [True] + [False] * (len(pairs) - 1)


def test_folders_are_not_listed_for_every_shard(plan_of, painted, tmp_path, monkeypatch):
    """Otherwise the listings of a panorama of many shards would grow with their square."""
    plan, listings = plan_of(320, 320), []

    def slow(out, plan):
        listings.append(plan)
        time.sleep(0.02)
        return existing_shards(out, plan)

    monkeypatch.setattr(transforms.panoramas.patch_shards, "existing_shards", slow)
    remaining, lasts = Remaining(str(tmp_path)), []
    for shard, samples in in_parts(plan, painted, 1):
        write_patch_shard(str(tmp_path), shard, samples)
        lasts.append(remaining.is_last(shard))
    assert lasts == [False] * (plan.tiles - 1) + [True]
    assert len(listings) < plan.tiles / 3


def test_several_workers_never_take_what_is_not_complete_for_complete(plan_of, painted, tmp_path):
    plan, found = plan_of(320, 70), []
    pairs = in_parts(plan, painted, 1)

    def work(mine):
        remaining = Remaining(str(tmp_path))
        for shard, samples in mine:
            write_patch_shard(str(tmp_path), shard, samples)
            if remaining.is_last(shard):
                found.append(len(existing_shards(str(tmp_path), plan)))

    threads = [threading.Thread(target=work, args=(pairs[first::2],)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {len(pairs)}
