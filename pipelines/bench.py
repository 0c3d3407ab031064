"""Bench: measures the speed of rendering on this machine, as a table and JSON."""

import platform
import sys
from typing import TypedDict

import torch
from rich.table import Table

from model import cost, speed
from model.config import PRESETS
from model.errors import InputError
from model.kernels import exact_kernels
from model.memory import reuse_freed_memory
from pipelines.terminal.progress import track

TURNS = {"paper": 1, "small": 5, "tiny": 5}
"""How often each measurement is repeated; a tile of `paper` takes seconds."""

MARGIN_TILES_PX = (128, 256, 512, 1024)

ROWS = {
    "roofline_gflops": ("roofline, GFLOP/s", ".0f"),
    "useful_gflops": ("useful arithmetic, GFLOP/s", ".0f"),
    "efficiency": ("arithmetic efficiency, 2048×512", ".1%"),
    "megapixels_per_s": ("megapixels per second", ".3g"),
    **{f"margins_{px}": (f"arithmetic spent on margins, tiles of {px} px", ".1%") for px in MARGIN_TILES_PX},
    "randomness_share": ("time spent on randomness", ".1%"),
    "fused_over_plain": ("four styles over one, 4096×512, time", ".2f"),
    "warm_near_s": ("one tile of 256 px, warm, s", ".3g"),
    "warm_far_s": ("the same 10⁹ px away, s", ".3g"),
    "cold_near_s": ("one tile, from the start of a process, s", ".3g"),
    "cold_far_s": ("the same 10⁹ px away, s", ".3g"),
    "bfloat16_over_float32": ("bfloat16 over float32, time", ".2f"),
    "bfloat16_mean_levels": ("their mean difference, of 255", ".2g"),
    "bfloat16_most_levels": ("their largest difference, of 255", ".0f"),
}
"""The title of each figure in the table, and its format."""


class Machine(TypedDict):
    """The machine on which figures were measured."""

    device: str
    instructions: str
    threads: int
    roofline: str
    torch: str
    python: str


class Document(TypedDict):
    """What bench writes: the machine, and the figures of each preset by name."""

    machine: Machine
    presets: dict[str, dict[str, float]]


def bench(presets: list[str]) -> Document:
    """Measures presets on this machine; returns a JSON document.

    Raises:
        InputError: A preset is unknown, or given twice.
    """
    for preset in presets:
        if preset not in PRESETS or presets.count(preset) > 1:
            raise InputError(f"--preset {preset}: choose from {', '.join(PRESETS)}, each once")
    reuse_freed_memory()
    exact_kernels()
    done: list[None] = []
    with track("Measurements", len(presets) * (speed.TILES + 4), lambda: len(done)):
        figures = {preset: measured(preset, done) for preset in presets}
    return {"machine": machine(), "presets": figures}


def measured(preset: str, done: list[None]) -> dict[str, float]:
    """Measures a preset; appends to `done` after each measurement."""
    generator, turns = speed.network(preset), TURNS[preset]
    config = generator.config
    figures = {f"margins_{px}": cost.margin_share(config, px) for px in MARGIN_TILES_PX}
    figures |= speed.speed(generator, turns, lambda: done.append(None))
    for part in (speed.randomness, speed.warm_latency, speed.precision):
        figures |= part(generator, turns)
        done.append(None)
    figures |= speed.cold_latency(preset, turns=1 if turns == 1 else 2)
    done.append(None)
    return figures


def machine() -> Machine:
    """Describes the machine on which the figures were measured."""
    device = speed.device()
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "roofline": speed.roofline(device).name,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(document: Document) -> Table:
    """Makes a table with one column per preset."""
    presets, host = document["presets"], document["machine"]
    shown = Table(
        title=f"{host['device']}, {host['instructions']}, {host['threads']} threads",
        caption=f"Roofline: {host['roofline']}",
    )
    shown.add_column("figure")
    for preset in presets:
        shown.add_column(preset, justify="right")
    for name, (title, form) in ROWS.items():
        shown.add_row(title, *(format(figures[name], form) for figures in presets.values()))
    return shown


if __name__ == "__main__":
    from pipelines.cli import main

    main(["bench", *sys.argv[1:]])
