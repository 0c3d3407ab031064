"""Measures the cost of a step of inversion, compared with the same loop written plainly.

python benchmarks/invert.py [--checkpoint FILE] [--size 256x128] [--out FILE.json]

The plain loop uses both networks as they come, with gradients for their weights too, and computes the photograph's
features again in each step. Each way runs in its own process, in turn. The time is processor time of one thread, so
that a busy machine matters less; the fastest round counts.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from model.bundled import CHECKPOINT
from model.checkpoint import load_checkpoint
from model.inversion import Inversion, InversionConfig, Target
from model.memory import reuse_freed_memory

WAYS = {
    "plain": {},
    "networks frozen": {"frozen"},
    "and the photograph seen once": {"frozen", "once"},
    "and freed memory reused (ours)": {"frozen", "once", "memory"},
}
ROUNDS, STEPS = 3, 6


class PlainInversion(Inversion):
    """Computes the photograph's features again in each step."""

    def advance(self) -> dict[str, float]:
        """Takes one step."""
        for tile in self.tiles:
            tile.features[:] = self.lpips.features(tile.pixels)
        return super().advance()


def measure(checkpoint: str, size: tuple[int, int], savings: set[str]) -> dict[str, float]:
    """Returns the seconds per step and the peak memory, measured in this process."""
    torch.set_num_threads(1)
    if "memory" in savings:
        reuse_freed_memory()
    generator = load_checkpoint(Path(checkpoint).read_bytes(), checkpoint).generator
    pixels = torch.randint(0, 256, (3, size[1], size[0]), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kind = Inversion if "once" in savings else PlainInversion
    inversion = kind(generator, Target(pixels, 0, -size[1] // 2), InversionConfig(steps=1000))
    if "frozen" not in savings:
        for network in (inversion.generator, inversion.lpips):
            network.requires_grad_(True)
    inversion.advance()
    times = []
    for _ in range(STEPS):
        start = time.process_time()
        inversion.advance()
        times.append(time.process_time() - start)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_s": min(times), "peak_mib": peak_mib}


def measure_apart(arguments: argparse.Namespace, way: str) -> dict[str, float]:
    """Measures the same in its own process."""
    command = [sys.executable, __file__, "--checkpoint", arguments.checkpoint, "--size", arguments.size, "--way", way]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=str(CHECKPOINT))
    parser.add_argument("--size", default="256x128")
    parser.add_argument("--out")
    parser.add_argument("--way", choices=WAYS, help="measure only this way")
    arguments = parser.parse_args()
    if arguments.way:
        width, height = map(int, arguments.size.split("x"))
        print(json.dumps(measure(arguments.checkpoint, (width, height), WAYS[arguments.way])))
        return
    rounds = [{way: measure_apart(arguments, way) for way in WAYS} for _ in range(ROUNDS)]
    best = {way: {key: min(one[way][key] for one in rounds) for key in rounds[0][way]} for way in WAYS}
    table = Table(title=f"A step of inversion at {arguments.size} px, one thread")
    for name in ("way", "s", "times as fast", "peak memory, MiB"):
        table.add_column(name)
    for way, result in best.items():
        faster = best["plain"]["step_s"] / result["step_s"]
        table.add_row(way, f"{result['step_s']:.3f}", f"{faster:.2f}", f"{result['peak_mib']:.0f}")
    Console().print(table)
    if arguments.out:
        machine = {"processor": platform.processor(), "python": platform.python_version(), "torch": torch.__version__}
        Path(arguments.out).write_text(json.dumps({"machine": machine, "size": arguments.size, "ways": best}, indent=2))


if __name__ == "__main__":
    main()
