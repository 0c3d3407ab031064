"""The settings of an evaluation: its numbers, and the names of its sets of pictures.

The sets are patches by the law of training, patches by bands of height, and whole frames: of photographs, and of worlds
at growing scale, each scaled down to a photograph's frame (ScaleInv; paper, Section 4).
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
"""The names of crops at the very top and bottom of photographs that do not contain the horizon."""

PAPER_FULL, PAPER_BASE = 197, 128
"""The paper makes pictures 197 px high to compare 128 px ones: a field of view 1.54 times as wide."""

PROTOCOLS = ("antialiased", "paper")
LEAST = {"first_seed": 0, "seed": 0} | dict.fromkeys(
    ("worlds", "panorama_periods", "varied_worlds", "variations", "bootstraps"), 2
)
"""The least value of each number of an evaluation, if it is not 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The numbers of an evaluation, stored with its results. Only results with equal numbers are comparable."""

    worlds: int = 40
    """The number of worlds, each with its own seed and styles."""
    first_seed: int = 1000
    world_columns: int = 1_000_000
    """The number of columns of a world among which a window is drawn."""
    patches: int = 8
    """The number of patches of each world; of each held-out photograph, the eight that ingest planned are used."""
    bands_px: tuple[int, ...] = (-388, -208, -128, -48, 0, 48, 128, 208, 388)
    """The distances below the horizon of the middle rows of the bands' patches."""
    band_patches: int = 6
    """The number of patches per band and world."""
    band_crops: int = 16
    """The number of patches per band and held-out photograph."""
    scales: tuple[int, ...] = (1, 2, 4, 8)
    frames: int = 4
    """The most frames of a world at each scale; fewer if they would not fit side by side in the largest."""
    frame_crops: int = 8
    """The number of frames of each held-out photograph."""
    protocol: str = "antialiased"
    """The protocol for frames: "paper" adds that of the paper, which scales without antialiasing."""
    trained_photographs: int = 200
    """The most photographs of the training split; their distance to the held-out ones is the floor."""
    panoramas: int = 12
    """The number of panoramas searched for repetition, `panorama_periods` periods of the coordinate wide."""
    panorama_periods: int = 3
    varied_worlds: int = 8
    """The number of worlds for LPIPS diversity."""
    variations: int = 4
    """The number of local latents, and of textures, of each of these worlds."""
    bootstraps: int = 50
    seed: int = 0
    """The seed of crops and bootstraps."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(f"protocol {self.protocol}: choose {' or '.join(PROTOCOLS)}")
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), LEAST.get(field.name, 1)
            if isinstance(value, int) and value < least:
                raise InputError(f"evaluation {field.name} is {value}; it must be at least {least}")

    def frames_at(self, scale: int) -> int:
        """Returns the number of frames per world: as many as fit side by side in the largest scale."""
        return min(self.frames, max(self.scales) // scale)

    def of_trained(self) -> "Evaluation":
        """Returns the settings for photographs of the training split: fewer crops of many more photographs."""
        return dataclasses.replace(self, patches=2, band_crops=1, frame_crops=1)


def band(band_px: int) -> str:
    """Returns the name of a band's set."""
    return f"band {band_px:+d}"


def clamp_to_frame(band_px: int, config: GeneratorConfig) -> int:
    """Returns the band of the photographs that a band is compared with: beyond their frame, its top or bottom."""
    most = (config.full_px - config.patch_px) // 2
    return min(max(band_px, -most), most)


def beyond_frame(band_px: int, config: GeneratorConfig) -> str:
    """Returns what a band beyond the photographs' frame shows, sky or ground; "" for a band within it."""
    if clamp_to_frame(band_px, config) == band_px:
        return ""
    return SKY if band_px < 0 else GROUND


def frame(scale: int | None = None) -> str:
    """Returns the name of a set of frames; photographs have only one scale."""
    return "frame" if scale is None else f"frame {scale}x"


def paper(name: str) -> str:
    """Returns the name of a set of frames by the paper's protocol."""
    return f"paper {name}"


def cut(picture: Tensor, side: int, corners: Iterable[tuple[int, int]]) -> Tensor:
    """Cuts squares [N,3,side,side] from a picture [3,H,W], by the row and column of their top left corners."""
    return torch.stack([picture[:, top : top + side, left : left + side] for top, left in corners])


def spread(free: int, count: int, random: np.random.Generator) -> list[int]:
    """Draws positions from 0 to `free`, one in each of `count` equal parts, in random order."""
    return [int(x) for x in (free + 1) * (random.permutation(count) + random.random(count)) / count]


def scale_down(pictures: Tensor, side: int) -> Tensor:
    """Scales pictures uint8 [N,3,h,h] to another side, antialiased as ingest scales photographs."""
    if pictures.shape[2] == side:
        return pictures
    images = [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pictures]
    return torch.stack([to_tensor(image.resize((side, side), Image.Resampling.LANCZOS)) for image in images])


def paper_base_px(config: GeneratorConfig) -> int:
    """Returns the side at which the paper's protocol compares this network's pictures: 128 px for 197 px."""
    return round(config.full_px * PAPER_BASE / PAPER_FULL)


def to_tensor(image: Image.Image) -> Tensor:
    """Converts an RGB image to uint8 [3,h,w]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
