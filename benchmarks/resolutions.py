"""Measures the seconds per square picture, by resolution and method: the measurement of the paper's Table 4.

python benchmarks/resolutions.py [--preset paper] [--preset small] [--largest 8192] [--limit 20] [--out FILE.json]

There are three methods: the whole picture at once; patches of 101 px, several at a time, as in the paper; and tiles of
several shapes, as in `infinitygan render`. A time runs from the first random number to the last byte of pixels in host
memory, after warming up. A size is omitted ("-") if the previous one implies that it would exceed the time limit, or if
memory does not suffice. The last lines show whether a tile's shape changes its pixels.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from render import USEFUL_CELLS, PatchByPatch
from rich.console import Console
from rich.table import Table

from model import speed
from model.kernels import exact_kernels
from model.memory import reuse_freed_memory
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.world import World
from pipelines.bench import machine

SMALLEST = 1024
BATCHES = (1, 4, 16, 64)
SHAPES = ((256, 256), (256, 1024), (512, 512), (512, 2048), (1024, 1024), (2048, 2048))
"""The rows and columns of a tile, in pixels."""

GROWTH = 4
"""The expected factor in time from one size to the next."""

Way = Callable[[int], None]
"""Computes a square picture with a side of this many pixels."""


@torch.inference_mode()
def in_tiles(world: World, rows_px: int, columns_px: int, side_px: int) -> None:
    """Computes a square picture in tiles, each copied to host memory."""
    for y in range(0, side_px, rows_px):
        for x in range(0, side_px, columns_px):
            rows, columns = (y, min(y + rows_px, side_px) - 1), (x, min(x + columns_px, side_px) - 1)
            quantise(world.render(rows, columns)).cpu()


@torch.inference_mode()
def in_patches(patches: PatchByPatch, batch: int, side_px: int) -> None:
    """Computes a square picture in patches, a batch at a time, each copied to host memory."""
    steps = range(-(-side_px // (patches.config.cell_px * USEFUL_CELLS)))
    places = [(row, column) for row in steps for column in steps]
    for first in range(0, len(places), batch):
        quantise(patches.patches(places[first : first + batch])).cpu()


def ways(generator: Generator) -> Iterator[tuple[str, str, Way]]:
    """Yields the methods to compare: a name, a precision, and the method itself."""
    plain = World(generator, 7)
    patches = PatchByPatch(generator, plain)
    yield "whole picture", "float32", lambda side: in_tiles(plain, side, side, side)
    for batch in BATCHES:
        yield f"patches, {batch} at a time", "float32", partial(in_patches, patches, batch)
    for precision in ("float32", "bfloat16"):
        world = World(generator, 7, precision)
        for rows, columns in SHAPES:
            yield f"tiles of {rows}×{columns}", precision, partial(in_tiles, world, rows, columns)


def times(way: Way, sides: Sequence[int], limit_s: float) -> tuple[dict[int, float], float]:
    """Returns the seconds of a method at each size within the limit, and its peak memory on a GPU in GiB."""
    seconds: dict[int, float] = {}
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        way(sides[0])
        for side in sides:
            start = time.perf_counter()
            way(side)
            seconds[side] = time.perf_counter() - start
            if seconds[side] * GROWTH > limit_s:
                break
    except torch.OutOfMemoryError:
        pass
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0


@torch.inference_mode()
def apart(generator: Generator, rows_px: int, columns_px: int) -> dict[str, float]:
    """Returns how a tile of a shape differs from the same pixels in tiles of 256 px: share of values, and maximum."""
    world = World(generator, 7)
    whole = world.render((0, rows_px - 1), (0, columns_px - 1))
    most, changed, side = 0.0, 0, speed.TILE_PX
    for y in range(0, rows_px, side):
        for x in range(0, columns_px, side):
            part = world.render((y, y + side - 1), (x, x + side - 1))
            difference = (part - whole[:, y : y + side, x : x + side]).abs()
            most, changed = max(most, difference.max().item()), changed + int((difference > 0).sum())
    return {"rows_px": rows_px, "columns_px": columns_px, "changed": changed / whole.numel(), "most": most}


def measured(preset: str, sides: Sequence[int], limit_s: float) -> list[dict[str, Any]]:
    """Returns one row per method."""
    rows = []
    for name, precision, way in ways(speed.network(preset)):
        seconds, peak_gib = times(way, sides, limit_s)
        rate = max((side**2 / time_s / 1e6 for side, time_s in seconds.items()), default=0.0)
        rows.append({"way": name, "precision": precision, "seconds": seconds, "mpx_s": rate, "peak_gib": peak_gib})
        print(preset, rows[-1], flush=True)
    return rows


def table(preset: str, rows: Sequence[dict[str, Any]], sides: Sequence[int]) -> Table:
    """Makes a table of the rows of one preset."""
    shown = Table(title=f"{preset}: seconds a picture")
    for name in ("way", "precision", *(f"{side}²" for side in sides), "Mpx/s", "peak GiB"):
        shown.add_column(name, justify="left" if name in ("way", "precision") else "right")
    for row in rows:
        cells = (f"{row['seconds'][side]:.2f}" if side in row["seconds"] else "-" for side in sides)
        shown.add_row(row["way"], row["precision"], *cells, f"{row['mpx_s']:.3g}", f"{row['peak_gib']:.2f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--preset", action="append", help="Preset to measure; may be repeated. The default is paper and small."
    )
    parser.add_argument("--largest", type=int, default=8192)
    parser.add_argument("--limit", type=float, default=20.0, help="Time limit in seconds; larger sizes are omitted.")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    reuse_freed_memory()
    exact_kernels()
    sides = [side for power in range(8) if (side := SMALLEST << power) <= arguments.largest]
    presets, console = arguments.preset or ["paper", "small"], Console(width=140)
    figures = {preset: measured(preset, sides, arguments.limit) for preset in presets}
    shapes = {preset: [apart(speed.network(preset), *shape) for shape in SHAPES] for preset in presets}
    for preset in presets:
        console.print(table(preset, figures[preset], sides))
        for row in shapes[preset]:
            console.print(
                "{rows_px}×{columns_px}: {changed:.2e} of the values differ, by {most:.1e} at most".format(**row)
            )
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump({"machine": machine(), "figures": figures, "shapes": shapes}, file, indent=2)


if __name__ == "__main__":
    main()
