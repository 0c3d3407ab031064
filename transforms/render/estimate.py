"""Estimates what a render job will do and store, before it starts."""

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from functools import reduce

from model.cost import spent
from model.world.scale import ScaledConfig
from transforms.panoramas.plan import Plan
from transforms.render.work import Work

SHARD_BYTES_PER_PX = 1.9
BYTES_PER_PX = {"png": 1.7, "tif": 2.4, "dzi": 0.5, "zarr": 2.2, "jpg": 0.3, "webp": 0.26}
"""The bytes per pixel of each format, measured on 2048×512 px of the bundled checkpoint's world 7."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The amount of a job's work.

    Attributes:
        requests: the number of requested panoramas.
        complete: the number of those that are complete.
        shards: the number of shards to make.
        tiles: the number of tiles to compute.
        pixels: the number of pixels of all panoramas.
        shard_bytes: the approximate size of the shards to make.
        panorama_bytes: the approximate size of the panorama files that are missing.
        multiply_adds: the approximate number of multiply-adds in the convolutions of the tiles to compute.
    """

    requests: int
    complete: int
    shards: int
    tiles: int
    pixels: int
    shard_bytes: float
    panorama_bytes: float
    multiply_adds: float


def estimate(works: Iterable[Work], networks_of: Callable[[Plan], ScaledConfig]) -> Estimate:
    """Estimates work, given a function that returns the networks of a plan."""

    def of(work: Work) -> Estimate:
        plan, tiles = work.plan, work.tiles
        pixels = plan.request.width_px * plan.request.height_px
        stored = sum(BYTES_PER_PX[name] for name in plan.request.formats) * pixels * (work.record is None)
        of_shards = pixels * tiles / plan.tiles * SHARD_BYTES_PER_PX
        config = networks_of(plan)
        cost = tiles * spent(config.base, *plan.computed(plan.tiles // 2), config.stages).network
        return Estimate(1, int(work.record is not None), work.shard_count, tiles, pixels, of_shards, stored, cost)

    return total(map(of, works))


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Adds estimates."""
    return reduce(added, estimates, Estimate(0, 0, 0, 0, 0, 0.0, 0.0, 0.0))


def added(one: Estimate, other: Estimate) -> Estimate:
    """Adds two estimates."""
    return Estimate(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))
