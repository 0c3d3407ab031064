"""What is compared with what: the numbers of an evaluation, and the names of its sets of pictures.

Patches by the law of training, patches by bands of height, and whole frames: of photographs, and of worlds at growing
scale, each scaled down to a photograph's frame (ScaleInv; paper, Section 4).
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.config import GeneratorConfig
from model.errors import InputError

PictureSets = dict[str, Tensor]
"""Pictures uint8 [N,3,h,w] of one photograph or world, by the name of their set."""

PATCH = "patch"

SKY, GROUND = "sky", "ground"
"""Photographs' crops at the very top and bottom that do not hold the horizon."""

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

    def frames_at(self, scale: int) -> int:
        """Returns how many frames of each world: as many as fit side by side in the largest scale."""
        return min(self.frames, max(self.scales) // scale)

    def of_trained(self) -> "Evaluation":
        """Returns the same for photographs of the training split: fewer crops of many more photographs."""
        return dataclasses.replace(self, patches=2, band_crops=1, frame_crops=1)


def band(band_px: int) -> str:
    """Returns the name of a band's set."""
    return f"band {band_px:+d}"


def clamp_to_frame(band_px: int, config: GeneratorConfig) -> int:
    """Returns the band of the photographs with which a band is compared: beyond their frame, its top or bottom."""
    most = (config.full_px - config.patch_px) // 2
    return min(max(band_px, -most), most)


def beyond_frame(band_px: int, config: GeneratorConfig) -> str:
    """Returns what a band shows that lies beyond the photographs' frame, sky or ground; "" of one that does not."""
    if clamp_to_frame(band_px, config) == band_px:
        return ""
    return SKY if band_px < 0 else GROUND


def frame(scale: int | None = None) -> str:
    """Returns the name of a set of frames; photographs have one scale only."""
    return "frame" if scale is None else f"frame {scale}x"


def paper(name: str) -> str:
    """Returns the name of a set of frames by the paper's protocol."""
    return f"paper {name}"


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


def paper_base_px(config: GeneratorConfig) -> int:
    """Returns the side at which the paper compares pictures of this network: 128 px for 197 px."""
    return round(config.full_px * PAPER_BASE / PAPER_FULL)


def to_tensor(image: Image.Image) -> Tensor:
    """Returns an RGB image as uint8 [3,h,w]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
