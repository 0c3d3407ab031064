"""The windows of worlds that photographs are compared with, all cut from one large window of each world.

A network with padding has no world, only finite pictures: each is rendered at its own size (`cut_pictures`).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import geometry
from model.config import GeneratorConfig
from model.geometry import Window
from model.networks.generator import Generator
from model.quantise import quantise
from model.world.definition import Definition
from model.world.one_shot import render_part
from model.world.world import World
from transforms.evaluation.settings import (
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
"""A function that renders windows of a world, from rows and columns to pixels [3,h,w], about -1 to 1."""


def cut_worlds(
    worlds: Callable[[int], Renderer], config: GeneratorConfig, evaluation: Evaluation
) -> Iterator[PictureSets]:
    """Yields the windows of each world in turn; `worlds` returns the renderer for a seed."""
    for seed in range(evaluation.first_seed, evaluation.first_seed + evaluation.worlds):
        yield cut_world(worlds(seed), config, evaluation, np.random.default_rng((evaluation.seed, seed)))


def cut_world(
    render: Renderer, config: GeneratorConfig, evaluation: Evaluation, random: np.random.Generator
) -> PictureSets:
    """Cuts windows of a world: patches by the vertical law of training, patches of each band, frames at each scale."""
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
        count = evaluation.frames_at(scale)
        frames = cut(picture, side, [(-(side // 2) - top, n * (widest // count)) for n in range(count)])
        sets[frame(scale)] = scale_down(frames, full)
        if evaluation.protocol == "paper":
            sets[paper(frame(scale))] = scale_down_as_the_paper(frames, scale, paper_base_px(config))
    return sets


def cut_pictures(generator: Generator, seed: int, evaluation: Evaluation, random: np.random.Generator) -> PictureSets:
    """Renders pictures of a padded network, whose layers know a picture's borders: patches, and frames at each scale.

    Each is rendered as a separate picture, at its own size, from other columns of the seed's latents. A frame is the
    middle of the smallest picture that contains it: cells are whole, so up to 7 px beyond each edge are dropped.
    """
    config, full = generator.config, generator.config.full_px
    left = int(random.integers(evaluation.world_columns)) // config.cell_px

    def pictures(side: int, count: int) -> Tensor:
        cells = -(-side // config.cell_px)
        beyond = (cells * config.cell_px - side) // 2
        made = []
        for number in range(count):
            first = left + number * cells
            extent = (-(cells // 2), cells - cells // 2 - 1), (first, first + cells - 1)
            starts = [geometry.forward(config.texture, window)[0] + beyond for window in extent]
            rows, columns = ((start, start + side - 1) for start in starts)
            made.append(render_window(partial(render_part, generator, seed, extent), rows, columns))
        return torch.stack(made)

    frames = {frame(scale): pictures(full * scale, evaluation.frames_at(scale)) for scale in evaluation.scales}
    scaled = {name: scale_down(whole, full) for name, whole in frames.items()}
    return {PATCH: pictures(config.patch_px, evaluation.patches), **scaled}


def open_world(generator: Generator, seed: int) -> Renderer:
    """Returns the world of a generator: the one place where evaluation meets the renderer."""
    return plain_world(generator, seed).render


def plain_world(generator: Generator, seed: int) -> World:
    """Returns a world as the network draws it, without local truncation."""
    return World(generator, Definition(seed, local_truncation=1))


def render_window(render: Renderer, rows: Window, columns: Window) -> Tensor:
    """Renders a window of a world in tiles, uint8 [3,h,w]; memory holds only the result and one tile."""
    (top, bottom), (left, right) = rows, columns
    picture = torch.empty(3, bottom - top + 1, right - left + 1, dtype=torch.uint8)
    for y in range(top, bottom + 1, TILE_PX):
        for x in range(left, right + 1, TILE_PX):
            tile = render((y, min(y + TILE_PX - 1, bottom)), (x, min(x + TILE_PX - 1, right)))
            picture[:, y - top : y - top + tile.shape[1], x - left : x - left + tile.shape[2]] = quantise(tile).cpu()
    return picture


def scale_down_as_the_paper(pictures: Tensor, scale: int, base_px: int) -> Tensor:
    """Scales frames [N,3,h,h] by the field of view, then by the scale, both bilinear without antialiasing."""
    side = base_px * scale
    view = F.interpolate(pictures.float(), size=(side, side), mode="bilinear", align_corners=True)
    return F.interpolate(view, size=(base_px, base_px), mode="bilinear").round().to(torch.uint8)
