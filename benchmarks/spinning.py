"""Measures the cost of OpenMP threads that spin while they wait: alone, next to other work, and in two processes.

python benchmarks/spinning.py [--work render] [--work train] [--turns 3] [--counts 1000,10000]

The settings take turns, so that other load on the machine affects all of them equally. Each figure is the median over
the turns, relative to OpenMP's default alone. Times and processor times are those of the work itself, without the start
of a process.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from model.threads import SPINS

TILES, STEPS = 4, 1
"""The work of a process: tiles of 256 px, or training steps of 16 photographs, with the preset `small`."""


def render() -> Callable[[], object]:
    """Prepares rendering tiles of the bundled checkpoint's world."""
    from model.speed import network
    from model.world.definition import Definition
    from model.world.world import World

    world = World(network("small"), Definition(7))
    return lambda: [world.compute((-128, 127), (256 * column, 256 * column + 255)) for column in range(TILES)]


def train() -> Callable[[], object]:
    """Prepares training steps on noise."""
    import torch

    from model.config import PRESETS, default_recipe, recipe_for
    from model.training.trainer import Trainer

    network = PRESETS["small"]
    trainer = Trainer(network, recipe_for(network, default_recipe("small")))
    batch, side = trainer.config.batch, network.patch_px
    photographs = torch.rand(batch, 3, side, side) * 2 - 1
    t = torch.rand(batch) * 2 - 1
    return lambda: [trainer.step(photographs, t) for _ in range(STEPS)]


WORK = {"render": render, "train": train}


def measured(name: str) -> None:
    """Does the work once to warm up, then prints its time and processor time in seconds."""
    call = WORK[name]()
    call()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))


def environment(setting: dict[str, str]) -> dict[str, str]:
    """Returns this process's environment with another setting of OpenMP."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in names} | setting


def at_once(name: str, setting: dict[str, str], copies: int, busy: int) -> tuple[float, float]:
    """Returns time and processor time of the work: means over `copies` concurrent copies next to `busy` busy loops."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    command = [sys.executable, __file__, "--measure", name]
    try:
        running = [
            subprocess.Popen(command, env=environment(setting), stdout=subprocess.PIPE, text=True)
            for _ in range(copies)
        ]
        figures = [json.loads(process.communicate()[0]) for process in running]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    wall, cpu = (statistics.mean(column) for column in zip(*figures, strict=True))
    return wall, cpu


PLACES = {"alone": (1, 0), "next to two busy loops": (1, 2), "two at once": (2, 0)}
"""The number of processes that do the work, and the number of busy loops."""


def main(
    work: Annotated[list[str] | None, typer.Option(help=f"{', '.join(WORK)}; may be repeated.")] = None,
    turns: Annotated[int, typer.Option(help="How often each setting is measured.")] = 3,
    counts: Annotated[str, typer.Option(help="Further spin counts to measure, separated by commas.")] = "",
    measure: Annotated[str | None, typer.Option(help="Only do this work once and print its time.")] = None,
) -> None:
    """Compares OpenMP's default, the project's setting, passive waiting and others."""
    if measure:
        measured(measure)
        return
    settings: dict[str, dict[str, str]] = {
        "OpenMP's own": {"GOMP_SPINCOUNT": "300000"},
        f"ours, {SPINS} spins": {},
        "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
        **{f"{count} spins": {"GOMP_SPINCOUNT": count} for count in counts.split(",") if count},
    }
    for name in work or list(WORK):
        figures = {place: {setting: [] for setting in settings} for place in PLACES}
        for _ in range(turns):
            for place, (copies, busy) in PLACES.items():
                for setting, variables in settings.items():
                    figures[place][setting].append(at_once(name, variables, copies, busy))
                    print(name, place, setting, *figures[place][setting][-1], file=sys.stderr, flush=True)
        show(name, figures)


def show(name: str, figures: dict[str, dict[str, list[tuple[float, float]]]]) -> None:
    """Prints a table of medians as shares."""
    medians = {
        place: {setting: list(map(statistics.median, zip(*turns, strict=True))) for setting, turns in row.items()}
        for place, row in figures.items()
    }
    wall_s, cpu_s = medians["alone"]["OpenMP's own"]
    table = Table(title=f"{name}: time and processor time; 1 is {wall_s:.2f} s and {cpu_s:.2f} s")
    for column in ("setting", *PLACES):
        table.add_column(column, justify="left" if column == "setting" else "right")
    for setting in medians["alone"]:
        cells = [medians[place][setting] for place in PLACES]
        table.add_row(setting, *(f"{wall / wall_s:.2f}  {cpu / cpu_s:.2f}" for wall, cpu in cells))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
