"""What the world's randomness costs, against the texture synthesizer, for one tile of 256 px.

python benchmarks/fields.py [--out FILE.json]
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from model import geometry
from model.config import PRESETS
from model.fields import z_l_field, z_n_fields
from model.generator import Generator
from model.memory import reuse_freed_memory
from model.world import World

TILE_PX = 256
BOUND = 0.05
REPEATS = {"small": 31, "paper": 3}


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


@torch.inference_mode()
def measure(preset: str) -> dict[str, float | str]:
    """Times of one tile, its parts in turn."""
    torch.manual_seed(0)
    world = World(Generator(PRESETS[preset]).eval(), seed=7)
    config = world.config
    cells = geometry.backward(config.texture, (0, TILE_PX - 1))
    latents = geometry.backward(config.structure, cells)
    windows = [(layer, window, window) for layer, window in enumerate(geometry.outputs(config.texture, cells))]
    z_s = torch.randn(1, config.structure_channels, geometry.length(cells), geometry.length(cells))
    z_s = z_s.contiguous(memory_format=torch.channels_last)
    z_n = z_n_fields(7, windows)
    repeats = REPEATS[preset]
    styles = world.fusion.map(cells, cells, 1)
    texture_ms = median_ms(lambda: world.engine.picture(z_s, z_n, cells, cells, styles), repeats)
    z_n_ms = median_ms(lambda: z_n_fields(7, windows), 31)
    z_l_ms = median_ms(lambda: z_l_field(7, latents, latents, config.z_l_dim), 31)
    share = (z_n_ms + z_l_ms) / texture_ms
    return {"preset": preset, "G_T ms": texture_ms, "z_n ms": z_n_ms, "z_l ms": z_l_ms, "share": share}


def main() -> None:
    reuse_freed_memory()
    rows = [measure(preset) for preset in REPEATS]
    table = Table(title=f"Randomness of a {TILE_PX} px tile, {torch.get_num_threads()} threads, {platform.machine()}")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    Console().print(table)
    print(f"The design's bound on the share is {BOUND:.0%}.")
    if len(sys.argv) == 3 and sys.argv[1] == "--out":
        with open(sys.argv[2], "w") as file:
            json.dump({"threads": torch.get_num_threads(), "bound": BOUND, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
