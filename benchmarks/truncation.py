"""Truncation: what it changes in quality and variety.

python benchmarks/truncation.py CHECKPOINT DATA [--local] [--truncations 0.5 0.7 1.0] [--worlds 40]

For each truncation, patches of the training size and frames as high as a photograph, by the law of `infinitygan
evaluate`, are compared with the held-out photographs of a training set. All truncations use the same seeds and places.
With --local it is the local truncation that varies, and frames two and four times as high are compared too.
Precision falls where pictures look like no photograph, and recall where kinds of photographs are missing. Training
photographs give the floor. Errors are one standard error by bootstrap over photographs and worlds.
"""

import argparse
import sys
from pathlib import Path

import torch
from rich.console import Console

from model.bundled import resolve
from model.checkpoint import load_checkpoint
from model.errors import InputError
from model.memory import reuse_freed_memory
from model.metrics.feature_networks import feature_networks
from model.networks.generator import Generator
from model.networks.lpips import Lpips
from model.world.definition import Definition
from model.world.world import World
from pipelines.cli import refuse
from pipelines.evaluate import describe_photographs, describe_worlds
from pipelines.terminal.evaluation_tables import number, table
from transforms.evaluation.results import Findings, distances
from transforms.evaluation.settings import PATCH, Evaluation, frame
from transforms.evaluation.windows import Renderer


def compare(
    generator: Generator, data: str, field: str, scales: tuple[int, ...], truncations: list[float], worlds: int
) -> dict[str, dict[str, Findings]]:
    """Returns the distances of each set of pictures to photographs, by the value of a field of the definition."""
    evaluation = Evaluation(worlds=worlds, scales=scales, frames=1, bands_px=(0,), band_patches=1, band_crops=1)
    pairs = {PATCH: PATCH} | {frame(scale): frame() for scale in scales}
    device = str(next(generator.parameters()).device)
    networks = feature_networks(Lpips().to(device), None, device)
    references = describe_photographs(data, generator.config, evaluation, networks)
    results: dict[str, dict[str, Findings]] = {}
    for truncation in truncations:

        def opened(seed: int, truncation: float = truncation) -> Renderer:
            values = {"local_truncation": 1.0, field: truncation}
            return World(generator, Definition(seed, **values)).render

        found = describe_worlds(opened, references, networks)
        results[f"{truncation:g}"] = {
            name: distances(*references.compare(found, name, real)) for name, real in pairs.items()
        }
    return results


def show(results: dict[str, dict[str, Findings]]) -> None:
    """Prints one table for each set of pictures."""
    for name in next(iter(results.values())):
        found = {truncation: sets[name] for truncation, sets in results.items()}
        first = next(iter(found.values()))
        measures = [key for key, figures in first.items() if isinstance(figures, dict)]
        rows = [
            [truncation, *(f"{number(figures[key]['value'])} ± {number(figures[key]['error'])}" for key in measures)]
            for truncation, figures in found.items()
        ]
        rows.append(["photographs", *(number(first[key]["trained"]) for key in measures)])
        Console(width=200).print(table(f"{name}, {first['pictures']} pictures", ["truncation", *measures], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--truncations", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    parser.add_argument("--worlds", type=int, default=40)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = load_checkpoint(Path(resolve(given.checkpoint)).read_bytes(), given.checkpoint)
    field, scales = ("local_truncation", (1, 2, 4)) if given.local else ("truncation", (1,))
    show(compare(checkpoint.generator.to(device), given.data, field, scales, given.truncations, given.worlds))


if __name__ == "__main__":
    reuse_freed_memory()
    try:
        main()
    except InputError as error:
        sys.exit(refuse(str(error)))
