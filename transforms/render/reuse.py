"""Patches of an earlier plan that an edit leaves as they are, taken over instead of computed again."""

import itertools
import operator
from collections.abc import Iterable, Iterator

from model import geometry
from model.config import GeneratorConfig
from model.errors import InputError
from model.geometry import Window
from model.world.definition import Edit
from model.world.latents import patchwork
from transforms.panoramas.folder import PLAN_FILE, existing_shards
from transforms.panoramas.patch_shards import DamagedShardError, PatchReader, write_patch_shard
from transforms.panoramas.patches import encode_patch
from transforms.panoramas.plan import MOST_TILES_PER_SHARD, PatchShard, Plan
from transforms.panoramas.requests import parts
from transforms.render.work import missing_shards
from transforms.storage.files import join, read_json
from transforms.storage.notes import say_once


def adopt_patches(out: str, plan: Plan, others: Iterable[str], config: GeneratorConfig) -> int:
    """Copies patches from plans of the same id that differ in edits only; returns how many.

    A tile is taken over if no edit that only one of the two plans has reaches it, or the strips around it.

    Args:
        out: folder of the job.
        plan: to be made.
        others: URLs of the folders of the other plans.
        config: the network of the plan.
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
    """The plans of folders under the same id that differ from this one in edits only."""
    for folder in folders:
        try:
            donor = plan.with_edits(parts(Edit, read_json(join(folder, PLAN_FILE))["request"]["edits"], folder))
        except (FileNotFoundError, InputError, KeyError, TypeError):
            continue  # not written by this version, or damaged: of no use here
        if folder.endswith(f"/{donor.digest}"):
            yield donor


def shared(plan: Plan, donor: Plan) -> int:
    """Returns how many edits two plans begin with alike."""
    pairs = zip(plan.request.edits, donor.request.edits, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def touches(edit: Edit, plan: Plan, index: int, config: GeneratorConfig) -> bool:
    """Returns whether an edit can change any pixel that a tile computes, those beyond its border among them."""
    rows, columns = (computed(window, config) for window in plan.pixels(plan.tile(index)))
    reach_rows, reach_columns = edit.reach(config)
    turn_px = plan.request.definition.cyclic_px
    meets = (
        geometry.overlap(ours, theirs)
        for ours, _ in patchwork(columns, turn_px)
        for theirs, _ in patchwork(reach_columns, turn_px)
    )
    return geometry.overlap(rows, reach_rows) is not None and any(meets)


def computed(window: Window, config: GeneratorConfig) -> Window:
    """Returns all pixels that a tile of this window computes."""
    return geometry.forward(config.texture, geometry.backward(config.texture, window))


def runs(plan: Plan, indices: list[int]) -> Iterator[PatchShard]:
    """Shards of consecutive tiles."""
    key = operator.itemgetter(0)
    numbered = [((index - place, index // MOST_TILES_PER_SHARD), index) for place, index in enumerate(indices)]
    for _, group in itertools.groupby(numbered, key=key):
        tiles = [index for _, index in group]
        yield PatchShard(plan, tiles[0], tiles[-1])
