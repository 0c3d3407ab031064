"""Measures a detail stage: its pictures against photographs, beside those of plain enlargement.

python benchmarks/detail.py CHECKPOINT DATA [--worlds 40] [--out FILE.json] [--pictures DIR]

DATA holds photographs four times as high as the generator's (`infinitygan ingest --full-size 788`). Each world gives
one frame as high as a photograph, drawn by the detail stage and enlarged by Pillow (bicubic, Lanczos). KID compares
patches of 101 px, and whole frames scaled to the features' size, with held-out photographs; the row of photographs
trained on is the floor. Power is that between half the Nyquist frequency and Nyquist, as a share of the held-out
photographs'. The last column is the mean difference from the base after reducing again, in levels of 255. Errors are
the bootstrap's over photographs and worlds. `--pictures` writes each world's frame.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model import geometry
from model.bundled import resolve
from model.checkpoint import Checkpoint, load_checkpoint
from model.memory import reuse_freed_memory
from model.metrics.distances import Estimate, bootstrap_weights, estimate, kernel_distance, mean
from model.metrics.feature_networks import FeatureNetwork
from model.metrics.picture_sets import Described, describe
from model.networks.detail import FACTOR, DetailStage, base_window, draw_noise, output_window
from model.networks.efficientnet import EfficientNetLite0
from model.quantise import quantise
from model.world.world import World
from transforms.evaluation.crops import HELD_OUT, read_picture
from transforms.evaluation.settings import cut, to_tensor
from transforms.storage.byte_ranges import Piece, read_each
from transforms.storage.files import join
from transforms.storage.tensor_files import read_tensors
from transforms.training_set.dataset import read_index

NETWORK, STAGE = "EffNetLite0", "detail stage"
PATCH_PX, PATCHES = 101, 9
MOST_PHOTOGRAPHS = 60
FIRST_WORLD = 1000
DRAWS = 200
ENLARGED = {"bicubic": Image.Resampling.BICUBIC, "Lanczos": Image.Resampling.LANCZOS}

Sets = dict[str, Tensor]


def crops(picture: Tensor, number: int) -> Sets:
    """Returns patches and one frame, uint8 [n,3,h,w], of a photograph or a world's picture uint8 [3,H,W]."""
    random = np.random.default_rng(number)
    _, height, width = picture.shape
    side = min(height, width)
    corners = random.integers(0, (height - PATCH_PX + 1, width - PATCH_PX + 1), (PATCHES, 2))
    left = int(random.integers(0, width - side + 1))
    return {
        "patches": cut(picture, PATCH_PX, [(int(y), int(x)) for y, x in corners]),
        "frames": cut(picture, side, [((height - side) // 2, left)]),
    }


def photographs(data: str, splits: tuple[str, ...]) -> Iterator[Sets]:
    """Yields the crops of each photograph, or of some if there are more than sixty."""
    rows = [row for row in read_index(data) if row["split"] in splits]
    rows = rows[:: -(-len(rows) // MOST_PHOTOGRAPHS)]
    pieces = (Piece(join(data, row["shard"]), row["offset"], row["size"]) for row in rows)
    for number, (row, content) in enumerate(zip(rows, read_each(pieces), strict=True)):
        if isinstance(content, Exception):
            raise content
        yield crops(read_picture(content, row, row["key"]), number)


@torch.inference_mode()
def draw(checkpoint: Checkpoint, seed: int, height_px: int) -> tuple[dict[str, Tensor], float]:
    """Returns a world's square picture uint8 [3,h,h] by each method, and the detail stage's distance from the base."""
    stage = checkpoint.detail
    assert isinstance(stage, DetailStage)
    rows, columns = (-height_px // 2, height_px - height_px // 2 - 1), (0, height_px - 1)
    base_rows, base_columns = (base_window(stage.config, window) for window in (rows, columns))
    base = World(checkpoint.generator, seed).render(base_rows, base_columns)[None]
    drawn = stage(base, draw_noise(stage.config, base.shape, torch.Generator().manual_seed(seed)))
    place = [
        geometry.part(window, output_window(stage.config, whole))
        for window, whole in ((rows, base_rows), (columns, base_columns))
    ]
    pictures = {STAGE: quantise(drawn[0, :, place[0], place[1]])}
    small = Image.fromarray(quantise(base[0]).permute(1, 2, 0).numpy())
    top, left = rows[0] - FACTOR * base_rows[0], columns[0] - FACTOR * base_columns[0]
    for name, kernel in ENLARGED.items():
        enlarged = to_tensor(small.resize((FACTOR * small.width, FACTOR * small.height), kernel))
        pictures[name] = enlarged[:, top : top + height_px, left : left + height_px]
    return pictures, consistency(drawn, base, stage)


def consistency(drawn: Tensor, base: Tensor, stage: DetailStage) -> float:
    """Returns the mean distance of pictures, reduced by averaging, from their base, in levels of 255."""
    low, high = output_window(stage.config, (0, base.shape[2] - 1))
    first, last = -(-low // FACTOR), (high + 1) // FACTOR
    skipped = first * FACTOR - low
    reduced = F.avg_pool2d(drawn[:, :, skipped:, skipped:], FACTOR)[:, :, : last - first]
    original = base[:, :, first:last, first : first + reduced.shape[3]]
    return float((reduced.clamp(-1, 1) - original.clamp(-1, 1)).abs().mean() * 127.5)


def compare(described: Described, held_out: Described) -> dict[str, Estimate]:
    """Returns KID and, for patches, fine power as a share of the photographs'."""
    both = [
        (x, bootstrap_weights(int(x.groups.max()) + 1, DRAWS, seed)) for seed, x in enumerate((described, held_out))
    ]
    features = [x.weighted(NETWORK, weights) for x, weights in both]
    found = {"KID": estimate(kernel_distance(*features))}
    if "fine_power" in described.statistics:
        mine, theirs = (mean(x.weighted("fine_power", weights)) for x, weights in both)
        found["power"] = estimate(mine / theirs)
    return found


def measure(checkpoint: Checkpoint, data: str, worlds: int, pictures: Path | None) -> dict[str, dict[str, Estimate]]:
    """Returns the figures of each method and of the photographs trained on."""
    networks = {NETWORK: FeatureNetwork(EfficientNetLite0(), 224, "bicubic")}
    held_out = describe(photographs(data, HELD_OUT), networks)
    sets = {"photographs trained on": describe(photographs(data, ("train",)), networks)}
    height_px = FACTOR * checkpoint.generator.config.full_px
    distances: list[float] = []

    def drawn_worlds() -> Iterator[Sets]:
        for seed in range(FIRST_WORLD, FIRST_WORLD + worlds):
            drawn, distance = draw(checkpoint, seed, height_px)
            distances.append(distance)
            if pictures:
                Image.fromarray(drawn[STAGE].permute(1, 2, 0).numpy()).save(pictures / f"world_{seed}.png")
            yield {f"{name}, {part}": x for name in drawn for part, x in crops(drawn[name], seed).items()}

    drawn = describe(drawn_worlds(), networks)
    for name in (STAGE, *ENLARGED):
        sets[name] = {part: drawn[f"{name}, {part}"] for part in held_out}
    found = {}
    for name, described in sets.items():
        parts = {part: compare(described[part], held_out[part]) for part in ("patches", "frames")}
        found[name] = {f"{figure}, {part}": x for part, row in parts.items() for figure, x in row.items()}
    error = float(np.std(distances, ddof=1) / len(distances) ** 0.5)
    found[STAGE]["from the base"] = Estimate(float(np.mean(distances)), error)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    reuse_freed_memory()
    url = resolve(arguments.checkpoint)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    found = measure(load_checkpoint(read_tensors(url), url), arguments.data, arguments.worlds, arguments.pictures)
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    table = Table("", *names)
    for method, row in found.items():
        table.add_row(method, *(f"{row[x].value:.4f} ± {row[x].error:.4f}" if x in row else "" for x in names))
    Console().print(table)
    if arguments.out:
        figures = {method: {name: astuple(x) for name, x in row.items()} for method, row in found.items()}
        arguments.out.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
