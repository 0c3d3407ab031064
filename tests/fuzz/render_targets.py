"""The inputs of render, info and related commands: requests, patch shards, and the files of a render folder."""

import dataclasses
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import aiohttp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ingest_targets import mutate_tar
from mutations import json_text, mutate, mutate_table, mutate_text, mutate_value, pack, unpack
from target import Target, folder_of, refused
from train_targets import CHECKPOINT_CONFIG, checkpoint_bytes

from model.world.definition import Edit
from model.world.scale import ScaledConfig
from pipelines.assemble import plans_to_assemble
from pipelines.info import describe, told
from pipelines.terminal.render_tables import Summary, show_cautions, show_refused, show_summary
from transforms.applications.edit import find_request
from transforms.formats.registry import FORMATS
from transforms.panoramas.folder import Known, begin, existing_shards, look_up, read_record
from transforms.panoramas.manifest import (
    MANIFEST,
    MANIFEST_SCHEMA,
    read_manifest,
    refused_row,
    write_manifest,
)
from transforms.panoramas.patch_shards import DamagedShardError, PatchReader, write_patch_shard
from transforms.panoramas.patches import Patch, encode_patch
from transforms.panoramas.plan import PatchShard, Plan
from transforms.panoramas.requests import (
    RenderRequest,
    RequestFile,
    Row,
    cautions,
    read_requests,
    short,
    write_requests,
)
from transforms.render.assemble import assemble_panorama
from transforms.render.estimate import estimate
from transforms.render.index_page import write_index
from transforms.render.intake import Intake
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner, check_out
from transforms.render.repair import is_whole
from transforms.render.reuse import reuse_patches
from transforms.render.verify import finished_plans

TILE_PX, OVERLAP_PX = 32, 3
HOME = tempfile.TemporaryDirectory(prefix="fuzz-")


@cache
def checkpoint_file() -> str:
    """Returns a checkpoint of a very small network."""
    path = Path(HOME.name) / "checkpoint.safetensors"
    path.write_bytes(checkpoint_bytes())
    return str(path)


# Requests

REQUESTS: list[dict[str, Any]] = [
    {"id": "a", "seed": 7, "width_px": 4096, "height_px": 512, "formats": ["png", "tif"]},
    {
        "id": "b",
        "seed": 2**64 - 1,
        "width_px": 1152,
        "height_px": 64,
        "origin_x_px": -70,
        "origin_y_px": 9,
        "cyclic": True,
    },
    {
        "id": "c-3",
        "seed": 0,
        "width_px": 100_000,
        "height_px": 300,
        "styles": [{"seed": 5, "x_px": 0, "y_px": 0}, {"z_g": [0.5], "x_px": 900, "y_px": 9, "texture_seed": 8}],
        "fusion_px": 64,
        "edits": [{"box_px": [0, 0, 64, 64], "seed": 3, "fields": ["z_l", "noise"], "like_box_px": [9, 9, 40, 40]}],
    },
    {"id": "d", "seed": 1, "width_px": 64, "height_px": 64, "overlays": ["o.safetensors"], "paste_px": 12},
]
FIELDS = [field.name for field in dataclasses.fields(RenderRequest)]
REQUEST_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "checkpoint")),
        *((name, pa.uint64()) for name in ("seed",)),
        *(
            (name, pa.int64())
            for name in ("width_px", "height_px", "origin_x_px", "origin_y_px", "fusion_px", "paste_px")
        ),
        ("cyclic", pa.bool_()),
        ("formats", pa.list_(pa.string())),
        ("overlays", pa.list_(pa.string())),
        ("styles", pa.list_(pa.struct([("seed", pa.uint64()), ("x_px", pa.int64()), ("y_px", pa.int64())]))),
    ]
)
WORDS = (
    *FIELDS,
    *(
        ",",
        '"',
        '""',
        "\n",
        "\r\n",
        "{",
        "}",
        "[",
        "]",
        ":",
        '"id"',
        '"x"',
        "1e5",
        "512.0",
        "-1",
        "18446744073709551616",
    ),
    *(
        "true",
        "TRUE",
        "null",
        "NaN",
        "dzi zarr",
        "webp",
        "4294967296",
        "9" * 30,
        "2000000000",
        "file://x",
        "https://a:b@c/d",
    ),
)


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Returns requests as the text of a CSV."""

    def cell(name: str, value: Any) -> str:
        if value is None:
            return ""
        text = " ".join(value) if name == "formats" else value if isinstance(value, str) else json.dumps(value)
        return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text

    return "\n".join([",".join(FIELDS), *(",".join(cell(name, row.get(name)) for name in FIELDS) for row in rows)])


def make_requests(random: Random) -> bytes:
    kind = random.choice(("csv", "jsonl", "jsonl", "parquet"))
    rows = [{**random.choice(REQUESTS), "id": f"r{number}"} for number in range(random.randrange(1, 5))]
    if kind == "parquet":
        content = mutate_table(random, rows, REQUEST_SCHEMA)
    elif kind == "csv":
        content = mutate_text(random, as_csv(rows), WORDS)
    else:
        content = b"\n".join(json_text(random, mutate_value(random, row)) for row in rows)
    return pack({f"requests.{kind}": content})


def check_requests(content: bytes) -> None:
    """Checks that each row is planned or refused, and that the tables and files that report it can be written."""
    ((name, text),) = unpack(content).items()
    with folder_of({name: text}) as folder, refused(), without_network():
        file = RequestFile(str(folder / name), {"checkpoint": checkpoint_file()})
        intake = Intake(RenderOptions(file, str(folder / "out"), checkpoint_file()), Planner(), begins=False)
        taken = intake.take(file, file.rows(), lambda request_id: None)
        check_reasons([reason for _, reason in taken.refused.values()])
        plans = [work.plan for work in taken.work.values()]
        with silent():
            for refused_id, reason in taken.refused.values():
                show_refused(refused_id, reason)
            show_cautions(Counter(caution for plan in plans for caution in cautions(plan.request)))
        estimate(taken.work.values(), intake.planner.networks_of)
        for plan in plans:
            json.dumps(plan.provenance()).encode()
        write_manifest(intake.options.out, sorted(taken.rows(), key=lambda row: row["id"]))
        look_at_manifest(intake.options.out)
        again = str(folder / "again.jsonl")
        write_requests(again, [plan.request for plan in plans])
        assert (
            [short(request) for request in read_requests(again)] == [short(plan.request) for plan in plans]
            if plans
            else True
        )


@contextmanager
def without_network() -> Iterator[None]:
    """Prevents connections and pauses between attempts."""
    error = aiohttp.ClientConnectionError("there is no network here")
    with patch("aiohttp.ClientSession._request", side_effect=error), patch("time.sleep"):
        yield


def check_reasons(reasons: list[str]) -> None:
    """Checks that nothing is refused for a fault of this program."""
    for reason in reasons:
        assert reason.strip(), reasons
        assert "internal error" not in reason, reason


def silent() -> Any:
    """Returns a stderr that accepts UTF-8 and discards it."""
    return redirect_stderr(open(os.devnull, "w", encoding="utf-8"))


def look_at_manifest(out: str) -> None:
    """Reads and shows a manifest."""
    write_index(out)
    with silent():
        show_summary(out, Summary.of(read_manifest(out)))


# Patch shards


def plan_of(**fields: Any) -> Plan:
    """Returns a plan of four tiles."""
    values = {
        "id": "p",
        "seed": 7,
        "width_px": 50,
        "height_px": 40,
        "origin_y_px": 0,
        "formats": tuple(FORMATS),
        **fields,
    }
    return Plan(RenderRequest(**values), checkpoint_file(), "0" * 64, TILE_PX)


def patch_of(plan: Plan, index: int) -> Patch:
    """Returns a patch of random pixels."""
    random = np.random.default_rng(index)
    (top, bottom), (left, right) = plan.cropped(index)
    pixels = random.integers(0, 256, (bottom - top + 1, right - left + 1, 3), np.uint8)
    return Patch(index, left, top, pixels, random.integers(0, 256, (4 * OVERLAP_PX, TILE_PX, 3), np.uint8))


@cache
def rendered() -> dict[str, bytes]:
    """Returns the files of a folder that render has written."""
    plan = plan_of()
    with folder_of({}) as folder:
        out = str(folder)
        begin(out, plan, None)
        shard = PatchShard(plan, 0, plan.tiles - 1)
        write_patch_shard(out, shard, [encode_patch(plan, patch_of(plan, index)) for index in shard.indices])
        row = assemble_panorama(out, plan, [], "1")
        assert row["state"] == "done", row
        write_manifest(out, [row, refused_row("requests.csv, request 2", "it is not a request")])
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def make_patches(random: Random) -> bytes:
    files = {name: content for name, content in rendered().items() if name.startswith("patches/")}
    (name,) = [name for name in files if name.endswith(".tar")]
    files[name] = mutate_tar(random, files[name])
    return pack(files)


def check_patches(content: bytes) -> None:
    """Checks that a shard is complete or reported as damaged, where it is read, repaired, reused and assembled."""
    plan = plan_of(formats=("jpg",))
    with folder_of(unpack(content)) as folder, silent():
        out, (shard,) = str(folder), existing_shards(str(folder), plan)
        try:
            list(PatchReader(out, plan).patches())
            whole = True
        except (DamagedShardError, FileNotFoundError):
            whole = False
        assert is_whole(out, shard) == whole
        row = assemble_panorama(out, plan, [], "1")
        assert (row["state"] == "done") == whole, row
        edited = plan_of(edits=(Edit(box_px=(9000, 0, 9, 9), seed=3),))
        reuse_patches(out, edited, look_up(out, edited).others, ScaledConfig(CHECKPOINT_CONFIG))
        with refused(OSError):
            list(told(describe(str(folder / "patches/p" / plan.digest / shard.name))))


# A folder that render has written


def make_folder(random: Random) -> bytes:
    files = {name: content for name, content in rendered().items() if name.endswith((".json", ".parquet", ".tar"))}
    names = [name for name in files if not name.endswith(".tar") and "zarr" not in name]
    for name in random.choices(names, k=random.choice((1, 1, 2))):
        if name == MANIFEST:
            rows = pq.read_table(pa.BufferReader(rendered()[name])).to_pylist()
            files[random.choice((name, "manifest-00000000000000000001-0123abcd.part"))] = mutate_table(
                random, rows, MANIFEST_SCHEMA
            )
        else:
            files[name] = json_text(random, mutate_value(random, json.loads(rendered()[name])))
    return pack(files)


def check_folder(content: bytes) -> None:
    """Checks that the commands refuse, ignore or use a folder's files, and touch nothing outside it."""
    plan, other = plan_of(formats=("jpg",)), plan_of(formats=("jpg",), seed=8)
    with folder_of({"neighbour": b"", **{f"out/{name}": file for name, file in unpack(content).items()}}) as folder:
        out = str(folder / "out")
        with silent():
            for use in (
                lambda: list(told(describe(out))),
                lambda: list(told(describe(f"{out}/panoramas/p.json"))),
                lambda: list(told(describe(f"{out}/patches/p/{plan.digest}"))),
                lambda: check_out(out),
                lambda: look_at_plans(out, [plan.request, other.request]),
                lambda: finished_plans(out, checkpoint_file()),
                lambda: [assemble_panorama(out, found, (), "1") for found in plans_to_assemble(out, ["webp"], [])],
                lambda: find_request(f"{out}/panoramas/p.json", None),
                lambda: write_manifest(out, [assemble_panorama(out, plan, [], "1")]),
                lambda: replace_by(out, other),
                lambda: look_at_manifest(out),
            ):
                with refused(OSError):
                    use()
        assert read_record(out, "p").get("plan", other.digest) == other.digest
        assert (folder / "neighbour").exists()


def look_at_plans(out: str, requests: list[RenderRequest]) -> None:
    """Plans requests for a folder with and without its contents."""
    for replace in (False, True):
        intake = Intake(RenderOptions((), out, checkpoint_file(), replace=replace), Planner(), begins=False)
        rows = [Row(number, request.to_json()) for number, request in enumerate(requests, start=1)]
        taken = intake.take(RequestFile(""), rows, lambda request_id: Known())
        check_reasons([reason for _, reason in taken.refused.values()])
        estimate(taken.work.values(), intake.planner.networks_of)


def replace_by(out: str, plan: Plan) -> None:
    """Begins another plan in the place of the one that is there."""
    held = look_up(out, plan)
    reuse_patches(out, plan, held.others, ScaledConfig(CHECKPOINT_CONFIG))
    begin(out, plan, held)


# Panoramas

KINDS = [name for name in FORMATS if name not in ("dzi", "zarr")]


def make_panorama(random: Random) -> bytes:
    kind = random.choice((*KINDS, "dzi", "zarr", "json"))
    files = {name: content for name, content in rendered().items() if name.startswith(f"panoramas/p.{kind}")}
    if kind == "dzi":
        files["panoramas/p.html"] = rendered()["panoramas/p.html"]
    name = random.choice([name for name in files if not name.endswith((".jpg", "zarr/c/0/0/0")) or kind == "jpg"])
    text = name.endswith(("json", "dzi", "html"))
    words = (
        "Width=",
        "Height=",
        '"',
        "<Size ",
        '<meta name="InfinityGAN" content="',
        "&quot;",
        "&#0;",
        "{",
        "}",
        "shape",
        "[",
        "9" * 40,
    )
    files[name] = mutate_text(random, files[name].decode(), words) if text else mutate(random, files[name])
    return pack(files)


def check_panorama(content: bytes) -> None:
    files = unpack(content)
    name = next(iter(files))
    name = name if "zarr" not in name else "panoramas/p.zarr"
    with folder_of(files) as folder, refused(OSError):
        list(told(describe(str(folder / (name.replace(".html", ".dzi"))))))


TARGETS = {
    "requests": Target(make_requests, check_requests, 5_000),
    "patches": Target(make_patches, check_patches, 2_000),
    "folders": Target(make_folder, check_folder, 1_500),
    "panoramas": Target(make_panorama, check_panorama, 8_000),
}
