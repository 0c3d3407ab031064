"""What a render job keeps in its folder, and what is already there of a plan.

patches/<id>/<plan>/plan.json              the plan
patches/<id>/<plan>/<first>-<last>.tar     patches of consecutive tiles
panoramas/<id>.{png,tif}                   the panorama
panoramas/<id>.json                        what it is; written last
manifest.parquet                           one row a request
"""

import re
from typing import Any

from model.errors import InputError
from transforms.plan import PatchShard, Plan
from transforms.storage import filesystem, join, list_files, read_json, remove_leftovers

PATCHES, PANORAMAS, PLAN_FILE = "patches", "panoramas", "plan.json"
_SHARD_NAME = re.compile(r"(\d+)-(\d+)\.tar")


def plan_folder(out: str, plan: Plan) -> str:
    """Where a plan's patch shards are."""
    return join(out, PATCHES, plan.request.id, plan.digest)


def panorama_path(out: str, file: str) -> str:
    """Where a file of a panorama is."""
    return join(out, PANORAMAS, file)


def existing_shards(out: str, plan: Plan) -> list[PatchShard]:
    """The plan's shards on storage, of whatever sizes, by their first tiles. One that exists is whole."""
    names = set(list_files(plan_folder(out, plan)))
    ranges = {(int(match[1]), int(match[2])) for match in map(_SHARD_NAME.fullmatch, names) if match}
    shards = [PatchShard(plan, first, last) for first, last in ranges if first <= last < plan.tiles]
    return sorted((shard for shard in shards if shard.name in names), key=lambda shard: (shard.first, shard.last))


def other_plans(out: str, plan: Plan) -> list[str]:
    """URLs of the folders of other plans under the same id."""
    fs, path = filesystem(join(out, PATCHES, plan.request.id))
    if not fs.isdir(path):
        return []
    names = [entry["name"].rstrip("/").rsplit("/", 1)[1] for entry in fs.ls(path, detail=True)]
    return [join(out, PATCHES, plan.request.id, name) for name in names if name != plan.digest]


def record_path(out: str, request_id: str) -> str:
    """Where the JSON of a panorama is."""
    return panorama_path(out, f"{request_id}.json")


def read_record(out: str, request_id: str) -> dict[str, Any]:
    """What the JSON of a panorama says; nothing where there is none, or a damaged one."""
    try:
        record = read_json(record_path(out, request_id))
    except (FileNotFoundError, InputError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else {}


def check_plan(out: str, plan: Plan) -> None:
    """Raises InputError if the request's id is known under another plan."""
    if other_plans(out, plan) or read_record(out, plan.request.id).get("plan", plan.digest) != plan.digest:
        raise InputError(
            f"{out} already holds panorama {plan.request.id} by another plan (another seed, size, origin, checkpoint "
            "or tile); choose another id or --out, or add --replace to render it anew"
        )


def clear(out: str, plan: Plan) -> None:
    """Removes what killed runs left, and the patches and panorama of a plan that is being replaced."""
    for folder in other_plans(out, plan):
        fs, path = filesystem(folder)
        fs.rm(path, recursive=True)
    record = read_record(out, plan.request.id)
    if record.get("plan", plan.digest) != plan.digest:
        for file in (*record["files"].values(), f"{plan.request.id}.json"):
            fs, path = filesystem(panorama_path(out, file))
            if fs.exists(path):
                fs.rm_file(path)
    for folder in (plan_folder(out, plan), join(out, PANORAMAS), out):
        remove_leftovers(folder)
