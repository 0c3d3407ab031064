"""What a render job would do and store, before it does."""

from collections.abc import Collection
from dataclasses import dataclass

from transforms.ahead import map_ahead
from transforms.plan import Plan
from transforms.plan_tiles import Found, shards_to_do
from transforms.render_folder import is_complete, known_ids
from transforms.retry import retried

STORAGE_CALLS = 16

SHARD_BYTES_PER_PX = 1.9
BYTES_PER_PX = {"png": 1.7, "tif": 2.4, "dzi": 0.5, "zarr": 2.2, "jpg": 0.3, "webp": 0.26}
"""Measured on 2048×512 px of the bundled checkpoint's world 7."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job would do.

    Attributes:
        requests: panoramas asked for.
        complete: those of them that are there.
        shards: to be made.
        tiles: to be computed.
        pixels: of all panoramas.
        shard_bytes: that the shards to be made take, roughly.
        panorama_bytes: that the files of panoramas not there yet take, roughly.
    """

    requests: int
    complete: int
    shards: int
    tiles: int
    pixels: int
    shard_bytes: float
    panorama_bytes: float


def estimate(out: str, plans: Collection[Plan], tiles_per_shard: int) -> Estimate:
    """What rendering these plans to a folder would do, by what is there."""
    found = Found(retried(known_ids, out))

    def of_plan(plan: Plan) -> Estimate:
        complete = plan.request.id in found.known and retried(is_complete, out, plan)
        shards = list(shards_to_do(out, plan, tiles_per_shard, found))
        tiles = sum(len(shard.indices) for shard in shards)
        pixels = plan.request.width_px * plan.request.height_px
        stored = sum(BYTES_PER_PX[name] for name in plan.request.formats) * pixels * (not complete)
        of_shards = pixels * tiles / plan.tiles * SHARD_BYTES_PER_PX
        return Estimate(1, int(complete), len(shards), tiles, pixels, of_shards, stored)

    each = map_ahead(of_plan, plans, threads=STORAGE_CALLS, ahead=2 * STORAGE_CALLS)
    requests = complete = shards = tiles = pixels = 0
    shard_bytes = panorama_bytes = 0.0
    for one in each:
        requests, complete, shards = requests + 1, complete + one.complete, shards + one.shards
        tiles, pixels = tiles + one.tiles, pixels + one.pixels
        shard_bytes, panorama_bytes = shard_bytes + one.shard_bytes, panorama_bytes + one.panorama_bytes
    return Estimate(requests, complete, shards, tiles, pixels, shard_bytes, panorama_bytes)
