"""Worlds at scale 4 or 16 compared with photographs of the same height, and with plain enlargements of the base.

The sets are patches of the network's size, at the pictures' own resolution, and whole frames.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.checkpoint import Checkpoint
from model.config import GeneratorConfig
from model.metrics.distances import bootstrap_weights, estimate, kernel_distance, mean
from model.quantise import quantise
from model.world.detailed import at_scale
from model.world.scale import check_scale
from transforms.evaluation.crops import Photographs, rows_of
from transforms.evaluation.results import Compared, DescribedSets, Figures, groups_of
from transforms.evaluation.settings import PATCH, PictureSets, cut, frame, to_tensor
from transforms.evaluation.windows import plain_world, render_window
from transforms.training_set.dataset import IndexRow

STAGE, TRAINED = "detail stage", "photographs trained on"
ENLARGED = {"bicubic": Image.Resampling.BICUBIC, "Lanczos": Image.Resampling.LANCZOS}
METHODS = (STAGE, *ENLARGED)

FROM_BASE = "difference from the base"
"""The mean difference between the base and the picture reduced to it, in levels of 255."""

MORE = "more than the detail stage"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledEvaluation:
    """The numbers of an evaluation at a scale, stored with its results. Only results with equal numbers are comparable.

    Raises:
        InputError: The scale is not one of `SCALES`.
    """

    scale: int
    worlds: int = 40
    """The number of worlds, each with its own seed and style. One frame of each is drawn."""
    first_seed: int = 1000
    patches: int = 9
    """The number of patches of each frame and photograph."""
    photographs: int = 60
    """The most photographs, held out and of the training split."""
    bootstraps: int = 200
    seed: int = 0
    """The seed of crops and bootstraps."""

    def __post_init__(self) -> None:
        check_scale(self.scale)


class ScaledResults(TypedDict):
    """The results: figures by method (or `TRAINED`), with the numbers of pictures compared."""

    methods: dict[str, dict[str, Figures]]
    pictures: dict[str, int]


def read_frames(data: str, config: GeneratorConfig, evaluation: ScaledEvaluation) -> tuple[Photographs, Photographs]:
    """Returns the held-out photographs and those of the training split.

    Raises:
        InputError: this is not a training set, it lacks one of the two, or its photographs have another height.
    """
    most = evaluation.photographs
    held_out, trained = rows_of(data, config.patch_px, config.full_px * evaluation.scale, (most, most))

    def crop(number: int, _: IndexRow, picture: Tensor) -> PictureSets:
        return crops(picture, config.patch_px, evaluation, number)

    return Photographs(data, held_out, crop), Photographs(data, trained, crop)


def crops(picture: Tensor, patch_px: int, evaluation: ScaledEvaluation, number: int) -> PictureSets:
    """Returns patches and one square frame, uint8 [n,3,h,w], of a photograph or a world's picture uint8 [3,H,W]."""
    random = np.random.default_rng((evaluation.seed, number))
    _, height, width = picture.shape
    side = min(height, width)
    corners = random.integers(0, (height - patch_px + 1, width - patch_px + 1), (evaluation.patches, 2))
    left = int(random.integers(0, width - side + 1))
    return {
        PATCH: cut(picture, patch_px, [(int(y), int(x)) for y, x in corners]),
        frame(): cut(picture, side, [((height - side) // 2, left)]),
    }


def draw_worlds(
    checkpoint: Checkpoint, evaluation: ScaledEvaluation, differences: list[float]
) -> Iterator[PictureSets]:
    """Yields the crops of each world's frame by each method, and appends its difference from the base to a list."""
    patch_px = checkpoint.generator.config.patch_px
    for seed in range(evaluation.first_seed, evaluation.first_seed + evaluation.worlds):
        pictures, difference = draw(checkpoint, seed, evaluation.scale)
        differences.append(difference)
        yield {
            of_method(name, method): x
            for method, picture in pictures.items()
            for name, x in crops(picture, patch_px, evaluation, seed).items()
        }


def of_method(name: str, method: str) -> str:
    """Returns the name of a set of pictures drawn by a method."""
    return f"{name}, {method}"


def draw(checkpoint: Checkpoint, seed: int, scale: int) -> tuple[dict[str, Tensor], float]:
    """Returns a world's frame uint8 [3,h,h] by each method, and the detail stage's difference from the base."""
    full_px = checkpoint.generator.config.full_px
    rows, columns = (-(full_px // 2), full_px - full_px // 2 - 1), (0, full_px - 1)
    world = plain_world(checkpoint.generator, seed)
    base = quantise(world.render(rows, columns)).cpu()
    scaled = at_scale(world, checkpoint.detail, scale)
    windows = [(low * scale, (high + 1) * scale - 1) for low, high in (rows, columns)]
    pictures = {STAGE: render_window(scaled.render, *windows)}
    small, size = Image.fromarray(base.permute(1, 2, 0).numpy()), (full_px * scale, full_px * scale)
    pictures |= {name: to_tensor(small.resize(size, kernel)) for name, kernel in ENLARGED.items()}
    return pictures, difference_from(base, pictures[STAGE])


def difference_from(base: Tensor, picture: Tensor) -> float:
    """Returns the mean difference between a base uint8 [3,n,n] and a picture uint8 [3,h,h], reduced by averaging."""
    reduced = torch.nn.functional.avg_pool2d(picture.float(), picture.shape[1] // base.shape[1])
    return float((reduced - base).abs().mean())


def measure_scaled(
    drawn: DescribedSets,
    differences: Iterable[float],
    photographs: tuple[DescribedSets, DescribedSets],
    evaluation: ScaledEvaluation,
) -> ScaledResults:
    """Computes the figures of each method and of the photographs trained on, as JSON values.

    Args:
        drawn: The sets of the worlds, by set and method.
        differences: The difference of each world from its base.
        photographs: The sets of held-out photographs, and of those of the training split.
        evaluation: The numbers of the evaluation.
    """
    held_out, trained = photographs
    methods = {method: {name: drawn[of_method(name, method)] for name in held_out} for method in METHODS}
    draws = {name: compare(sets, held_out, evaluation) for name, sets in {**methods, TRAINED: trained}.items()}
    found = {name: {key: asdict(estimate(x)) for key, x in of.items()} for name, of in draws.items()}
    for method in ENLARGED:
        found[method] |= {
            f"{key} {MORE}": asdict(estimate(x - draws[STAGE][key]))
            for key, x in draws[method].items()
            if key.startswith("KID")
        }
    apart = np.array(list(differences))
    found[STAGE][FROM_BASE] = {"value": float(apart.mean()), "error": float(apart.std(ddof=1) / len(apart) ** 0.5)}
    counted = {**methods[STAGE], **{f"photographs' {name}": sets for name, sets in held_out.items()}}
    return {"methods": found, "pictures": {name: len(described.groups) for name, described in counted.items()}}


def compare(sets: DescribedSets, held_out: DescribedSets, evaluation: ScaledEvaluation) -> dict[str, Tensor]:
    """Returns the draws of KID of patches and frames, and of fine power of patches as a share of the photographs'.

    Every method is given the same draws of worlds and photographs, so that differences of two have errors of their own.
    """
    weights = [bootstrap_weights(groups_of(x), evaluation.bootstraps, n) for n, x in enumerate((sets, held_out))]
    pairs = {name: Compared(sets[name], held_out[name], *weights) for name in held_out}
    found = {
        f"KID-{network}, {name}": pair.of(network, kernel_distance)
        for network in sets[PATCH].features
        for name, pair in pairs.items()
    }
    mine, theirs = pairs[PATCH].weighted("fine_power")
    return {**found, "fine power": mean(mine) / mean(theirs)}
