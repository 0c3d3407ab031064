"""What is compared with what: the crops of held-out photographs, and the windows of worlds that match them.

From one large window of each world everything is cut: patches by the law of training, patches by bands of height, and
whole frames at growing scale, each scaled down to a photograph's frame (ScaleInv; paper, Section 4).
"""

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from model.config import GeneratorConfig
from model.errors import InputError
from model.generator import Generator
from model.geometry import Window
from model.quantise import quantise
from model.world import World
from transforms.storage import join, read_bytes
from transforms.stream import PatchStream, damaged
from transforms.training_shards import read_index

PictureSets = dict[str, Tensor]
"""Pictures uint8 [N,3,h,w] of one photograph or world, by the name of their set."""

Renderer = Callable[[Window, Window], Tensor]
"""Of a world: windows of rows and columns to pixels [3,h,w], about -1 to 1."""

PATCH = "patch"
HELD_OUT = ("val", "test")
TILE_PX = 256

PAPER_FULL, PAPER_BASE = 197, 128
"""The paper makes pictures 197 px high to compare 128 px ones: a field of view 1.54 times as wide."""

PROTOCOLS = ("antialiased", "paper")
LEAST = {"first_seed": 0, "seed": 0} | dict.fromkeys(
    ("worlds", "panorama_periods", "varied_worlds", "variations", "bootstraps"), 2
)
"""Of each number of an evaluation, the smallest that makes sense, where it is not 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The numbers of an evaluation. They are written beside its results, and only equal ones may be compared."""

    worlds: int = 40
    """How many, each with its own seed and styles."""
    first_seed: int = 1000
    world_columns: int = 1_000_000
    """A world is looked at anywhere in so many columns."""
    patches: int = 8
    """Of each world; of each held-out photograph the eight that ingest planned."""
    bands_px: tuple[int, ...] = (-388, -208, -128, -48, 0, 48, 128, 208, 388)
    """How far below the horizon the middle row of a band's patches lies."""
    band_patches: int = 6
    """Of each band and world."""
    band_crops: int = 16
    """Of each band and held-out photograph."""
    scales: tuple[int, ...] = (1, 2, 4, 8)
    frames: int = 4
    """Of each world at most, at each scale: fewer where they would not fit side by side in the largest."""
    frame_crops: int = 8
    """Of each held-out photograph."""
    protocol: str = "antialiased"
    """Whether frames are compared by the paper's protocol too, which scales without antialiasing."""
    trained_photographs: int = 200
    """Of the training split, at most; their distance to the held-out ones is the floor."""
    panoramas: int = 12
    """In which repetition is looked for, each of so many periods of the horizontal coordinate."""
    panorama_periods: int = 3
    varied_worlds: int = 8
    """For LPIPS diversity."""
    variations: int = 4
    """Local latents, and textures, of each of these."""
    bootstraps: int = 50
    seed: int = 0
    """Of crops and bootstraps."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"protocol {self.protocol}: choose {' or '.join(PROTOCOLS)}")
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), LEAST.get(field.name, 1)
            if isinstance(value, int) and value < least:
                raise InputError(f"evaluation {field.name} is {value}; it must be at least {least}")

    def of_trained(self) -> "Evaluation":
        """The same for photographs of the training split: fewer crops of many more photographs."""
        return dataclasses.replace(self, patches=2, band_crops=1, frame_crops=1)


def band(band_px: int) -> str:
    """The name of a band's set."""
    return f"band {band_px:+d}"


def clamp_to_frame(band_px: int, config: GeneratorConfig) -> int:
    """The band of the photographs with which a band is compared: beyond their frame, its top or bottom."""
    most = (config.full_px - config.patch_px) // 2
    return min(max(band_px, -most), most)


def frame(scale: int | None = None) -> str:
    """The name of a set of frames; photographs have one scale only."""
    return "frame" if scale is None else f"frame {scale}x"


def paper(name: str) -> str:
    """The name of a set of frames by the paper's protocol."""
    return f"paper {name}"


@dataclass(frozen=True, slots=True)
class Photographs:
    """Photographs of a training set, as evaluation looks at them.

    Attributes:
        data: URL of the training set.
        config: of the generator that they are compared with.
        evaluation: how many crops of each.
        rows: of the set's index, a photograph each.
    """

    data: str
    config: GeneratorConfig
    evaluation: Evaluation
    rows: tuple[dict[str, Any], ...]

    def __iter__(self) -> Iterator[PictureSets]:
        """Each photograph's crops in turn.

        Raises:
            InputError: a picture is damaged.
        """
        name, shard = "", b""
        for number, row in enumerate(self.rows):
            if row["shard"] != name:
                name, shard = row["shard"], read_bytes(join(self.data, row["shard"]))
            encoded = shard[row["offset"] : row["offset"] + row["size"]]
            try:
                with Image.open(io.BytesIO(encoded)) as image:
                    picture = to_tensor(image.convert("RGB"))
            except Exception:  # Pillow's decoders raise almost anything on broken bytes
                raise damaged(f"{self.data}, photograph {row['key']},", "its picture cannot be read") from None
            random = np.random.default_rng((self.evaluation.seed, number))
            positions = [patch["vertical_position"] for patch in row["patches"]]
            yield crop_photograph(picture, positions, self.config, self.evaluation, random)


def read_photographs(data: str, config: GeneratorConfig, evaluation: Evaluation) -> tuple[Photographs, Photographs]:
    """The held-out photographs, and some that were trained on.

    Raises:
        InputError: this is no training set, it lacks one of the two, or was made for another network.
    """
    PatchStream(data, config.patch_px, config.full_px)  # refuses a set that this network cannot be trained on
    rows = read_index(data)
    held_out = tuple(row for row in rows if row["split"] in HELD_OUT)
    trained = [row for row in rows if row["split"] == "train"]
    if len(held_out) < 2:
        raise InputError(f"{data} holds {len(held_out)} photographs to evaluate with (val, test); ingest more")
    step = -(-len(trained) // evaluation.trained_photographs)
    return (
        Photographs(data, config, evaluation, held_out),
        Photographs(data, config, evaluation.of_trained(), tuple(trained[::step])),
    )


def crop_photograph(
    picture: Tensor,
    positions: Sequence[float],
    config: GeneratorConfig,
    evaluation: Evaluation,
    random: np.random.Generator,
) -> PictureSets:
    """Crops of a photograph uint8 [3,h,w].

    Returns:
        Patches at its planned vertical positions, patches of each band, clamped to the frame, and whole frames.
    """
    _, height, width = picture.shape
    size, free = config.patch_px, height - config.patch_px

    def patches(tops: Sequence[int]) -> Tensor:
        return cut(picture, size, zip(tops, spread(width - size, len(tops), random), strict=True))

    sets = {PATCH: patches([round(free * (t + 1) / 2) for t in positions[: evaluation.patches]])}
    for band_px in {clamp_to_frame(band_px, config) for band_px in evaluation.bands_px}:
        top = min(max(round(free / 2) + band_px, 0), free)
        sets[band(band_px)] = patches([top] * evaluation.band_crops)
    lefts = spread(width - height, evaluation.frame_crops, random)
    sets[frame()] = cut(picture, height, [(0, left) for left in lefts])
    if evaluation.protocol == "paper":
        sets[paper(frame())] = scale_down(sets[frame()], paper_base_px(config))
    return sets


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


def cut(picture: Tensor, side: int, corners: Iterable[tuple[int, int]]) -> Tensor:
    """Squares [N,3,side,side] of a picture [3,H,W], by the row and column of each one's top left corner."""
    return torch.stack([picture[:, top : top + side, left : left + side] for top, left in corners])


def spread(free: int, count: int, random: np.random.Generator) -> list[int]:
    """Positions from 0 to `free`, one anywhere in each of `count` equal parts, in random order."""
    return [int(x) for x in (free + 1) * (random.permutation(count) + random.random(count)) / count]


def scale_down(pictures: Tensor, side: int) -> Tensor:
    """Pictures uint8 [N,3,h,h] at another side, antialiased as ingest scales photographs."""
    if pictures.shape[2] == side:
        return pictures
    images = [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pictures]
    return torch.stack([to_tensor(image.resize((side, side), Image.Resampling.LANCZOS)) for image in images])


def scale_down_as_the_paper(pictures: Tensor, scale: int, base_px: int) -> Tensor:
    """Frames [N,3,h,h] first by the field of view, then by the scale, both times bilinear without antialiasing."""
    side = base_px * scale
    view = F.interpolate(pictures.float(), size=(side, side), mode="bilinear", align_corners=True)
    return F.interpolate(view, size=(base_px, base_px), mode="bilinear").round().to(torch.uint8)


def paper_base_px(config: GeneratorConfig) -> int:
    """The side at which the paper compares pictures of this network: 128 px for 197 px."""
    return round(config.full_px * PAPER_BASE / PAPER_FULL)


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 [3,h,w]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
