"""Measures whether generated pictures copy photographs: whether they are nearer to those trained on than to others.

python benchmarks/neighbours.py CHECKPOINT DATA [--worlds 40] [--out FILE.json] [--picture FILE.png]

Frames of worlds, as high as a photograph, are compared with three frames of each photograph of DATA. The distance of
two pictures is 1 - cosine of their features. For each world, the nearest of the held-out photographs is compared with
the nearest of as many photographs of the training split, drawn 200 times: how often is the latter nearer? If nothing is
copied, half of the time. For comparison the held-out photographs, which cannot be copies, take the place of worlds;
each is left out of the others. Errors are those of the mean over worlds or photographs. The picture shows, for the
worlds that are nearest to a training photograph in the first network's features, the world above that photograph.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.bundled import resolve
from model.checkpoint import Checkpoint, load_checkpoint
from model.memory import reuse_freed_memory
from model.metrics.feature_networks import feature_networks
from model.networks.lpips import Lpips
from transforms.evaluation.crops import HELD_OUT, read_pictures
from transforms.evaluation.figures import sheet
from transforms.evaluation.settings import cut
from transforms.evaluation.windows import open_world, render_window
from transforms.storage.tensor_files import read_tensors
from transforms.training_set.dataset import IndexRows, read_dataset

FRAMES, DRAWS, SHOWN, FIRST_WORLD = 3, 200, 8, 1000


def photographs(data: str, splits: tuple[str, ...]) -> Tensor:
    """Returns the frames of photographs, uint8 [n,FRAMES,3,h,h]."""
    found = []
    for _, picture in read_pictures(data, IndexRows(data, read_dataset(data), splits)):
        _, height, width = picture.shape
        lefts = [(width - height) * place // (FRAMES - 1) for place in range(FRAMES)]
        found.append(cut(picture, height, [(0, left) for left in lefts]))
    return torch.stack(found)


def worlds(checkpoint: Checkpoint, count: int) -> Tensor:
    """Returns a frame of each world, uint8 [n,1,3,h,h]."""
    full = checkpoint.generator.config.full_px
    rows, columns = (-(full // 2), full - full // 2 - 1), (0, full - 1)
    seeds = range(FIRST_WORLD, FIRST_WORLD + count)
    return torch.stack([render_window(open_world(checkpoint.generator, seed), rows, columns)[None] for seed in seeds])


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance of the nearest frames of each two, [n,m], from features [n,k,d] and [m,l,d]."""
    similar = torch.einsum("nkd,mld->nmkl", F.normalize(x, dim=2), F.normalize(y, dim=2))
    return 1 - similar.amax(dim=(2, 3))


def share_nearer(trained: Tensor, held_out: Tensor) -> Tensor:
    """Returns how often a draw of training photographs has a nearer one than the held-out ones, [n].

    Args:
        trained: The distances from all training photographs, [n,m].
        held_out: The distances from the held-out ones, [n,l]; infinite for those that are left out.
    """
    random = torch.Generator().manual_seed(0)
    nearest, count = held_out.amin(dim=1), int(held_out.isfinite().sum(dim=1).min())
    draws = [torch.randperm(trained.shape[1], generator=random)[:count] for _ in range(DRAWS)]
    return torch.stack([(trained[:, draw].amin(dim=1) < nearest).float() for draw in draws]).mean(dim=0)


def measure(features: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """Returns the mean share of worlds, and of held-out photographs, with its error, from features by set."""
    known, others, made = features["trained"], features["held out"], features["worlds"]
    apart = distances(others, others).fill_diagonal_(torch.inf)
    shares = {
        "worlds": share_nearer(distances(made, known), distances(made, others)),
        "held-out photographs": share_nearer(distances(others, known), apart),
    }
    return {name: (float(x.mean()), float(x.std() / len(x) ** 0.5)) for name, x in shares.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    reuse_freed_memory()
    url = resolve(arguments.checkpoint)
    sets = {
        "trained": photographs(arguments.data, ("train",)),
        "held out": photographs(arguments.data, HELD_OUT),
        "worlds": worlds(load_checkpoint(read_tensors(url), url), arguments.worlds),
    }
    networks = feature_networks(Lpips(), None, "cpu")
    features = {
        name: {part: network.features(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for part, x in sets.items()}
        for name, network in networks.items()
    }
    found = {name: measure(each) for name, each in features.items()}
    table = Table("nearer to training photographs", *networks)
    for row in next(iter(found.values())):
        table.add_row(row, *("{:.2f} ± {:.2f}".format(*found[name][row]) for name in networks))
    Console().print(table)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2))
    if arguments.picture:
        first = next(iter(features.values()))
        nearest, number = distances(first["worlds"], first["trained"]).min(dim=1)
        chosen = nearest.argsort()[:SHOWN]
        neighbours = sets["trained"][number[chosen], FRAMES // 2]
        sheet([("worlds", (sets["worlds"][chosen, 0],)), ("nearest", (neighbours,))]).save(arguments.picture)


if __name__ == "__main__":
    main()
