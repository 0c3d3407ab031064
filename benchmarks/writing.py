"""Measures the cost of writing: rendering a panorama to a file, compared with only computing its tiles; and its memory.

python benchmarks/writing.py [--memory | --assembly] [--out FILE.json]

Computing and rendering alternate; results are medians over the rounds. Next to the wall time is the processor time,
which other programs disturb less: run it with OMP_NUM_THREADS=1, because threads that wait for each other count there
too. --memory measures the peak memory of rendering ever wider panoramas to BigTIFF instead, each in its own process,
which takes ten minutes to an hour. --assembly assembles one panorama of 512 × 60,000 px from its patches, with all of
assembly's threads and with one; on free cores it takes at least the time that the caller's thread works.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

import transforms.formats.dzi
import transforms.formats.tiff
import transforms.formats.zarr
import transforms.panoramas.patch_shards
from model.bundled import BUNDLED, resolve
from model.checkpoint import sha256
from pipelines.render import render
from transforms.formats.registry import FORMATS
from transforms.panoramas.patch_shards import PatchReader
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import RenderRequest
from transforms.render.assemble import write_file
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner, check_all
from transforms.render.synthesize import Synthesizer, compute_tile
from transforms.storage.files import read_bytes

HEIGHT_PX, TILE_PX, ROUNDS = 512, 256, 5
WIDTH_PX = 16_384
ASSEMBLED_PX, ASSEMBLY_ROUNDS = 60_000, 3
MEMORY_WIDTHS_PX = (10_000, 100_000, 1_000_000)
WRITTEN = ("png", "tif")


def request(width_px: int, name: str) -> RenderRequest:
    return RenderRequest(id="p", seed=7, width_px=width_px, height_px=HEIGHT_PX, formats=(name,))


def render_panorama(width_px: int, name: str) -> None:
    """Runs a render job, from request to manifest."""
    with tempfile.TemporaryDirectory() as out:
        (row,) = render(RenderOptions((request(width_px, name),), out, tile_px=TILE_PX))
        assert row["state"] == "done", row["reason"]


def compute_pixels(synthesizer: Synthesizer, plan: Plan) -> None:
    """Computes the same tiles' pixels and discards them."""
    for index in range(plan.tiles):
        tile = compute_tile(synthesizer.world_of(plan), plan, index)
    if tile.copied is not None:
        tile.copied.synchronize()


def timed(work: Callable[[], None]) -> tuple[float, float, float]:
    """Returns wall time, processor time, and the caller's thread's share of it, in seconds."""
    clocks = time.perf_counter, time.process_time, time.thread_time
    before = [clock() for clock in clocks]
    work()
    wall_s, processor_s, caller_s = (clock() - start for clock, start in zip(clocks, before, strict=True))
    return wall_s, processor_s, caller_s


def speed() -> list[dict[str, Any]]:
    """Measures megapixels per second to each format, and without writing."""
    synthesizer = Synthesizer()
    plan = Plan(request(WIDTH_PX, "png"), BUNDLED, sha256(read_bytes(resolve(BUNDLED))), TILE_PX)
    ways: dict[str, Callable[[], None]] = {"computing alone": lambda: compute_pixels(synthesizer, plan)}
    ways |= {f"to {name}": partial(render_panorama, WIDTH_PX, name) for name in WRITTEN}
    render_panorama(TILE_PX, WRITTEN[0])  # also loads what is loaded only once
    compute_tile(synthesizer.world_of(plan), plan, 0)
    rounds = [{way: timed(work) for way, work in ways.items()} for _ in range(ROUNDS)]
    megapixels = WIDTH_PX * HEIGHT_PX / 1e6
    return [
        {
            "way": way,
            "MP/s": megapixels / statistics.median(times[way][0] for times in rounds),
            "of computing alone": statistics.median(times["computing alone"][0] / times[way][0] for times in rounds),
            "processor ms a tile": statistics.median(times[way][1] for times in rounds) * 1e3 / plan.tiles,
        }
        for way in ways
    ]


def memory() -> list[dict[str, Any]]:
    """Measures the peak memory of rendering panoramas of several widths to BigTIFF."""
    rows: list[dict[str, Any]] = []
    for width_px in MEMORY_WIDTHS_PX:
        child = subprocess.run(
            [sys.executable, __file__, "--peak", str(width_px)], stdout=subprocess.PIPE, text=True, check=True
        )
        peak_mb = float(child.stdout)
        growth_mb = peak_mb - (rows[0]["peak, MB"] if rows else peak_mb)
        rows.append({"width, px": width_px, "peak, MB": peak_mb, "growth, MB": growth_mb})
    return rows


def peak_mb(width_px: int) -> float:
    """Returns the peak memory of this process after it has rendered a panorama."""
    render_panorama(width_px, "tif")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def assembly() -> list[dict[str, Any]]:
    """Measures the assembly of a panorama in each suitable format, with several threads and with one."""
    names = [name for name, form in FORMATS.items() if form.holds(ASSEMBLED_PX, HEIGHT_PX)]
    asked, rows = request(ASSEMBLED_PX, "png"), []
    with tempfile.TemporaryDirectory() as out:
        options = RenderOptions((asked,), out, tile_px=TILE_PX)
        assert render(options)[0]["state"] == "done"
        reader = PatchReader(out, next(iter(check_all(options, Planner()))))
        for name in names:
            work = partial(write_file, name, f"{out}/assembled.{name}", reader, "")
            rounds = [(timed(work), alone(work)) for _ in range(ASSEMBLY_ROUNDS)]
            (wall_s, used_s, caller_s), (alone_s, used_alone_s, _) = (
                map(statistics.median, zip(*ways, strict=True)) for ways in zip(*rounds, strict=True)
            )
            rows.append(
                {
                    "format": name,
                    "wall s": wall_s,
                    "processor s": used_s,
                    "caller's thread s": caller_s,
                    "alone, wall s": alone_s,
                    "alone, processor s": used_alone_s,
                }
            )
    return rows


def alone(work: Callable[[], None]) -> tuple[float, float, float]:
    """Like `timed`, without further threads."""
    modules = [
        transforms.formats.dzi,
        transforms.panoramas.patch_shards,
        transforms.formats.tiff,
        transforms.formats.zarr,
    ]
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(patch.object(module, "map_ahead", map_here))
        return timed(work)


def map_here(function: Callable[[Any], Any], items: Iterable[Any], **_: int) -> Iterator[Any]:
    """Like `map_ahead`, one item ahead, but in the caller's own thread."""
    done = deque[Any]()
    for item in items:
        done.append(function(item))
        if len(done) > 1:
            yield done.popleft()
    yield from done


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        print(peak_mb(int(sys.argv[2])))
        return
    rows = memory() if "--memory" in sys.argv else assembly() if "--assembly" in sys.argv else speed()
    table = Table(title=f"small, {HEIGHT_PX} px high, tiles of {TILE_PX} px, {torch.get_num_threads()} threads")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if "--out" in sys.argv:
        with open(sys.argv[sys.argv.index("--out") + 1], "w") as file:
            json.dump({"threads": torch.get_num_threads(), "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
