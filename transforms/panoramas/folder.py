"""The files of a render job's folder, and which of a plan's files exist.

patches/<id>/<plan>/plan.json              the plan
patches/<id>/<plan>/<first>-<last>.tar     patches of consecutive tiles
panoramas/<id>.{png,tif,…}                 the panorama, in each requested format
panoramas/<id>.json                        its record; written last
thumbnails/<id>.jpg                        its thumbnail
manifest.parquet                           one row per request
index.html                                 the same as a page with the thumbnails
"""

import dataclasses
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from fsspec import AbstractFileSystem

from model.errors import InputError
from transforms.formats.registry import FORMATS, is_one_file, is_written, remove_panorama
from transforms.panoramas.plan import PatchShard, Plan, plan_from_json
from transforms.panoramas.tiling import tile_size
from transforms.storage.fence import Fence, Fenced, StaleRunError, alone_in
from transforms.storage.files import exists, filesystem, join, list_files, read_json, remove, write_json
from transforms.storage.notes import say_once

PATCHES, PANORAMAS, THUMBNAILS, PLAN_FILE = "patches", "panoramas", "thumbnails", "plan.json"
FOLDERS = (PATCHES, PANORAMAS, THUMBNAILS, "requests", "watched")
"""The folders that a job writes to, below its own."""

RECORD = "json"
"""The suffix of a panorama's record."""

_SHARD_NAME = re.compile(r"(\d+)-(\d+)\.tar")
DIGEST = re.compile(r"[0-9a-f]{12}")

_PARTS = ("files", "request", "seam_audit", "precision_difference")
"""Objects within a record. One that is missing or null is read as empty."""

KEPT = ("plan", "tile_px", "files", "pixel_sha256", "seam_audit", "precision_difference")
"""The fields of a panorama's record that a job keeps in memory for each existing panorama."""


class SeamDifferences(TypedDict):
    """The figures of a `SeamAudit`.

    Attributes:
        borders: the number of pairs of neighbouring tiles that were compared.
        max_difference: the largest difference, of 255.
        differing_share: the share of the values that differ at all.
    """

    borders: int
    max_difference: int
    differing_share: float


class PrecisionDifference(TypedDict):
    """A `Difference`: the largest and the mean between a reduced precision and float32 on a tile, of 255."""

    max: int
    mean: float


class PanoramaRecord(TypedDict, total=False):
    """The record of a panorama: the provenance of its plan, and what was written. It is empty if there is none.

    Attributes:
        plan: the digest of the plan.
        request: the request, as JSON.
        tile_px: the size of its tiles, as in a plan's JSON.
        version: the version of this package.
        width_px: the panorama's width.
        height_px: the panorama's height.
        files: the names of its files by format.
        pixel_sha256: the SHA-256 of its pixels.
        seam_audit: the differences between neighbouring tiles.
        precision_difference: the difference from float32; None or empty if it was not measured.
    """

    plan: str
    request: dict[str, Any]
    tile_px: int | list[int]
    version: str
    width_px: int
    height_px: int
    files: dict[str, str]
    pixel_sha256: str
    seam_audit: SeamDifferences
    precision_difference: PrecisionDifference | None


@dataclass(frozen=True, slots=True)
class Held:
    """The contents of the folder under the id of a plan.

    Attributes:
        others: the URLs of the folders of its other plans.
        record: the fields `KEPT` of its panorama's record; empty if there is none.
    """

    others: tuple[str, ...]
    record: PanoramaRecord

    def is_of(self, plan: Plan) -> bool:
        """Returns whether there is nothing of another plan."""
        return not self.others and self.record.get("plan", plan.digest) == plan.digest


def plan_folder(out: str, plan: Plan) -> str:
    """Returns the folder of a plan's patch shards."""
    return join(out, PATCHES, plan.request.id, plan.digest)


def panorama_path(out: str, file: str) -> str:
    """Returns the path of a panorama's file."""
    return join(out, PANORAMAS, file)


def existing_shards(out: str, plan: Plan) -> list[PatchShard]:
    """Returns the plan's shards on storage, of any size, by their first tiles. A shard that exists is complete."""
    names = set(list_files(plan_folder(out, plan)))
    ranges = {(int(match[1]), int(match[2])) for match in map(_SHARD_NAME.fullmatch, names) if match}
    shards = [PatchShard(plan, first, last) for first, last in ranges if first <= last < plan.tiles]
    return sorted((shard for shard in shards if shard.name in names), key=lambda shard: (shard.first, shard.last))


def is_stored(out: str, shard: PatchShard) -> bool:
    """Returns whether a shard exists."""
    fs, path = filesystem(join(plan_folder(out, shard.plan), shard.name))
    fs.invalidate_cache(fs._parent(path))
    return fs.exists(path)


def other_plans(out: str, plan: Plan) -> list[str]:
    """Returns the URLs of the folders of other plans with the same id."""
    fs, path = filesystem(join(out, PATCHES, plan.request.id))
    if not fs.isdir(path):
        return []
    folders = [entry["name"].rstrip("/") for entry in fs.ls(path, detail=True) if entry["type"] == "directory"]
    names = [name for name in map(posixpath.basename, folders) if DIGEST.fullmatch(name) and name != plan.digest]
    return [join(out, PATCHES, plan.request.id, name) for name in names]


def thumbnail_path(out: str, request_id: str) -> str:
    """Returns the path of a panorama's thumbnail."""
    return join(out, THUMBNAILS, f"{request_id}.jpg")


def record_path(out: str, request_id: str) -> str:
    """Returns the path of a panorama's record."""
    return panorama_path(out, f"{request_id}.{RECORD}")


def read_record(out: str, request_id: str) -> PanoramaRecord:
    """Returns a panorama's record; empty if there is none or, after a line on stderr, if it is damaged."""
    url = record_path(out, request_id)
    try:
        record = read_json(url)
    except FileNotFoundError:
        return {}
    except InputError as error:
        say_once(f"{error}; it is ignored")
        return {}
    if not _is_record(record, request_id):
        say_once(f"{url} is not the record of panorama {request_id}; it is ignored")
        return {}
    parts = {name: record.get(name) or {} for name in _PARTS}
    files = {name: file for name, file in parts["files"].items() if name in FORMATS}
    return cast(PanoramaRecord, {**record, **parts, "files": files})


def _is_record(record: object, request_id: str) -> bool:
    """Returns whether a record can come from a job.

    Anyone may have put it there, and --replace removes the files that it names.
    """
    if not isinstance(record, dict) or not DIGEST.fullmatch(str(record.get("plan"))):
        return False
    parts = [record.get(name) or {} for name in _PARTS]
    if not all(isinstance(part, dict) for part in parts) or not isinstance(record.get("pixel_sha256", ""), str):
        return False
    files, _, *measured = parts
    return all(file == f"{request_id}.{name}" for name, file in files.items() if name in FORMATS) and all(
        isinstance(value, int | float) and 0 <= value < 2**31 for part in measured for value in part.values()
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What the names in the folder, and the manifest, say about an id; no file of it has been read.

    Attributes:
        has_patches: whether it has a folder in `PATCHES`.
        suffixes: the suffixes of its files in `PANORAMAS`: formats, and `RECORD`.
        plan: the digest of the plan of which the manifest says that it is done; empty if it says nothing.
        formats: the formats that the manifest lists for it.
    """

    has_patches: bool = True
    suffixes: frozenset[str] = frozenset()
    plan: str = ""
    formats: frozenset[str] = frozenset()

    def shows(self, plan: Plan) -> bool:
        """Returns whether all files of a finished panorama are there. False means that they must be looked up."""
        there = self.suffixes & self.formats if self.plan == plan.digest and RECORD in self.suffixes else frozenset()
        return all(name in there and is_one_file(name) for name in plan.request.formats)


def look_for(out: str, request_id: str) -> Known | None:
    """Returns whether the folder holds anything under an id, as an empty `Known`; None if not."""
    is_there = exists(join(out, PATCHES, request_id)) or exists(record_path(out, request_id))
    return Known() if is_there else None


def look_up(out: str, plan: Plan) -> Held:
    """Looks up the contents of the folder under the id of a plan."""
    record = read_record(out, plan.request.id)
    kept = {name: value for name, value in record.items() if name in KEPT}
    return Held(tuple(other_plans(out, plan)), cast(PanoramaRecord, kept))


def as_begun(plan: Plan, held: Held) -> tuple[Plan, Held]:
    """Returns the plan with the tiles with which its panorama was begun before, and the contents of its folder.

    A panorama that differs only in its edits counts too, because the tiles that they do not reach can be reused.
    """
    begun = next(_begun(plan, held), plan)
    others = (folder for folder in held.others if posixpath.basename(folder) != begun.digest)
    return begun, Held(tuple(others), held.record)


def _begun(plan: Plan, held: Held) -> Iterator[Plan]:
    """Yields a plan with the tiles of each other plan in the folder that differs in nothing else but its edits."""

    def besides(values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "tile_px": None, "request": {**values["request"], "edits": None}}

    for folder in held.others:
        with suppress(FileNotFoundError, InputError, KeyError, TypeError):  # not of this version, or damaged
            values = read_json(join(folder, PLAN_FILE))
            if besides(values) == besides(plan.pixels_json()):
                yield dataclasses.replace(plan, tile_px=tile_size(values["tile_px"]))
    with suppress(InputError, KeyError):  # without patches, there is only the record, and only the digest can tell
        recorded = dataclasses.replace(plan, tile_px=tile_size(held.record["tile_px"]))
        if recorded.digest == held.record["plan"]:
            yield recorded


def is_complete(out: str, plan: Plan, record: PanoramaRecord) -> bool:
    """Returns whether all requested files of a panorama, whose record is given, exist for this plan."""
    if record.get("plan") != plan.digest:
        return False
    files = [record["files"].get(name) for name in plan.request.formats]
    return all(f and is_written(n, panorama_path(out, f)) for n, f in zip(plan.request.formats, files, strict=True))


def stored_plan(out: str, request_id: str, digest: str, formats: Iterable[str]) -> Plan:
    """Reads a panorama's plan from its patches' folder, with further formats in addition to its own.

    Raises:
        InputError: the plan is missing or damaged, or a format cannot hold the panorama.
    """
    record, url = read_record(out, request_id), join(out, PATCHES, request_id, digest, PLAN_FILE)
    try:
        values = read_json(url)
    except FileNotFoundError:
        raise InputError(f"{url} is missing: the patches of {request_id} are gone; render it again") from None
    known = record["files"] if record.get("plan") == digest else {}
    if not isinstance(values, dict) or not isinstance(values.get("request"), dict):
        raise InputError(f"{url} is not a plan; render the panorama again")
    checkpoint = record.get("request", {}).get("checkpoint")
    request = {**values["request"], "id": request_id, "formats": sorted({*known, *formats}), "checkpoint": checkpoint}
    return plan_from_json({**values, "request": request, "plan": digest}, checkpoint or "", url)


@dataclass(frozen=True, slots=True)
class PlanFence(Fence):
    """Lets only the current plan of a panorama pass; all runs of a plan write the same bytes.

    Attributes:
        folder: the folder of the job.
        plan: the plan.
    """

    folder: str
    plan: Plan

    def refuse_stale(self, url: str, fs: AbstractFileSystem) -> None:
        """Looks for the plan and, if it is not stored, for another one with the same id."""
        if exists(join(plan_folder(self.folder, self.plan), PLAN_FILE)):
            return
        recorded = read_record(self.folder, self.plan.request.id).get("plan", self.plan.digest)
        others = [folder for folder in other_plans(self.folder, self.plan) if exists(join(folder, PLAN_FILE))]
        if recorded != self.plan.digest or others:
            raise StaleRunError(
                f"plan {self.plan.digest} of panorama {self.plan.request.id} was replaced: {url} is left as it is"
            )


def behind_plan(out: str, plan: Plan) -> str:
    """Returns the folder of a job for what a worker writes of a plan, behind the plan's fence."""
    return Fenced(out, PlanFence(str(out), plan))


def check_plan(out: str, plan: Plan, held: Held) -> None:
    """Raises InputError if the request's id exists with another plan."""
    if not held.is_of(plan):
        raise InputError(
            f"{out} already holds panorama {plan.request.id} with another plan (another seed, size, origin, checkpoint "
            "or tile); choose another id or --out, or add --replace to render it again"
        )


def begin(out: str, plan: Plan, held: Held | None, keeps_patches: bool = True) -> None:
    """Writes the plan to the folder of its patches, and removes all files of the plans that it replaces.

    Args:
        out: the folder of the job.
        plan: the plan.
        held: the contents of the folder under its id; None if the id is new to it.
        keeps_patches: whether there will be patches.
    """
    path = join(plan_folder(out, plan), PLAN_FILE)
    replaces = held is not None and not held.is_of(plan)
    with alone_in(out) if replaces else nullcontext():
        if (keeps_patches or replaces) and (held is None or not _says(path, plan)):
            write_json(path, plan.pixels_json())  # first, so that late workers of the other plans find it
        if held is not None and replaces:
            remove_replaced(out, plan, held)


def _says(url: str, plan: Plan) -> bool:
    """Returns whether the file at a URL is this plan."""
    try:
        return read_json(url) == plan.pixels_json()
    except (FileNotFoundError, InputError):
        return False


def remove_replaced(out: str, plan: Plan, held: Held) -> None:
    """Removes all files of other plans with the same id."""
    for folder in held.others:
        remove(join(folder, PLAN_FILE))  # first, because late workers of that plan look for it
        remove(folder)
    if held.record.get("plan", plan.digest) != plan.digest:
        for name, file in held.record["files"].items():
            remove_panorama(name, panorama_path(out, file))
        remove(record_path(out, plan.request.id))
