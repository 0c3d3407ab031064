"""Measures the speed of rendering on this machine and its upper bound. Times are the fastest of several whole calls."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from model import cost, geometry
from model.bundled import BUNDLED, resolve
from model.checkpoint import load_checkpoint
from model.config import PRESETS
from model.geometry import Window
from model.kernels import exact_kernels
from model.memory import reuse_freed_memory
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.definition import Definition, Style
from model.world.world import World

TILE_PX, TILES = 256, 16
"""A 2048×512 panorama has as many tiles of this side as a 4096×256 one, or as either half of a 4096×512 one."""

FAR_PX = 3_906_250 * TILE_PX
"""A distance of a billion pixels."""

STYLES = tuple(Style(seed=seed, x_px=512 + 1024 * seed) for seed in range(4))
"""The styles of a 4096 px wide panorama, whose halves above and below the horizon meet equal borders."""

CHANNELS, SIDE = 512, 64
ROOF_CALLS = 6
"""The number of consecutive roofline calls before each tile, so that the best of them finds its data in the cache."""

MATRIX = 8192

Call = Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class Roofline:
    """The machine's peak: a call, its description, and its number of floating-point operations."""

    name: str
    call: Call
    operations: float


def device() -> str:
    """Returns the device that renders on this machine."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def roofline(on: str) -> Roofline:
    """Returns the roofline: on a CPU a convolution of 512 channels, on a GPU a matrix product in bfloat16."""
    if on == "cpu":
        x = torch.randn(1, CHANNELS, SIDE + 2, SIDE + 2).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(CHANNELS, CHANNELS, 3, 3).contiguous(memory_format=torch.channels_last)
        operations = 2 * 9 * CHANNELS**2 * SIDE**2
        return Roofline("3×3 convolution of 512 channels, float32", lambda: F.conv2d(x, weight), operations)
    matrix = torch.randn(MATRIX, MATRIX, device=on, dtype=torch.bfloat16)
    return Roofline(f"matrix product of {MATRIX}², bfloat16", lambda: matrix @ matrix, 2 * MATRIX**3)


def network(preset: str) -> Generator:
    """Returns a generator of a preset: the bundled one if its preset matches, otherwise an untrained one."""
    if preset == "small":
        generator = load_checkpoint(Path(resolve(BUNDLED)).read_bytes(), BUNDLED).generator
    else:
        torch.manual_seed(0)
        generator = Generator(PRESETS[preset]).eval()
    return generator.to(device())


@torch.inference_mode()
def seconds(call: Call) -> float:
    """Measures how long a call takes until its result can be read."""
    start = time.perf_counter()
    result = call()
    result[(0,) * result.dim()].item()  # wait for the device; a view, because a copy would add time
    return time.perf_counter() - start


def fastest(calls: Sequence[Call], turns: int) -> list[float]:
    """Returns the shortest time of each call over `turns` alternating turns; a world's first tile takes longer."""
    times = [[seconds(call) for call in calls] for _ in range(turns)]
    return [min(column) for column in zip(*times, strict=True)]


def tile(world: World, column: int, row: int = -1) -> Call:
    """Returns a call that computes one tile of a world."""
    return lambda: world.compute(tile_window(row), tile_window(column)).pixels


def tile_window(index: int) -> Window:
    """Returns the pixels of a row or column of tiles."""
    return index * TILE_PX, (index + 1) * TILE_PX - 1


def speed(generator: Generator, turns: int, step: Callable[[], None]) -> dict[str, float]:
    """Measures a plain 2048×512 panorama, a 4096×512 one with four styles, and the roofline, tile by tile in turn.

    Args:
        generator: The network.
        turns: How often each tile is computed; the fastest time counts.
        step: Called after each tile.
    """
    plain, fused = World(generator, 7), World(generator, Definition(7, styles=STYLES))
    roof = roofline(device())
    fastest([tile(plain, 0), tile(fused, 0), tile(fused, 3)], 1)  # fold the weights
    roof_s, plain_s, fused_s = [], [], []
    for column in range(TILES):
        roof_s += fastest([roof.call], ROOF_CALLS)
        best = fastest([tile(plain, column), tile(fused, column)], turns)
        plain_s.append(best[0])
        fused_s.append(best[1])
        step()
    ceiling = roof.operations / min(roof_s)
    pixels = TILES * TILE_PX**2
    operations = 2 * cost.needed(generator.config, 1, pixels).network
    return {
        "roofline_gflops": ceiling / 1e9,
        "tile_s": min(plain_s),
        "panorama_s": sum(plain_s),
        "megapixels_per_s": pixels / sum(plain_s) / 1e6,
        "useful_gflops": operations / sum(plain_s) / 1e9,
        "efficiency": operations / sum(plain_s) / ceiling,
        "fused_over_plain": sum(fused_s) / sum(plain_s),
    }


def randomness(generator: Generator, turns: int) -> dict[str, float]:
    """Measures the share of a tile's time that its latents and noise take."""
    world, config = World(generator, 7), generator.config
    cells = geometry.backward(config.texture, tile_window(0))
    latents = geometry.backward(config.structure, cells)
    windows = [(layer, window, window) for layer, window in enumerate(geometry.outputs(config.texture, cells))]
    fields: list[Call] = [lambda: world.latents.z_l(latents, latents), lambda: world.latents.z_n(windows)[-1]]
    z_l_s, z_n_s = fastest(fields, 30)
    (tile_s,) = fastest([tile(world, 0)], turns + 1)
    return {"z_l_s": z_l_s, "z_n_s": z_n_s, "randomness_share": (z_l_s + z_n_s) / tile_s}


def warm_latency(generator: Generator, turns: int) -> dict[str, float]:
    """Measures one tile of a loaded world: near its origin, and a billion pixels away."""
    world = World(generator, 7)
    near_s, far_s = fastest([tile(world, 0), tile(world, FAR_PX // TILE_PX, FAR_PX // TILE_PX)], turns + 1)
    return {"warm_near_s": near_s, "warm_far_s": far_s}


def cold_latency(preset: str, turns: int) -> dict[str, float]:
    """Measures the same from the start of a process to its pixels."""
    times: dict[str, list[float]] = {"cold_near_s": [], "cold_far_s": []}
    for _ in range(turns):
        for name, index in zip(times, (0, FAR_PX // TILE_PX), strict=True):
            code = f"from model.speed import one_tile; one_tile({preset!r}, {index})"
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def one_tile(preset: str, index: int) -> None:
    """Does everything that a fresh process does for one tile."""
    reuse_freed_memory()
    exact_kernels()
    seconds(tile(World(network(preset), 7), index, index))


def precision(generator: Generator, turns: int) -> dict[str, float]:
    """Compares a tile in bfloat16 with the same in float32: the ratio of times, and the difference in levels of 255."""
    worlds = [World(generator, 7, name) for name in ("float32", "bfloat16")]
    full_s, half_s = fastest([tile(world, 0) for world in worlds], turns + 1)
    full, half = (quantise(tile(world, 0)()).int() for world in worlds)
    apart = (full - half).abs()
    return {
        "bfloat16_over_float32": half_s / full_s,
        "bfloat16_mean_levels": float(apart.float().mean()),
        "bfloat16_most_levels": float(apart.max()),
    }
