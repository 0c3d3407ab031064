"""Measures what grows with the number of photographs, shards and requests: groups, memory, time.

    python benchmarks/scale.py groups [--rows 50000 1000000]
    python benchmarks/scale.py memory PHOTOGRAPHS [--rows 500 50000]
    python benchmarks/scale.py cells PHOTOGRAPHS [--rows 1000000]
    python benchmarks/scale.py training [--shards 100000]
    python benchmarks/scale.py render [--rows 5000 500000]

``groups`` makes up records: most originals have one of four sizes, the others any size between two limits, and one
in twenty photographs has the bytes of another. ``memory`` ingests copies of photographs that differ in a few bytes.
``cells`` counts comparisons among windows of photographs, from one in ten of them. ``training`` makes up the tables of
a training set. ``render`` makes up requests, and a folder in which the panoramas of all of them are done.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from duplicates import Windows

from transforms.ingest import ranges
from transforms.ingest.batches import RECORD
from transforms.ingest.cells import WINNER, first_likenesses, nearest_cells
from transforms.ingest.duplicates import NOTHING, Block, compare
from transforms.ingest.plan import Counts, Plan, part_of, share_of
from transforms.ingest.ranks import count_bins, deal, plan_shards
from transforms.panoramas.folder import PANORAMAS, PATCHES
from transforms.panoramas.manifest import DONE, ManifestRow, manifest_row, refused_row, write_manifest
from transforms.panoramas.requests import RenderRequest, RequestFile
from transforms.photographs.hashes import COARSE_FEATURES, coarse_features
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner
from transforms.storage.tables import write_parts
from transforms.training_set.dataset import INDEX_SCHEMA, count_licences, read_dataset
from transforms.training_set.records import Photograph

SEEN = 10
FORMATS_PX = (1024 * 768, 1600 * 1200, 4000 * 3000, 6000 * 4000)


def make_records(rows: int) -> np.ndarray:
    """Returns records with the sizes and copies of a real collection."""
    random = np.random.default_rng(0)
    records = np.zeros(rows, dtype=RECORD)
    records["sha256"] = random.integers(0, 2**64, (rows, 4), dtype=np.uint64)
    formats = random.choice(FORMATS_PX, rows)
    records["pixels"] = np.where(random.random(rows) < 0.7, formats, random.integers(200_000, 24_000_000, rows))
    copies = random.random(rows) < 0.05
    records[copies] = records[random.integers(0, rows, int(copies.sum()))]
    return records


def measure_groups(rows: int) -> dict[str, int]:
    """Returns the largest group of each step."""
    records = make_records(rows)
    parts = np.array_split(records, -(-rows // 4096))
    drawn = [some for part in parts for some in ranges.draw(part, rows)]
    in_range: Counter[int] = Counter()
    for part in parts:
        for number, packed in ranges.cut(part, drawn, rows):
            in_range[number] += len(packed) // RECORD.itemsize
    shards = plan_shards(None, None, rows)
    counts = count_bins(records, shards.bits)
    in_shard: Counter[str] = Counter()
    for part in parts:
        for name, some in deal(part, counts, shards):
            in_shard[name] += len(some)
    return {"range": max(in_range.values()), "shard": max(in_shard.values()), **measure_parts(rows)}


def measure_parts(rows: int) -> dict[str, int]:
    """Returns the largest part of the plan: half of the photographs are files, a third of the others on one host."""
    plan: Plan = Counts.plan([Counts(rows // 2, rows - rows // 2, 0, 0, rows)])
    sizes: Counter[tuple[int, int]] = Counter()
    for number in range(rows):
        host = f"h{number % 3 and number % 997}.example"
        source = f"/photographs/{number}.jpg" if number % 2 else f"https://{host}/{number}.jpg"
        photograph = Photograph(source)
        sizes[share_of(photograph, plan), part_of(photograph, plan)] += 1
    return {"part of the plan": max(sizes.values())}


def groups(arguments: argparse.Namespace) -> None:
    for rows in arguments.rows or (50_000, 1_000_000):
        largest = measure_groups(rows)
        print(f"{rows} rows: " + ", ".join(f"{name} {size} (1/{rows // size})" for name, size in largest.items()))


def memory(arguments: argparse.Namespace) -> None:
    """Ingests numbers of photographs, each in a process of its own."""
    originals = sorted(Path(arguments.photographs).glob("*.jpg"))[:8]
    with tempfile.TemporaryDirectory() as work:
        for rows in arguments.rows or (500, 50_000):
            folder = Path(work) / str(rows)
            folder.mkdir()
            contents = [path.read_bytes() for path in originals]
            for number in range(rows):
                content = contents[number % len(contents)]
                (folder / f"{number:07d}.jpg").write_bytes(content + f"{number:08d}".encode())
            code = (
                "import resource, sys; from pipelines.cli import run; "
                f"code = run(['ingest', {str(folder)!r}, '--out', {work + '/out' + str(rows)!r}, "
                f"'--dedup', {arguments.dedup!r}, '--quiet']); "
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
            )
            begin = time.monotonic()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            print(f"{rows} photographs: {done.stdout.split()[-1]} MB, {time.monotonic() - begin:.0f} s", flush=True)


def cells(arguments: argparse.Namespace) -> None:
    """Counts the comparisons in cells, from one of `SEEN` rows; times some of them, and those of two blocks."""
    windows = Windows(sorted(Path(arguments.photographs).glob("*.jpg")))
    for rows in arguments.rows or (1_000_000,):
        seen = rows // SEEN
        winners, features = np.zeros(seen, dtype=WINNER), np.zeros((seen, COARSE_FEATURES))
        winners["place"] = np.arange(seen)
        for start in range(0, seen, 4096):
            some = slice(start, start + 4096)
            winners["perceptual"][some], winners["details"][some], crops = windows.hashes(range(seen)[some])
            features[some] = coarse_features(crops)
        random = np.random.default_rng(0)
        pivots = np.unique(features[random.choice(seen, ranges.count_ranges(rows), replace=False)], axis=0)
        begin = time.process_time()
        near = nearest_cells(features, pivots)
        assigned_s = (time.process_time() - begin) * SEEN
        fullest = np.bincount(near[:, 0]).max() * SEEN
        pairs = np.array([_pairs(near, cell) for cell in range(len(pivots))])
        chosen = random.choice(len(pivots), 8, replace=False)
        compared_s = sum(_time_cell(windows, winners, near, cell) for cell in chosen) / pairs[chosen].sum()
        blocks = rows / ranges.RANGE_ROWS
        count = int(pairs.sum()) * SEEN**2
        print(
            f"{rows} windows: {len(pivots)} cells; {rows // len(pivots)} may lose in each, {fullest} in the fullest\n"
            f"  {count:.3g} comparisons, one in {rows**2 / 2 / count:.1f} of all pairs\n"
            f"  CPU s: assigning {assigned_s:.0f}, comparing in cells {compared_s * count:.0f}; "
            f"comparing all pairs of blocks {_time_blocks(windows) * blocks**2 / 2:.0f}",
            flush=True,
        )


def _pairs(near: np.ndarray, cell: int) -> int:
    """Returns the number of pairs in a cell of which the winner comes first."""
    winning, losing = np.flatnonzero((near == cell).any(axis=1)), np.flatnonzero(near[:, 0] == cell)
    return int(np.searchsorted(winning, losing).sum())


def _time_cell(windows: Windows, winners: np.ndarray, near: np.ndarray, cell: int) -> float:
    winning, losing = winners[(near == cell).any(axis=1)], np.flatnonzero(near[:, 0] == cell)
    perceptual, _, crops = windows.hashes(losing)
    begin = time.process_time()
    for start in range(0, len(losing), 256):
        some = slice(start, start + 256)
        before = winning[: np.searchsorted(winning["place"], losing[some][-1])]
        first_likenesses(before, losing[some], perceptual[some], crops[some])
    return time.process_time() - begin


def _time_blocks(windows: Windows) -> float:
    blocks = []
    for start in (0, ranges.RANGE_ROWS):
        records = np.zeros(ranges.RANGE_ROWS, dtype=RECORD)
        perceptual, details, crops = windows.hashes(range(start, start + len(records)))
        blocks.append(Block(records, perceptual, details, crops, records[:0], NOTHING))
    begin = time.process_time()
    compare(*blocks)
    return time.process_time() - begin


def training(arguments: argparse.Namespace) -> None:
    """Measures reading what training reads of a set before its first step."""
    count, samples = arguments.shards, 10
    with tempfile.TemporaryDirectory() as folder:
        names = [f"train-{number:06d}.tar" for number in range(count)]
        shard = {"sha256": "0" * 64, "size_bytes": 1, "samples": samples}
        sizes = {"full_height_px": 197, "patch_size_px": 101}
        totals = {"samples": {"train": count * samples, "val": 0, "test": 0}, "rejects": {}}
        made = {"format_version": 2, **sizes, "configuration": sizes, **totals, "shards": dict.fromkeys(names, shard)}
        (Path(folder) / "dataset.json").write_text(json.dumps(made))
        row = dict.fromkeys(INDEX_SCHEMA.names) | {"split": "train", "licence": "CC0-1.0", "offset": 0, "size": 1}
        rows = ([{**row, "shard": name}] * samples for name in names)
        write_parts(
            f"{folder}/index.parquet", (pa.Table.from_pylist(some, schema=INDEX_SCHEMA) for some in rows), INDEX_SCHEMA
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.process_time()
        dataset = read_dataset(folder)
        read_s = time.process_time() - begin
        count_licences(folder, dataset)
        counted_s = time.process_time() - begin - read_s
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"{count} shards, {count * samples} samples: dataset.json {read_s:.1f} CPU s in each process, "
            f"licences {counted_s:.1f} CPU s in one; peak memory grew by {grown_mb:.0f} MB"
        )


def render(arguments: argparse.Namespace) -> None:
    """Plans new requests, and finds out that requests are done; each in a process of its own."""
    for rows in arguments.rows or (5_000, 500_000):
        with tempfile.TemporaryDirectory() as folder:
            requests = f"{folder}/requests.jsonl"
            with open(requests, "w") as file:
                file.writelines(json.dumps(made_up_request(number)) + "\n" for number in range(rows))
            command = ["render", f"--requests={requests}", f"--out={folder}/out", "--quiet"]
            print(f"{rows} new requests, --dry-run: {in_process([*command, '--dry-run'])}", flush=True)
            make_up_panoramas(requests, Path(folder) / "out")
            print(f"{rows} requests, all done: {in_process(command)}", flush=True)
            here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
            code = f"{here}; from scale import add_rows; add_rows({folder + '/out'!r}, {rows})"
            print(f"{rows} rows added to as many in the manifest: {peak_and_time(code)}", flush=True)


def made_up_request(number: int) -> dict[str, Any]:
    """Returns the JSON values of a request."""
    return {"id": f"coast-{number:07d}", "seed": number, "width_px": 512 + number % 1024, "height_px": 256}


def make_up_panoramas(requests: str, out: Path) -> None:
    """Makes the names and the manifest of a folder in which all requests are done; the files are empty."""
    for name in (PANORAMAS, PATCHES):
        (out / name).mkdir(parents=True)
    planner, options = Planner(), RenderOptions((), str(out))

    def rows() -> Iterator[ManifestRow]:
        for row in RequestFile(requests).rows():
            request = RenderRequest.from_json(row.values)
            plan, _ = planner.plan(options, request)
            (out / PATCHES / request.id).mkdir()
            for suffix in ("png", "json"):
                (out / PANORAMAS / f"{request.id}.{suffix}").touch()
            yield manifest_row(plan, DONE, None, {"files": {"png": f"{request.id}.png"}, "pixel_sha256": "0" * 64})

    write_manifest(str(out), rows())


def add_rows(out: str, count: int) -> None:
    """Adds rows to a manifest."""
    write_manifest(out, (refused_row(f"valley-{number:07d}", "no reason") for number in range(count)))


def in_process(command: list[str]) -> str:
    """Runs a command; returns its time and its peak memory."""
    return peak_and_time(f"from pipelines.cli import run; run({command!r})")


def peak_and_time(code: str) -> str:
    """Runs a program; returns its time and its peak memory."""
    measured = (
        f"{code}; import resource; used = resource.getrusage(resource.RUSAGE_SELF); "
        "print(f'{used.ru_maxrss // 1024} MB, {used.ru_utime + used.ru_stime:.0f} CPU s')"
    )
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", measured], capture_output=True, text=True, check=True)
    return f"{done.stdout.splitlines()[-1]}, {time.monotonic() - begin:.0f} s"


TASKS = {"groups": groups, "memory": memory, "cells": cells, "training": training, "render": render}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("photographs", nargs="?")
    parser.add_argument("--rows", type=int, nargs="*")
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--dedup", default="exact")
    parsed = parser.parse_args()
    TASKS[parsed.task](parsed)
