"""Measures what tiles that follow the panorama save, and jobs of many panoramas that are finished as they go.

python benchmarks/plan.py [--requests 2000] [--out FILE.json]

Squares of 256 px of the world's grid (`--tile 256`) are measured beside the tiles that a plan chooses. Each figure is
the best of a few rounds that alternate. A job's memory is that of a process of its own.
"""

import argparse
import dataclasses
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model.cost import needed, spent
from model.geometry import Window, length
from pipelines.render import render
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import RenderRequest
from transforms.panoramas.tiling import TileSize
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner, check_all
from transforms.render.synthesize import Synthesizer, compute_tile
from transforms.storage.background import meanwhile

SIZES = ((512, 256), (16_384, 256), (16_384, 512), (8000, 700), (8192, 768), (300, 300))
SHAPES = ((128, 256), (256, 256), (128, 512), (256, 512), (128, 1024), (256, 1024), (512, 512), (512, 1024))
SQUARES, ROUNDS = 256, 3
WRITTEN = ("png", "tif")
LONG = ((8000, 256), (200_000, 256))


def options(size: tuple[int, int], count: int = 1, out: str = "none", tile: TileSize | None = None) -> RenderOptions:
    """Returns the options of a job of panoramas of one size, given as width and height."""
    asked = (RenderRequest(id=f"p{seed:05d}", seed=seed, width_px=size[0], height_px=size[1]) for seed in range(count))
    return RenderOptions(tuple(asked), out, tile_px=tile)


def planned(size: tuple[int, int], tile: TileSize | None) -> tuple[Plan, Any]:
    """Returns the plan of a panorama and its network."""
    ((plan, config),) = check_all(options(size, tile=tile), Planner()).items()
    return plan, config


def areas(size: tuple[int, int], tile: TileSize | None) -> tuple[float, float]:
    """Returns the computed over the requested pixels, and the multiply-adds over those that the pixels need."""
    plan, config = planned(size, tile)
    windows = [plan.computed(index) for index in range(plan.tiles)]
    pixels = sum(length(rows) * length(columns) for rows, columns in windows)
    cost = sum(spent(config.base, *window).network for window in windows)
    return pixels / (size[0] * size[1]), cost / needed(config.base, size[1], size[0]).network


def fastest(works: dict[Any, Callable[[], object]]) -> dict[Any, tuple[float, float]]:
    """Returns the least wall and processor time of each work, in seconds, over rounds in which they alternate."""
    best: dict[Any, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for name, work in works.items():
            before = time.perf_counter(), time.process_time()
            work()
            took = time.perf_counter() - before[0], time.process_time() - before[1]
            best[name] = took if name not in best else (min(best[name][0], took[0]), min(best[name][1], took[1]))
    return best


def compute(synthesizer: Synthesizer, plan: Plan) -> None:
    """Computes a plan's tiles, and discards them."""
    world = synthesizer.world_of(plan)
    for index in range(plan.tiles):
        compute_tile(world, plan, index)


def shapes(synthesizer: Synthesizer) -> dict[str, float]:
    """Returns the seconds per megapixel of tiles of several shapes, near the horizon."""
    plan, _ = planned(SIZES[0], None)
    world = synthesizer.world_of(plan)

    def work(rows: Window, shape: tuple[int, int]) -> Callable[[], object]:
        columns = [(first, first + shape[1] - 1) for first in range(0, 2048, shape[1])]
        return lambda: [world.compute(rows, each) for each in columns]

    works = {shape: work((-shape[0] // 2, shape[0] // 2 - 1), shape) for shape in SHAPES}
    took = fastest(works)
    return {f"{high}x{wide}": took[high, wide][0] / (2048 * high / 1e6) for high, wide in SHAPES}


def computing(synthesizer: Synthesizer) -> dict[str, float]:
    """Returns the figures of computing two long panoramas, in squares and in tiles that follow them."""
    names = {(size, tile): planned(size, tile)[0] for size in SIZES[1:3] for tile in (SQUARES, None)}
    works = {name: (lambda plan=plan: compute(synthesizer, plan)) for name, plan in names.items()}
    took = {name: cpu_s for name, (_, cpu_s) in fastest(works).items()}
    flat, high = SIZES[1:3]
    return {
        "processor time of 16,384×256 over 16,384×512, squares": took[flat, SQUARES] / took[high, SQUARES],
        "processor time of 16,384×256 over 16,384×512": took[flat, None] / took[high, None],
        "a pixel of 16,384×512 over one in squares": took[high, None] / took[high, SQUARES],
    }


@contextmanager
def first_panorama(out: str) -> Iterator[list[float]]:
    """Notes the seconds after which the folder holds its first panorama's record."""
    start, found = time.monotonic(), []

    def watch(stop: threading.Event) -> None:
        while not found and not stop.wait(0.05):
            if any(Path(out).glob("panoramas/*.json")):
                found.append(time.monotonic() - start)

    with meanwhile(watch):
        yield found


def job(size: tuple[int, int], count: int, tile: TileSize | None, kind: str) -> dict[str, float]:
    """Renders a job, or only computes its tiles, in this process; returns its times and its memory."""
    with tempfile.TemporaryDirectory() as out:
        if kind == "render":
            render(options((64, 64), out=f"{out}/warm"))  # loads what is loaded only once
        work = options(size, count, f"{out}/job", tile)
        start, cpu_s = time.perf_counter(), time.process_time()
        with first_panorama(f"{out}/job") as first:
            if kind == "render":
                rows = render(work)
                assert {row["state"] for row in rows} == {"done"}
            else:
                synthesizer = Synthesizer()
                for plan in check_all(work, Planner()):
                    compute(synthesizer, plan)
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
    return {"wall_s": wall_s, "cpu_s": cpu_s, "first_s": first[0] if first else 0.0, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Returns the peak memory of this process; getrusage would count its parent's, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def alone(size: tuple[int, int], count: int, tile: TileSize | None = None, kind: str = "render") -> dict[str, float]:
    """Runs a job in a process of its own."""
    call = f"import json, plan; print(json.dumps(plan.job({size!r}, {count}, {tile!r}, {kind!r})))"
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", call], check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def many(count: int) -> dict[str, float]:
    """Returns the figures of a job of many small panoramas."""
    size = SIZES[0]
    bare, squares, job_, one = (
        alone(size, count, kind="compute"),
        alone(size, count, SQUARES),
        alone(size, count),
        alone(size, 1),
    )
    return {
        "first panorama, s": job_["first_s"],
        "wall time over computing alone": job_["wall_s"] / bare["wall_s"],
        "processor time over computing alone": job_["cpu_s"] / bare["cpu_s"],
        "wall time over squares": job_["wall_s"] / squares["wall_s"],
        "peak memory, MB": job_["peak_mb"],
        "peak memory over that of one": job_["peak_mb"] / one["peak_mb"],
    }


def end_to_end() -> dict[str, float]:
    """Returns the time of rendering a long panorama, from request to manifest, over that of computing its tiles."""
    size = SIZES[2]
    plan, _ = planned(size, None)
    synthesizer = Synthesizer()
    with tempfile.TemporaryDirectory() as out:
        folders = (f"{out}/{number}" for number in itertools.count())

        def through_beam(name: str) -> None:
            asked = dataclasses.replace(plan.request, formats=(name,))
            (row,) = render(RenderOptions((asked,), next(folders)))
            assert row["state"] == "done"

        works: dict[str, Callable[[], object]] = {"compute": lambda: compute(synthesizer, plan)}
        works |= {name: partial(through_beam, name) for name in WRITTEN}
        small = RenderOptions(options((64, 64)).requests, f"{out}/small")
        works["start"] = lambda: render(dataclasses.replace(small, out=next(folders)))
        took = fastest(works)
    return {name: took["compute"][0] / (took[name][0] - took["start"][0]) for name in WRITTEN}


def memory() -> dict[str, float]:
    """Returns the peak memory of a short and of a long panorama, in MB."""
    return {f"{width:,}×{height}, MB": alone((width, height), 1)["peak_mb"] for width, height in LONG}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    synthesizer = Synthesizer()
    figures: dict[str, dict[str, Any]] = {
        "pixels, multiply-adds over those needed; squares": {f"{w}×{h}": areas((w, h), SQUARES) for w, h in SIZES},
        "pixels, multiply-adds over those needed": {f"{w}×{h}": areas((w, h), None) for w, h in SIZES},
        "seconds a megapixel, by height and width of tiles": shapes(synthesizer),
        "computing": computing(synthesizer),
        f"{arguments.requests} panoramas of 512×256": many(arguments.requests),
        "computing alone over end to end, without start-up, 16,384×512": end_to_end(),
        "peak memory": memory(),
    }
    machine = {"threads": torch.get_num_threads(), "cpu": platform.processor() or platform.machine()}
    table = Table(title=f"small, {machine['threads']} threads", title_justify="left")
    for name in ("figure", "of", "value"):
        table.add_column(name)
    for name, values in figures.items():
        for of, value in values.items():
            table.add_row(
                name, of, ", ".join(f"{each:.3g}" for each in (value if isinstance(value, tuple) else (value,)))
            )
    Console(width=140).print(table)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({**machine, **figures}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
