"""Measures a training step by part, compared with StyleGAN2's grouped convolutions in eager float32.

python benchmarks/train.py [--preset small|paper] [--recipe paper|projected] [--batch N] [--turns N] [--out FILE.json]

Random pictures replace photographs. Only the generator's convolutions and memory layout differ. The two forms take
turns; each figure is the best of its turns. On a CPU one thread computes and its processor time is measured, because
others may be using the machine. Lazy regularisers count by their share of the steps.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.config import PRESETS, RECIPES
from model.memory import reuse_freed_memory
from model.networks.layers import ModulatedConvolution
from model.training.processes import launch, peak_bytes
from model.training.trainer import Trainer

TARGET = {"cpu": 1.1, "cuda": 2.0}


def grouped(self: ModulatedConvolution, x: Tensor, style: Tensor) -> Tensor:
    """Applies a modulated convolution as in StyleGAN2: one weight per picture, convolved in groups (Section 2.2)."""
    n, channels, height, width = x.shape
    weight = self.weight * self.gain * self.affine(style)[:, None, :, None, None]  # [N,O,I,k,k]
    if self.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, n * channels, height, width)
    if self.up:
        transposed = weight.transpose(1, 2).flip(3, 4).reshape(n * channels, -1, *weight.shape[3:])
        y = F.conv_transpose2d(x, transposed, stride=2, padding=1, groups=n)
    else:
        y = F.conv2d(x, weight.flatten(0, 1), groups=n)
    return y.reshape(n, -1, *y.shape[2:])


@contextmanager
def form(forward: Callable) -> Iterator[None]:
    """Replaces the modulated convolutions within its block."""
    before = ModulatedConvolution.forward
    ModulatedConvolution.forward = forward
    try:
        yield
    finally:
        ModulatedConvolution.forward = before


class Clock:
    """Accumulates the seconds spent in methods of a trainer."""

    def __init__(self, trainer: Trainer):
        self.seconds: dict[str, float] = {}
        self.gpu = trainer.device.startswith("cuda")
        for name in ("generate", "discriminator_backward", "generator_backward", "path_length"):
            setattr(trainer, name, self.timed(name, getattr(trainer, name)))
        if trainer.config.recipe == "projected":
            features = trainer.discriminator.features
            features.forward = self.timed("features", features.forward)

    def timed(self, name: str, method: Callable) -> Callable:
        """Wraps a method so that its seconds are added up under a name."""

        def run(*arguments):
            start = self.now()
            result = method(*arguments)
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start
            return result

        return run

    def now(self) -> float:
        """Returns the time after a GPU has finished its work; on a CPU, the processor time."""
        if not self.gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def step_s(trainer: Trainer, clock: Clock, number: int, pictures: Tensor, t: Tensor) -> dict[str, float]:
    """Returns the seconds of a step with this number, in total and by part."""
    trainer.steps = number
    clock.seconds.clear()
    start = clock.now()
    trainer.step(pictures, t)
    return {"step": clock.now() - start, **clock.seconds}


def costs(trainer: Trainer, clock: Clock, pictures: Tensor, t: Tensor) -> dict[str, float]:
    """Returns the mean seconds of a step and of its parts, over steps of which one has each lazy regulariser."""
    config = trainer.config
    plain = step_s(trainer, clock, 1, pictures, t)
    parts = {
        "G forward": plain["generate"],
        "D": plain["discriminator_backward"] - plain["generate"],
        "G backward": plain["generator_backward"],
        "features forward": plain.get("features", 0.0),
    }
    lazy = 0.0
    if config.path_weight > 0:
        path = step_s(trainer, clock, config.path_every, pictures, t)
        lazy += max(0.0, path["generator_backward"] - plain["generator_backward"]) / config.path_every
    if config.r1_weight > 0:
        r1 = step_s(trainer, clock, config.r1_every, pictures, t)
        lazy += max(0.0, r1["discriminator_backward"] - plain["discriminator_backward"]) / config.r1_every
    parts["lazy"] = lazy
    parts["rest"] = max(0.0, plain["step"] - parts["G forward"] - parts["D"] - parts["G backward"])
    return {"step": plain["step"] + lazy, **parts}


def measure(preset: str, recipe: str, batch: int, turns: int) -> list[dict[str, float | str]]:
    """Measures our form and the grouped one, each as the fastest of some turns."""
    config = dataclasses.replace(RECIPES[recipe], batch=batch)
    processes = launch("tf32")
    random = torch.Generator().manual_seed(0)
    side = PRESETS[preset].patch_px
    pictures = torch.rand(batch, 3, side, side, generator=random) * 2 - 1
    t = torch.rand(batch, generator=random) * 2 - 1
    forms = {"ours": ModulatedConvolution.forward, "grouped": grouped}
    trainers = {name: Trainer(PRESETS[preset], config, processes) for name in forms}
    clocks = {name: Clock(trainer) for name, trainer in trainers.items()}
    trainers["grouped"].generator.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    best: dict[str, dict[str, float]] = {}
    for turn in range(turns + 1):
        for name, forward in forms.items():
            with form(forward):
                if turn == 0:
                    trainers[name].step(pictures, t)  # warm-up, not counted
                    continue
                found = costs(trainers[name], clocks[name], pictures, t)
            best[name] = min(best.get(name, found), found, key=lambda costs: costs["step"])
    rows: list[dict[str, float | str]] = []
    for name, found in best.items():
        rates = {"images/s": batch / found["step"], "to grouped": best["grouped"]["step"] / found["step"]}
        parts = {part: seconds / found["step"] for part, seconds in found.items() if part != "step"}
        rows.append({"preset": preset, "recipe": recipe, "form": name, **rates, **parts})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="small", choices=["small", "paper"])
    parser.add_argument(
        "--recipe",
        action="append",
        choices=list(RECIPES),
        help="Recipe to measure; may be repeated. The default is both.",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    reuse_freed_memory()
    torch.set_num_threads(1)
    rows = [
        row
        for recipe in arguments.recipe or RECIPES
        for row in measure(arguments.preset, recipe, arguments.batch, arguments.turns)
    ]
    device = str(launch().device)
    table = Table(title=f"A training step of {arguments.batch} on {device}")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        cells = (f"{x:.3g}" if name in ("images/s", "to grouped") else f"{x:.0%}" for name, x in list(row.items())[3:])
        table.add_row(*list(row.values())[:3], *cells)
    Console(width=140).print(table)
    peak_gb = peak_bytes(device) / 2**30
    print(f"Peak memory {peak_gb:.2f} GiB. Ours is to reach {TARGET[device.split(':')[0]]} of the grouped form.")
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump({"device": device, "batch": arguments.batch, "peak_gib": peak_gb, "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
