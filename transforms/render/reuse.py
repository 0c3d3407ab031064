"""Patches of an earlier plan that an edit leaves unchanged, copied instead of computed again."""

import itertools
import operator
from collections.abc import Iterable, Iterator

from model import geometry
from model.errors import InputError
from model.world.definition import Edit
from model.world.latents import patchwork
from model.world.scale import ScaledConfig, base_edit
from transforms.panoramas.folder import PLAN_FILE, existing_shards
from transforms.panoramas.patch_shards import DamagedShardError, PatchReader, write_patch_shard
from transforms.panoramas.patches import encode_patch
from transforms.panoramas.plan import MOST_TILES_PER_SHARD, PatchShard, Plan
from transforms.panoramas.requests import from_json
from transforms.render.work import missing_shards
from transforms.storage.files import join, read_json
from transforms.storage.notes import say_once


def reuse_patches(out: str, plan: Plan, others: Iterable[str], config: ScaledConfig) -> int:
    """Copies patches from plans of the same id that differ only in edits; returns their number.

    A tile is copied if no edit that only one of the two plans has reaches it, or the strips around it.

    Args:
        out: the folder of the job.
        plan: the plan to render.
        others: the URLs of the folders of the other plans.
        config: the networks of the plan.
    """
    adopted = 0
    for donor in donors(others, plan):
        edits = {*plan.request.edits[shared(plan, donor) :], *donor.request.edits[shared(plan, donor) :]}
        reader = PatchReader(out, donor)
        held = {index for _, indices in reader.parts() for index in indices}
        wanted = (index for shard in missing_shards(plan, existing_shards(out, plan), 1) for index in shard.indices)
        free = [i for i in wanted if i in held and not any(touches(edit, plan, i, config) for edit in edits)]
        for shard in runs(plan, free):
            try:
                write_patch_shard(out, shard, (encode_patch(plan, reader.patch(index)) for index in shard.indices))
            except DamagedShardError as error:
                say_once(f"{error}; its tiles are computed again")
            else:
                adopted += len(shard.indices)
    return adopted


def donors(folders: Iterable[str], plan: Plan) -> Iterator[Plan]:
    """Yields the plans of folders with the same id that differ from this one only in edits."""
    for folder in folders:
        try:
            donor = plan.with_edits(
                from_json(tuple[Edit, ...], read_json(join(folder, PLAN_FILE))["request"]["edits"], folder)
            )
        except (FileNotFoundError, InputError, KeyError, TypeError):
            continue  # not written by this version, or damaged, so of no use here
        if folder.endswith(f"/{donor.digest}"):
            yield donor


def shared(plan: Plan, donor: Plan) -> int:
    """Returns the number of edits that two plans have in common at the start."""
    pairs = zip(plan.request.edits, donor.request.edits, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def touches(edit: Edit, plan: Plan, index: int, config: ScaledConfig) -> bool:
    """Returns whether an edit can change any pixel that a tile computes, including those beyond its border."""
    rows, columns = (config.computed(window) for window in plan.computed(index))
    reached = base_edit(edit, plan.request.scale).reach(config.base)
    reach_rows, reach_columns = (config.reach(window) for window in reached)
    turn_px = plan.request.turn_px
    meets = (
        geometry.overlap(ours, theirs)
        for ours, _ in patchwork(columns, turn_px)
        for theirs, _ in patchwork(reach_columns, turn_px)
    )
    return geometry.overlap(rows, reach_rows) is not None and any(meets)


def runs(plan: Plan, indices: list[int]) -> Iterator[PatchShard]:
    """Yields shards of consecutive tiles."""
    key = operator.itemgetter(0)
    numbered = [((index - place, index // MOST_TILES_PER_SHARD), index) for place, index in enumerate(indices)]
    for _, group in itertools.groupby(numbered, key=key):
        tiles = [index for _, index in group]
        yield PatchShard(plan, tiles[0], tiles[-1])
