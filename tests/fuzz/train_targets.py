"""The inputs of train, evaluate and related commands: training sets, shards, tensor files, and run folders."""

import dataclasses
import io
import json
import struct
import tarfile
from collections.abc import Iterator
from functools import cache, partial
from itertools import islice
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from finding import find_again
from ingest_targets import add, look_at, look_at_found, mutate_tar
from mutations import json_text, mutate, mutate_table, mutate_text, mutate_value, pack, unpack
from PIL import Image
from target import Target, folder_of, refused

from model import checkpoint as files
from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import RECIPES, GeneratorConfig, check_tileable
from model.inversion import Inversion
from model.networks.ablations import build_generator
from model.training.trainer import Trainer
from model.world.footprint import footprint
from model.world.overlay import Overlay, box_windows, check_overlay, lengths, save_overlay
from pipelines.info import describe, told
from transforms.evaluation.crops import HELD_OUT, Photographs, crop_planned
from transforms.evaluation.settings import Evaluation
from transforms.ingest import known, staging
from transforms.ingest.batches import keys_of, read_samples, read_staged
from transforms.ingest.plan import planned_rejects, read_plan, read_share, read_taken_back
from transforms.ingest.publish import publish_repacked, store_rows
from transforms.ingest.ranks import plan_shards
from transforms.ingest.report import write_report
from transforms.ingest.runs import merge_runs
from transforms.panoramas.overlays import read_overlay
from transforms.photographs.prepare import Preparation, Prepared, prepare_photograph
from transforms.sources.find import can_retry
from transforms.storage.byte_ranges import Piece
from transforms.storage.tensor_files import read_tensors
from transforms.training import shard_reader
from transforms.training.run_folder import CONFIG, ENVIRONMENT, LOG, RunFolder
from transforms.training.stream import PatchStream, TrainingPatch
from transforms.training_set.dataset import (
    DATASET,
    INDEX,
    INDEX_SCHEMA,
    REJECTS,
    REJECTS_SCHEMA,
    IndexRows,
    check_fits,
    count_licences,
    read_dataset,
    read_rejects,
    write_tables,
)
from transforms.training_set.records import Photograph, Reject
from transforms.training_set.samples import SPLITS
from transforms.training_set.shards import shard_name, write_shard

FULL_PX, PATCH_PX = 197, 101
CHECKPOINT_CONFIG = GeneratorConfig(
    z_g_dim=1,
    z_l_dim=1,
    structure_channels=1,
    w_dim=1,
    mapping_layers=1,
    texture_channels=(2, 2, 2, 2),
    full_px=FULL_PX,
)

# Training sets


@cache
def training_set() -> dict[str, bytes]:
    """Returns the files of a small training set."""
    how = Preparation(full_height_px=FULL_PX, patch_size_px=PATCH_PX, content_filters=False, suffix="png")
    with folder_of({}) as folder:
        samples = []
        for number in range(14):
            pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).resize((230, 200)).save(buffer, "PNG")
            done = prepare_photograph(
                Photograph(f"/photographs/{number}.png", "CC0-1.0", "N.", "A lake"), buffer.getvalue(), 1, how
            )
            assert isinstance(done, Prepared), done
            samples.append((done.image, done.sample.to_json()))
        out = folder / "set"
        made = {}
        for split in SPLITS:
            mine = [sample for sample in samples if sample[1]["split"] == split]
            for start in range(0, len(mine), 4):
                shard, rows = write_shard(str(out), shard_name(split, start // 4), mine[start : start + 4])
                made[shard] = rows
        rejects = [
            Reject("/lists/a.csv#3", "find", "bad_row", "not UTF-8"),
            Reject("b.jpg", "decode", "truncated", "cut", archive="/a.tar", archive_offset=512, archive_size=9),
            Reject("https://a.example/x.jpg", "fetch", "not_found", "404", 2, "CC0-1.0"),
        ]
        sizes = {"full_height_px": FULL_PX, "patch_size_px": PATCH_PX}
        write_tables(str(out), list(made), made.__getitem__, rejects, {"configuration": sizes})
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def make_set(random: Random) -> bytes:
    found = dict(training_set())
    for name in random.sample((DATASET, INDEX, REJECTS), random.choice((1, 1, 2))):
        if name == DATASET:
            found[name] = json_text(random, mutate_value(random, json.loads(found[name])))
        else:
            schema = INDEX_SCHEMA if name == INDEX else REJECTS_SCHEMA
            found[name] = mutate_table(random, pq.read_table(pa.BufferReader(found[name])).to_pylist(), schema)
    return pack(found)


def check_set(content: bytes) -> None:
    """Checks that a set is refused, or can be extended, repacked, shown, trained on and evaluated with."""
    with folder_of(unpack(content)) as folder:
        out = str(folder)
        for use in (
            add_to_set,
            repack_set,
            train_on_set,
            evaluate_set,
            lambda out: write_report(out, read_dataset(out)),
            lambda out: list(told(describe(out))),
        ):
            with refused(OSError):
                use(out)


def add_to_set(out: str) -> None:
    """Adds to a set as ingest does."""
    staging.check_out(out, {})
    dataset = read_dataset(out)
    for group in range(known.groups(out)):
        for _, rows in known.read_known(out, dataset, group):
            keys_of(rows)
    rejects = list(read_rejects(out))
    look_at_found(find_again([r for r in rejects if can_retry(r) and "://" not in r.source], out))
    [reject.photograph() for reject in rejects]
    plan_shards(None, dataset, 7)
    with folder_of({}) as elsewhere:
        staging.provenance(dataset, {"later": True})
        write_tables(str(elsewhere), [], {}.__getitem__, [], staging.provenance(dataset, {"later": True}))


def repack_set(out: str) -> None:
    dataset = read_dataset(out)
    new = staging.begin_repack(out, {}, dataset)
    records = [records for group in range(known.groups(out)) for records in known.stage_known(out, dataset, group)]
    samples = ((image, row.sample) for some in records for image, row in read_samples(out, some))
    shard, rows = write_shard(new, "train-000000.tar", samples)
    store_rows(out, shard, rows)
    publish_repacked(out, new, [shard])


def train_on_set(out: str) -> None:
    take(stream_of(out).patches(), 3)
    count_licences(out, read_dataset(out))


def stream_of(out: str, strict: bool = False) -> PatchStream:
    """Opens the stream of a set, as train does."""
    dataset = read_dataset(out)
    check_fits(out, dataset, PATCH_PX, FULL_PX)
    return PatchStream(shard_reader.Shards(out, dataset["shards"], strict), PATCH_PX, FULL_PX)


def take(patches: Iterator[TrainingPatch], count: int) -> None:
    """Takes some patches of a stream."""
    with patch.object(shard_reader, "RETRY_AFTER_S", ()):
        for pixels, position in islice(patches, count):
            assert pixels.dtype == np.float32, pixels.dtype
            assert -1 <= position <= 1, position


def evaluate_set(out: str) -> None:
    rows = IndexRows(out, read_dataset(out), HELD_OUT, most=2)
    plan = Evaluation(band_crops=2, frame_crops=2)
    for _ in Photographs(out, rows, partial(crop_planned, CHECKPOINT_CONFIG, plan)):
        pass


NOTES = {
    "plan.json": ["plan"],
    "plan/000000/000000.jsonl": ["photograph"],
    "plan/rejects/000000.jsonl": ["reject"],
    "plan/taken-back/000000.jsonl": ["taken back"],
    "staged/000000/0000000000000000.jsonl": ["sample", "staged reject"],
}
"""The kinds of lines in the files of an unfinished run."""


@cache
def notes() -> dict[str, Any]:
    """Returns a line of each kind."""
    row = read_rows_of(INDEX)[0]
    photograph = Photograph("a.jpg", "CC0-1.0", "N.", "A lake", Piece("/a.tar", 512, 9)).to_json()
    reject = read_rows_of(REJECTS)[0]
    sha256 = str(row["sha256"])
    return {
        "photograph": photograph,
        "reject": reject,
        "taken back": "b.jpg",
        "sample": {"source": "a", "sha256": sha256, "pixels": 9, "offset": 0, "image_bytes": 9, "row_bytes": 9},
        "staged reject": {"reject": reject},
        "plan": dict.fromkeys(("photographs", "rejects", "taken_back", "shares_of_files", "shares_of_hosts"), 1),
    }


def read_rows_of(table: str) -> list[dict[str, Any]]:
    """Returns the rows of a table of the small training set."""
    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(training_set()[table])).to_pylist()
    return rows


def make_unfinished(random: Random) -> bytes:
    run = {"host": "elsewhere", "process": 5, "configuration": {"full_height_px": FULL_PX}}
    run = mutate_value(random, run) if random.random() < 0.5 else {**run, "process": 1}
    found = {".staging/run.json": json_text(random, run)}
    for file, kinds in NOTES.items():
        count = 1 if file == "plan.json" else 2
        lines = [json_text(random, mutate_value(random, notes()[random.choice(kinds)])) for _ in range(count)]
        found[f".staging/{file}"] = b"\n".join(lines) + b"\n"
    dataset = json.loads(training_set()[DATASET])
    found[".staging/base.json"] = json_text(random, random.choice((None, mutate_value(random, dataset))))
    return pack(found)


def check_unfinished(content: bytes) -> None:
    """Checks that the files of an unfinished run are refused, or that it can be resumed."""
    with folder_of({**training_set(), **unpack(content)}) as folder:
        out = str(folder)
        for use in (
            lambda: staging.check_out(out, {"full_height_px": FULL_PX}),
            lambda: look_at(list(read_share(out, 0))),
            lambda: look_at_staged(out),
            lambda: read_plan(out),
            lambda: list(read_taken_back(out)),
            lambda: list(merge_runs(out, planned_rejects(out))),
            lambda: staging.read_base(out),
            lambda: staging.install_repacked(out),
        ):
            with refused(OSError):
                use()


def look_at_staged(out: str) -> None:
    """Continues from the results so far."""
    for staged in read_staged(out, 0):
        keys_of(staged.records)
        list(read_samples(out, staged.records))


def make_shard(random: Random) -> bytes:
    found = {name: content for name, content in training_set().items() if name == DATASET or name.startswith("train-")}
    name = random.choice([name for name in found if name != DATASET])
    found[name] = mutate_tar(random, found[name]) if random.random() < 0.6 else mutate_members(random, found[name])
    dataset = json.loads(found[DATASET])
    dataset["shards"] = {shard: about for shard, about in dataset["shards"].items() if shard == name}
    dataset["samples"] = {"train": dataset["shards"][name]["samples"], "val": 0, "test": 0}
    dataset["shards"][name]["sha256"] = files.sha256(found[name])
    return pack({DATASET: json.dumps(dataset).encode(), name: found[name]})


def mutate_members(random: Random, content: bytes) -> bytes:
    """Returns a shard with odd metadata or pictures in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as before, tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in before:
            text = before.extractfile(member).read()  # type: ignore[union-attr]
            if random.random() < 0.4:
                is_json = member.name.endswith(".json")
                text = json_text(random, mutate_value(random, json.loads(text))) if is_json else mutate(random, text)
            add(tar, member.name, text)
    return buffer.getvalue()


def check_shard(content: bytes) -> None:
    with folder_of(unpack(content)) as folder:
        name = next(path.name for path in folder.iterdir() if path.suffix == ".tar")
        for use in (
            lambda: take(stream_of(str(folder)).patches(), 5),
            lambda: take(stream_of(str(folder), strict=True).frames(), 3),
            lambda: list(told(describe(str(folder / name)))),
        ):
            with refused(OSError):
                use()


# Files of tensors


def filled(shape: tuple[int, ...]) -> torch.Tensor:
    """Returns some numbers."""
    return torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape)


@cache
def checkpoint_bytes() -> bytes:
    """Returns a checkpoint of a very small network."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(CHECKPOINT_CONFIG)
    return save_checkpoint(generator.state_dict(), CHECKPOINT_CONFIG, {"images_seen": 5, "version": "1"}, "CC0-1.0")


@cache
def trainer() -> Trainer:
    """Returns a trainer of the same network."""
    with torch.random.fork_rng():
        return Trainer(CHECKPOINT_CONFIG, RECIPES["paper"])


@cache
def state_bytes() -> bytes:
    """Returns that trainer's state."""
    return files.save(files.TRAINING_STATE, trainer().state(), {"steps": 3, "images_before": 0})


OVERLAY_BOX = (0, -16, 32, 32)


@cache
def overlay_bytes() -> bytes:
    """Returns an overlay for the same network."""
    windows = box_windows(OVERLAY_BOX)
    place = footprint(CHECKPOINT_CONFIG, *windows)
    z_n = tuple(filled((1, 1, *lengths(window))) for window in place.noise)
    photograph = torch.zeros((3, 32, 32), dtype=torch.uint8)
    w, z_l = filled((9, 1)), filled((1, 1, *lengths(place.latents)))
    return save_overlay(
        Overlay(OVERLAY_BOX, None, "0" * 64, filled((1, 1)), w, z_l, z_n, photograph, {"psnr_db": 20.0})
    )


@cache
def inversion_bytes() -> bytes:
    """Returns the state of an inversion of one variable."""
    tensors = {f"adam.{key}.w": filled((9, 1)) for key in ("exp_avg", "exp_avg_sq")}
    tensors |= {"adam.step.w": torch.tensor(3.0), "variables.w": filled((9, 1)), "step": torch.tensor(3)}
    return files.save("inversion state", tensors, {"job": {}})


def make_tensors(random: Random) -> bytes:
    kind = random.choice(("checkpoint", "state", "overlay", "inversion"))
    content = {
        "checkpoint": checkpoint_bytes,
        "state": state_bytes,
        "overlay": overlay_bytes,
        "inversion": inversion_bytes,
    }[kind]()
    return pack({f"{kind}.safetensors": mutate_tensors(random, content)})


def mutate_tensors(random: Random, content: bytes) -> bytes:
    """Returns a file of tensors with odd metadata, names, shapes or numbers."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    if random.random() < 0.5:
        document = json.loads(header["__metadata__"]["infinitygan"])
        header["__metadata__"]["infinitygan"] = json_text(random, mutate_value(random, document)).decode(
            "utf-8", "replace"
        )
    if random.random() < 0.4:
        names = [name for name in header if name != "__metadata__"]
        name = random.choice(names)
        if random.random() < 0.5:
            header[name] = mutate_value(random, header[name])
        else:
            header[random.choice(("z_n.99", "x", "ema.x", *names))] = header.pop(name)
    if random.random() < 0.4:
        at = random.randrange(max(1, len(data) // 4)) * 4
        data[at : at + 4] = struct.pack("<f", random.choice((float("nan"), float("inf"), 1e38, -0.0)))
    text = json.dumps(header).encode()
    text = mutate(random, text) if random.random() < 0.1 else text
    length = random.choice((0, 2**63, len(text) + 1, 2**24)) if random.random() < 0.03 else len(text)
    whole = length.to_bytes(8, "little") + text + bytes(data)
    return mutate(random, whole) if random.random() < 0.1 else whole


def check_tensors(content: bytes) -> None:
    """Checks that a tensor file is refused, or shown and loaded for its use."""
    found = unpack(content)
    (name,) = found
    uses = {"checkpoint": use_checkpoint, "state": use_state, "overlay": use_overlay, "inversion": use_inversion}
    with folder_of(found) as folder:
        url = str(folder / name)
        for use in (lambda url: list(told(describe(url))), uses[name.partition(".")[0]]):
            with refused(OSError):
                use(url)


def use_checkpoint(url: str) -> None:
    found = load_checkpoint(read_tensors(url), url)
    check_tileable(found.generator.config, url)
    json.dumps({**found.provenance, "licence": found.licence}).encode()
    int(found.provenance.get("images_seen", 0))


def use_state(url: str) -> None:
    header, tensors = files.load_state(read_tensors(url, "the state"), url)
    trainer().load_state(tensors, header["steps"], header["images_before"])
    trainer().images  # noqa: B018 - it counts


def use_overlay(url: str) -> None:
    overlay = read_overlay(url)
    check_overlay(overlay, url, CHECKPOINT_CONFIG, overlay.cyclic_px, "0" * 64)


def use_inversion(url: str) -> None:
    header, tensors = files.load("inversion state", read_tensors(url, "the state"), url)
    header.get("job")
    variables = {"w": torch.zeros(9, 1)}
    fake = SimpleNamespace(variables=variables, optimiser=torch.optim.Adam(variables.values()), device="cpu", step=0)
    Inversion.restore(fake, tensors)  # type: ignore[arg-type]
    assert fake.step >= 0, fake.step


# Folders of training runs


@cache
def run_config() -> dict[str, Any]:
    parts = {"generator": dataclasses.asdict(CHECKPOINT_CONFIG), "training": dataclasses.asdict(RECIPES["paper"])}
    data = {"url": "/sets/a", "samples": 11, "sha256": "0" * 64}
    return json.loads(
        json.dumps({**parts, "preset": "tiny", "data": data, "init": None, "version": "1", "processes": 1})
    )


LOG_LINES = [
    {"images": images, "seconds": 1.5, "generator": 0.7, "measure": 20 - images / 100} for images in (16, 32, 48)
]


def make_run(random: Random) -> bytes:
    log = b"\n".join(json_text(random, mutate_value(random, line)) for line in LOG_LINES)
    return pack(
        {
            CONFIG: json_text(random, mutate_value(random, run_config())),
            ENVIRONMENT: json_text(random, mutate_value(random, {"torch": "2", "device": "cpu", "command": ["train"]})),
            LOG: log
            if random.random() < 0.7
            else mutate_text(random, log.decode("utf-8", "replace"), ("{", "}", "\n")),
        }
    )


def check_run(content: bytes) -> None:
    with folder_of(unpack(content)) as folder:
        run = RunFolder(str(folder))
        for use in (
            lambda: list(told(describe(str(folder)))),
            lambda: run.begin(run_config(), resume=True),
            lambda: run.write_log(run.read_log(40)),
            lambda: json.dumps(run.read_environment()).encode(),
            lambda: run.drop_beyond(40),
        ):
            with refused(OSError):
                use()


TARGETS = {
    "sets": Target(make_set, check_set, 1_000),
    "unfinished": Target(make_unfinished, check_unfinished, 4_000),
    "shards": Target(make_shard, check_shard, 2_000),
    "tensors": Target(make_tensors, check_tensors, 6_000),
    "runs": Target(make_run, check_run, 8_000),
}
