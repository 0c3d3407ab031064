"""Repair: stored shards held against their checksums, and the bad ones taken away."""

from collections.abc import Callable, Iterable

from transforms.panoramas.folder import plan_folder
from transforms.panoramas.patch_shards import DamagedShardError, StoredShard
from transforms.panoramas.plan import PatchShard, Plan
from transforms.storage.files import join, remove
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried

Damaged = dict[Plan, tuple[PatchShard, ...]]


def remove_damaged(out: str, shards: Iterable[PatchShard], done: Callable[[], None]) -> Damaged:
    """Removes the shards that are not what was written; returns them, by plan.

    Args:
        out: folder of a render job.
        shards: that are there.
        done: called after each.
    """
    damaged: Damaged = {}
    for shard, whole in map_ahead(lambda shard: (shard, is_whole(out, shard)), shards):
        if not whole:
            retried(remove, join(plan_folder(out, shard.plan), shard.name))
            damaged[shard.plan] = (*damaged.get(shard.plan, ()), shard)
        done()
    return damaged


def is_whole(out: str, shard: PatchShard) -> bool:
    """Returns whether every patch of a shard agrees with its checksums."""
    try:
        stored = StoredShard(shard.plan, join(plan_folder(out, shard.plan), shard.name))
        for index in shard.indices:
            stored.patch(index)
    except DamagedShardError:
        return False
    return True
