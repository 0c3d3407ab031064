"""Measures the cost of the pipeline: a render job through Beam, and a plain loop over the same tiles, shards and files.

python benchmarks/pipeline.py [--preset small] [--seconds 120] [--rounds 3] [--out FILE.json]

Both compute the same tiles with the same engine and write the same shards and panoramas. The loop does so without Beam,
one step after another except for what engine and writers overlap by themselves. They alternate, and results are medians
over the rounds. The time to start Beam, measured as a job of one small panorama, is subtracted. Run it with
OMP_NUM_THREADS=1. Then the same job runs with two of Beam's in-process workers and with one. The table also shows how
many cores each way kept busy.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model.bundled import BUNDLED
from model.checkpoint import save_checkpoint
from model.config import PRESETS
from model.networks.generator import Generator
from model.version import __version__
from pipelines.render import render
from pipelines.terminal.beam_flags import beam_options
from transforms.panoramas.folder import begin
from transforms.panoramas.patch_shards import write_patch_shard
from transforms.panoramas.requests import RenderRequest
from transforms.render.assemble import assemble_panorama
from transforms.render.options import RenderOptions
from transforms.render.planner import Planner, check_all
from transforms.render.synthesize import Synthesizer
from transforms.render.work import missing_shards

SIZES_PX = ((4096, 512), (1500, 700), (700, 300), (9000, 256), (256, 1024))
TWO_WORKERS = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]


def requests(count: int) -> tuple[RenderRequest, ...]:
    """Returns requests for panoramas of mixed sizes."""
    sizes = [SIZES_PX[index % len(SIZES_PX)] for index in range(count)]
    return tuple(
        RenderRequest(
            id=f"p{seed:04d}", seed=seed, width_px=width, height_px=height, formats=(("png",), ("tif",))[seed % 2]
        )
        for seed, (width, height) in enumerate(sizes)
    )


def timed(job: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Returns the seconds of a job, and the processor seconds of all its threads."""
    start, processor = time.monotonic(), time.process_time()
    job(*arguments)
    return time.monotonic() - start, time.process_time() - processor


def through_beam(options: RenderOptions, flags: list[str]) -> None:
    """Runs a job through Beam."""
    rows = render(options, beam_options(flags))
    assert all(row["state"] == "done" for row in rows)


def plain_loop(options: RenderOptions) -> None:
    """Runs the same job without Beam."""
    synthesizer = Synthesizer()
    for plan in check_all(options, Planner()):
        begin(options.out, plan, None)
        for shard in missing_shards(plan, (), options.tiles_per_shard):
            write_patch_shard(options.out, shard, synthesizer.samples(shard))
        assert assemble_panorama(options.out, plan, (), __version__)["state"] == "done"


def checkpoint(preset: str, folder: Path) -> str:
    """Returns a checkpoint of a preset: the bundled one for `small`, otherwise one with random weights."""
    if preset == "small":
        return BUNDLED
    generator = Generator(PRESETS[preset])
    path = folder / "generator.safetensors"
    path.write_bytes(save_checkpoint(generator.state_dict(), generator.config, {"images": 0}, "CC0-1.0"))
    return str(path)


def measure(preset: str, seconds: float, rounds: int) -> dict[str, float]:
    """Measures a preset."""
    with tempfile.TemporaryDirectory() as name:
        folder, numbers = Path(name), iter(range(10_000))
        url = checkpoint(preset, folder)

        def job(count: int) -> RenderOptions:
            return RenderOptions(requests(count), str(folder / f"{next(numbers)}"), url)

        plain_loop(job(1))  # the first run also does what happens only once
        count = max(5, round(5 * seconds / timed(plain_loop, job(5))[0]))
        tiny = RenderRequest(id="p", seed=0, width_px=16, height_px=16)
        start_s = min(
            timed(through_beam, RenderOptions((tiny,), str(folder / f"{next(numbers)}"), url), [])[0] for _ in range(3)
        )
        times: dict[str, list[tuple[float, float]]] = {"loop": [], "beam": [], "two": []}
        for _ in range(rounds):
            times["loop"].append(timed(plain_loop, job(count)))
            times["beam"].append(timed(through_beam, job(count), []))
            times["two"].append(timed(through_beam, job(count), TWO_WORKERS))
    loop_s, beam_s, two_s = (statistics.median(wall for wall, _ in each) for each in times.values())
    pixels = sum(request.width_px * request.height_px for request in requests(count))
    return {
        "panoramas": count,
        "start_s": start_s,
        "loop_s": loop_s,
        "beam_s": beam_s,
        "loop_mpx_per_s": pixels / 1e6 / loop_s,
        "beam_over_loop": loop_s / (beam_s - start_s),
        "two_over_one": (beam_s - start_s) / (two_s - start_s),
        **{f"{way}_cores": statistics.median(busy / wall for wall, busy in each) for way, each in times.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", action="append", choices=["tiny", "small"])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        preset: measure(preset, arguments.seconds, arguments.rounds) for preset in arguments.preset or ["tiny", "small"]
    }
    table = Table("preset", *next(iter(figures.values())))
    for preset, row in figures.items():
        table.add_row(preset, *(f"{value:.3g}" for value in row.values()))
    Console().print(table)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
