"""Checks stored shards against their checksums and removes damaged ones."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from transforms.panoramas.folder import plan_folder
from transforms.panoramas.patch_shards import DamagedShardError, StoredShard
from transforms.panoramas.plan import PatchShard, Plan
from transforms.storage.files import join, remove_unchanged, version_of
from transforms.storage.prefetch import map_ahead
from transforms.storage.retry import retried

Damaged = dict[Plan, tuple[PatchShard, ...]]


def remove_damaged(out: str, shards: Iterable[PatchShard], done: Callable[[], None] = lambda: None) -> Damaged:
    """Removes damaged shards, unless another run makes them again at the same time; returns them, by plan.

    Args:
        out: the folder of a render job.
        shards: the existing shards.
        done: the function called after each shard.
    """
    damaged: Damaged = defaultdict(tuple)

    def look(shard: PatchShard) -> tuple[PatchShard, str | None, bool]:
        return shard, retried(version_of, join(plan_folder(out, shard.plan), shard.name)), is_whole(out, shard)

    for shard, version, whole in map_ahead(look, shards):
        if not whole:
            retried(remove_unchanged, join(plan_folder(out, shard.plan), shard.name), version, out)
            damaged[shard.plan] += (shard,)
        done()
    return damaged


def is_whole(out: str, shard: PatchShard) -> bool:
    """Returns whether every patch of a shard matches its checksums."""
    try:
        stored = StoredShard(shard.plan, join(plan_folder(out, shard.plan), shard.name))
        for index in shard.indices:
            stored.patch(index)
    except DamagedShardError:
        return False
    return True
