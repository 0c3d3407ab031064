"""Measures the power of pictures by octave at each scale, and how far each scale is from those below.

python benchmarks/octaves.py CHECKPOINT DATA [--worlds 40] [--out FILE.json]

Windows of 192 px are drawn at scales 1, 4 and 16, around the same places within the photographs' field of view. Power
is that of luma in the octave below the Nyquist frequency and in the three octaves below that one, as a share of that of
the held-out photographs of DATA. Photographs have similar spectra at any scale, so they are the reference for all of
them. Differences are those of a window from the same part of a lower scale, reduced by averaging, in levels of 255.
Errors are those of the mean over worlds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.bundled import resolve
from model.checkpoint import Checkpoint, load_checkpoint
from model.memory import reuse_freed_memory
from model.metrics.statistics import power_between
from model.world.detailed import at_scale
from model.world.scale import SCALES
from transforms.evaluation.crops import HELD_OUT, read_pictures
from transforms.evaluation.scaled import difference_from
from transforms.evaluation.settings import cut
from transforms.evaluation.windows import plain_world, render_window
from transforms.storage.tensor_files import read_tensors
from transforms.training_set.dataset import IndexRows, read_dataset

SIDE_PX = 192
"""A multiple of the largest scale."""
PLACES = 4
FIRST_WORLD = 1000
OCTAVES = ((0.25, 0.5), (0.125, 0.25), (0.0625, 0.125), (0.03125, 0.0625))

Figure = tuple[float, float]
"""A mean and its standard error."""


def powers(pictures: Tensor) -> Tensor:
    """Returns the mean power of pictures in each octave, float64 [4]."""
    return torch.stack([power_between(pictures, *octave).mean() for octave in OCTAVES])


def photographs(data: str) -> Tensor:
    """Returns the power of each held-out photograph, [n,4]."""
    found = []
    for number, (_, picture) in enumerate(read_pictures(data, IndexRows(data, read_dataset(data), HELD_OUT))):
        free = picture.shape[1] - SIDE_PX + 1, picture.shape[2] - SIDE_PX + 1
        corners = np.random.default_rng(number).integers(0, free, (PLACES, 2))
        found.append(powers(cut(picture, SIDE_PX, [(int(y), int(x)) for y, x in corners])))
    return torch.stack(found)


def windows(checkpoint: Checkpoint, seed: int) -> dict[int, Tensor]:
    """Returns windows of a world uint8 [PLACES,3,SIDE_PX,SIDE_PX] at each scale, around the same places."""
    world, random = plain_world(checkpoint.generator, seed), np.random.default_rng(seed)
    most = (checkpoint.generator.config.full_px - SIDE_PX // SCALES[1]) // 2
    middles = [(int(random.integers(-most, most + 1)), int(random.integers(10**6))) for _ in range(PLACES)]
    return {
        scale: torch.stack(
            [
                render_window(at_scale(world, checkpoint.detail, scale).render, *(around(x, scale) for x in middle))
                for middle in middles
            ]
        )
        for scale in SCALES
    }


def around(middle: int, scale: int) -> tuple[int, int]:
    """Returns the pixels of a scale around a pixel of the base."""
    low = middle * scale - SIDE_PX // 2
    return low, low + SIDE_PX - 1


def differences(drawn: dict[int, Tensor]) -> dict[str, float]:
    """Returns the difference of each scale from each lower one."""
    found = {}
    for place, low in enumerate(SCALES):
        for high in SCALES[place + 1 :]:
            half = SIDE_PX * low // high // 2
            middle = slice(SIDE_PX // 2 - half, SIDE_PX // 2 + half)
            pairs = zip(drawn[low][:, :, middle, middle], drawn[high], strict=True)
            found[f"scale {high} from {low}"] = float(np.mean([difference_from(*pair) for pair in pairs]))
    return found


def summary(values: Tensor) -> list[Figure]:
    """Returns the mean of each column [n,k], and its error."""
    errors = values.std(dim=0) / len(values) ** 0.5
    return list(zip(values.mean(dim=0).tolist(), errors.tolist(), strict=True))


def measure(checkpoint: Checkpoint, data: str, worlds: int) -> tuple[dict[str, list[Figure]], dict[str, Figure]]:
    """Returns the power of photographs, that of each scale as a share of it, and the differences between scales."""
    reference = photographs(data)
    found, apart = {scale: [] for scale in SCALES}, []
    for seed in range(FIRST_WORLD, FIRST_WORLD + worlds):
        drawn = windows(checkpoint, seed)
        for scale, pictures in drawn.items():
            found[scale].append(powers(pictures))
        apart.append(differences(drawn))
    power = {"photographs, levels²": summary(reference)}
    power |= {f"scale {scale}": summary(torch.stack(each) / reference.mean(dim=0)) for scale, each in found.items()}
    between = summary(torch.tensor([list(each.values()) for each in apart]))
    return power, dict(zip(apart[0], between, strict=True))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    reuse_freed_memory()
    url = resolve(arguments.checkpoint)
    power, between = measure(load_checkpoint(read_tensors(url), url), arguments.data, arguments.worlds)
    table = Table("", *(f"{low:g} to {high:g} cycles per px" for low, high in OCTAVES))
    for name, row in power.items():
        table.add_row(name, *(f"{value:.3g} ± {error:.2g}" for value, error in row))
    Console().print(table)
    for name, (value, error) in between.items():
        print(f"{name}: {value:.2f} ± {error:.2f} of 255")
    if arguments.out:
        arguments.out.write_text(json.dumps({"power": power, "differences": between}, indent=2))


if __name__ == "__main__":
    main()
