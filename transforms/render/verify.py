"""Recomputes rendered tiles and compares them with the stored ones."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from model.bundled import BUNDLED
from model.errors import InputError
from model.world.detailed import DetailedWorld
from model.world.world import World
from transforms.formats.layout import cut_strips, with_digest
from transforms.panoramas.folder import read_record, record_path
from transforms.panoramas.manifest import DONE, MANIFEST, stream_manifest
from transforms.panoramas.patch_shards import DamagedShardError, PatchReader
from transforms.panoramas.plan import Plan, plan_from_json
from transforms.render.synthesize import Synthesizer, patch
from transforms.storage.files import exists, join

MOST_WHOLE_PX = 2**23
"""The largest panorama that is computed as a whole."""

EQUAL, ROUNDING, DIFFERENT = "equal", "equal to rounding", "different"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison of a recomputed tile with the stored one.

    Attributes:
        request_id: the id of the panorama.
        index: the index of the tile.
        max_difference: the largest difference, of 255.
        differing_share: the share of the pixels that differ at all.
        reason: the reason why the stored tile cannot be compared, if so.
    """

    request_id: str
    index: int
    max_difference: int = 0
    differing_share: float = 0.0
    reason: str = ""

    @property
    def state(self) -> str:
        """Equal bit for bit; equal to rounding, which another kind of device is allowed (promise 2); or different."""
        if self.reason or self.max_difference > 1 or self.differing_share >= 1e-3:
            return DIFFERENT
        return ROUNDING if self.max_difference else EQUAL


def finished_plans(out: str, checkpoint: str | None) -> list[Plan]:
    """Returns the plans of all finished panoramas in a folder, from their records.

    Args:
        out: the folder of a render job.
        checkpoint: the URL of the generator for requests that name none; None for the bundled one.

    Raises:
        InputError: the folder holds no panorama, or a record is damaged.
    """
    if not exists(join(out, MANIFEST)):
        raise InputError(f"{out} does not contain {MANIFEST}; give the --out of a render job")
    ids = [row["id"] for row in stream_manifest(out) if row["state"] == DONE]
    if not ids:
        raise InputError(f"{out} holds no finished panorama; render it first")
    plans = []
    for request_id in ids:
        record = read_record(out, request_id)
        url = record.get("request", {}).get("checkpoint") or checkpoint or BUNDLED
        plans.append(plan_from_json(record, url, record_path(out, request_id)))
    return plans


def draw_tiles(plans: Sequence[Plan], count: int, seed: int) -> list[tuple[Plan, int]]:
    """Draws random tiles of all panoramas, each tile equally likely, without repetition."""
    total = sum(plan.tiles for plan in plans)
    chosen = sorted(Random(seed).sample(range(total), min(count, total)))
    tiles, first, places = [], 0, iter(plans)
    plan = next(places)
    for number in chosen:
        while number >= first + plan.tiles:
            first, plan = first + plan.tiles, next(places)
        tiles.append((plan, number - first))
    return tiles


def verify_tiles(out: str, tiles: Sequence[tuple[Plan, int]]) -> Iterator[Verdict]:
    """Recomputes tiles and compares them with the stored patches.

    A panorama whose patches were not kept is recomputed as a whole and compared with the checksum in its record.
    """
    synthesizer = Synthesizer()
    for plan, chosen in itertools.groupby(tiles, key=lambda tile: tile[0]):
        reader, world = PatchReader(out, plan), synthesizer.world_of(plan)
        indices = [index for _, index in chosen]
        if not reader.shards:
            yield whole_verdict(out, plan, world, indices[0])
            continue
        for index in indices:
            try:
                stored = reader.patch(index).pixels
            except (FileNotFoundError, DamagedShardError) as error:
                yield Verdict(plan.request.id, index, reason=str(error))
                continue
            again = patch(world, plan, index).pixels
            difference = np.abs(again.astype(np.int16) - stored).max(axis=2)
            yield Verdict(plan.request.id, index, int(difference.max()), float((difference > 0).mean()))


def whole_verdict(out: str, plan: Plan, world: World | DetailedWorld, index: int) -> Verdict:
    """Compares a panorama without patches with the checksum in its record."""
    if plan.request.width_px * plan.request.height_px > MOST_WHOLE_PX:
        reason = "its patches were not kept, and it is too large to compute as a whole"
        return Verdict(plan.request.id, index, reason=reason)
    digest = hashlib.sha256()
    pixels = (patch(world, plan, tile).pixels for tile in range(plan.tiles))
    for _ in with_digest(cut_strips(plan.layout, pixels), digest):
        pass
    if digest.hexdigest() == read_record(out, plan.request.id).get("pixel_sha256"):
        return Verdict(plan.request.id, index)
    reason = "its pixels differ from the checksum in its record; its patches were not kept, so it is not known how much"
    return Verdict(plan.request.id, index, reason=reason)
