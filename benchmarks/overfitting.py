"""Measures whether the number of photographs limits training: how the discriminator judges known and unknown ones.

python benchmarks/overfitting.py DATA [--init bundled|CHECKPOINT] [--out FILE.json]

CHECKPOINT belongs to a run, with its training state next to it. Crops of all training photographs, of the held-out
ones and new windows of the generator are judged without augmentation; a picture's verdict is the mean of its maps. r_v
tells where held-out photographs lie between training photographs and generated pictures: at 0 if the discriminator has
not memorised its photographs, at 1 if it takes others for generated ones (Karras et al. 2020, ADA, Equation 1). Errors
are the bootstrap's over photographs.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.bundled import BUNDLED, resolve
from model.checkpoint import load_checkpoint
from model.config import default_recipe, recipe_for
from model.metrics.distances import WeightedValues, bootstrap_weights, estimate, mean
from model.networks.coordinates import vertical_label
from model.training.trainer import Trainer
from pipelines.train import start_from
from transforms.evaluation.crops import Photographs, read_photographs
from transforms.evaluation.settings import Evaluation, band
from transforms.storage.files import read_bytes

BATCH, GENERATED, DRAWS = 40, 400, 200
BANDS_PX = (-48, 0, 48)


def trainer_of(init: str) -> Trainer:
    """Returns a trainer with the networks of a checkpoint and its training state."""
    generator = load_checkpoint(read_bytes(resolve(init)), init).generator
    trainer = Trainer(generator.config, recipe_for(generator.config, default_recipe("small")))
    start_from(trainer, init)
    trainer.discriminator.eval()
    return trainer


@torch.inference_mode()
def judge(trainer: Trainer, batches: Iterable[tuple[Tensor, Tensor]]) -> WeightedValues:
    """Returns the discriminator's verdicts on pictures in [-1, 1] and their t, each batch a group."""
    means = []
    for pictures, t in batches:
        position = vertical_label(trainer.generator_config, t)
        maps, _ = trainer.discriminator(pictures.contiguous(memory_format=torch.channels_last), position)
        means.append(torch.cat([x.flatten(1) for x in maps], dim=1).mean(dim=1))
    groups = torch.cat([torch.full((len(x),), number) for number, x in enumerate(means)])
    return WeightedValues(torch.cat(means), groups, bootstrap_weights(len(means), DRAWS, seed=0))


def photographs(of: Photographs) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each photograph's crops at the top, the middle and the bottom."""
    for sets in of:
        bands = [sets[band(band_px)] for band_px in BANDS_PX]
        t = torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(len(bands[0]))
        yield torch.cat(bands).float() / 127.5 - 1, t


def generated(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields windows within the photographs' frame."""
    trainer.images_before = 0  # as at the start of training, when no windows lie beyond it
    random = torch.Generator().manual_seed(0)
    for _ in range(GENERATED // BATCH):
        windows = trainer.draw(BATCH, random)
        yield trainer.generate(windows)[0], windows.t


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--init", default=BUNDLED)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    trainer = trainer_of(arguments.init)
    held_out, trained = read_photographs(arguments.data, trainer.generator_config, Evaluation())
    samples = {
        "training photographs": judge(trainer, photographs(trained)),
        "held-out photographs": judge(trainer, photographs(held_out)),
        "generated": judge(trainer, generated(trainer)),
    }
    means = {name: mean(sample) for name, sample in samples.items()}
    known, unknown, made = means.values()
    draws = {**means, "r_v": (known - unknown) / (known - made)}
    figures = {name: astuple(estimate(each)) for name, each in draws.items()}
    table = Table("", "verdict", "error")
    for name, (value, error) in figures.items():
        table.add_row(name, f"{value:.3f}", f"{error:.3f}")
    Console().print(table)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
