"""Differentiable augmentation, the same for photographs and generated patches (Zhao et al. 2020).

Colours change only on a share of the pictures: if all of them changed, the changes would leak into the generator
(Karras et al. 2020, ADA).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import GeneratorConfig, TrainingConfig

BRIGHTNESS = 0.3
SATURATION = 0.7
CONTRAST = 0.4


def augment(
    pictures: Tensor, t: Tensor, generator: GeneratorConfig, training: TrainingConfig, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augments pictures [N,3,h,w] in [-1, 1]. A vertical shift by s px adds 2s/(full - patch) to t [N]."""
    pictures = change_colours(pictures, training.augment_colour, random)
    pictures, down_px = shift(pictures, training.augment_shift_px, random)
    return pictures, t + down_px * 2 / (generator.full_px - generator.patch_px)


def change_colours(pictures: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Changes brightness, saturation and contrast of a share of the pictures [N,3,h,w]."""
    if share == 0:
        return pictures
    shape = (pictures.shape[0], 1, 1, 1)
    chosen = (torch.rand(shape, generator=random) < share).to(pictures)

    def amount(limit: float) -> Tensor:
        return (torch.rand(shape, generator=random).to(pictures) * 2 - 1) * limit * chosen

    pictures = pictures + amount(BRIGHTNESS)
    grey = pictures.mean(dim=1, keepdim=True)
    pictures = grey + (pictures - grey) * (1 + amount(SATURATION))
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (pictures - mean) * (1 + amount(CONTRAST))


def shift(pictures: Tensor, limit_px: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shifts the window over each picture by up to limit_px each way, reflecting at the borders.

    Returns:
        The pictures, and the number of pixels [N] by which each window moved down.
    """
    n, _, height, width = pictures.shape
    if limit_px == 0:
        return pictures, torch.zeros(n)
    padded = F.pad(pictures, (limit_px,) * 4, mode="reflect")
    top, left = torch.randint(0, 2 * limit_px + 1, (2, n), generator=random)
    moved = [x[:, i : i + height, j : j + width] for x, i, j in zip(padded, top.tolist(), left.tolist(), strict=True)]
    return torch.stack(moved), (top - limit_px).float()
