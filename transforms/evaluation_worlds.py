"""The windows of worlds that photographs are held against. From one large window of each world everything is cut."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import GeneratorConfig
from model.generator import Generator
from model.geometry import Window
from model.quantise import quantise
from model.world import World
from transforms.evaluation import (
    PATCH,
    Evaluation,
    PictureSets,
    band,
    cut,
    frame,
    paper,
    paper_base_px,
    scale_down,
    spread,
)

TILE_PX = 256

Renderer = Callable[[Window, Window], Tensor]
"""Of a world: windows of rows and columns to pixels [3,h,w], about -1 to 1."""


def cut_worlds(
    worlds: Callable[[int], Renderer], config: GeneratorConfig, evaluation: Evaluation
) -> Iterator[PictureSets]:
    """The windows of each world in turn; `worlds` gives the renderer of a seed's."""
    for seed in range(evaluation.first_seed, evaluation.first_seed + evaluation.worlds):
        yield cut_world(worlds(seed), config, evaluation, np.random.default_rng((evaluation.seed, seed)))


def cut_world(
    render: Renderer, config: GeneratorConfig, evaluation: Evaluation, random: np.random.Generator
) -> PictureSets:
    """Windows of a world: patches by the vertical law of training, patches of each band, frames at each scale."""
    size, full = config.patch_px, config.full_px
    widest = full * max(evaluation.scales)
    top = min(-(widest // 2), min(evaluation.bands_px) - size // 2, -full)
    bottom = max(widest - widest // 2, max(evaluation.bands_px) + size, full)
    left = int(random.integers(evaluation.world_columns))
    picture = render_window(render, (top, bottom - 1), (left, left + widest - 1))

    def patches(middles: Sequence[int]) -> Tensor:
        tops = [middle - size // 2 - top for middle in middles]
        return cut(picture, size, zip(tops, spread(widest - size, len(tops), random), strict=True))

    t = 2 * (np.arange(evaluation.patches) + random.random(evaluation.patches)) / evaluation.patches - 1
    sets = {PATCH: patches([round(middle) for middle in (full - size) / 2 * t])}
    for band_px in evaluation.bands_px:
        sets[band(band_px)] = patches([band_px] * evaluation.band_patches)
    for scale in evaluation.scales:
        side = full * scale
        count = min(evaluation.frames, widest // side)
        frames = cut(picture, side, [(-(side // 2) - top, n * (widest // count)) for n in range(count)])
        sets[frame(scale)] = scale_down(frames, full)
        if evaluation.protocol == "paper":
            sets[paper(frame(scale))] = scale_down_as_the_paper(frames, scale, paper_base_px(config))
    return sets


def open_world(generator: Generator, seed: int) -> Renderer:
    """The world of a generator: the one place where evaluation meets the renderer."""
    return World(generator, seed).render


def render_window(render: Renderer, rows: Window, columns: Window) -> Tensor:
    """A window of a world in tiles, uint8 [3,h,w]: memory is that of the result and one tile."""
    (top, bottom), (left, right) = rows, columns
    picture = torch.empty(3, bottom - top + 1, right - left + 1, dtype=torch.uint8)
    for y in range(top, bottom + 1, TILE_PX):
        for x in range(left, right + 1, TILE_PX):
            tile = render((y, min(y + TILE_PX - 1, bottom)), (x, min(x + TILE_PX - 1, right)))
            picture[:, y - top : y - top + tile.shape[1], x - left : x - left + tile.shape[2]] = quantise(tile).cpu()
    return picture


def scale_down_as_the_paper(pictures: Tensor, scale: int, base_px: int) -> Tensor:
    """Frames [N,3,h,h] first by the field of view, then by the scale, both times bilinear without antialiasing."""
    side = base_px * scale
    view = F.interpolate(pictures.float(), size=(side, side), mode="bilinear", align_corners=True)
    return F.interpolate(view, size=(base_px, base_px), mode="bilinear").round().to(torch.uint8)
