"""Pastes the photographs of overlays into pictures: their own pixels, blended in along their borders."""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.geometry import Window
from model.world.definition import Definition
from model.world.latents import meetings
from model.world.overlay import Overlay


class Paste:
    """The photographs of a world.

    Args:
        definition: The world, which determines whether they are pasted and how widely they blend.
        overlays: The overlays laid over the world.
    """

    def __init__(self, definition: Definition, overlays: Sequence[Overlay]):
        self.turn_px, blend_px = definition.cyclic_px, definition.paste_px
        self.laid = [] if blend_px is None else [(x.windows, *blended(x.photograph, blend_px)) for x in overlays]

    def __call__(self, picture: Tensor, rows: Window, columns: Window) -> Tensor:
        """Pastes the photographs into a picture [1,3,H,W] at a window of pixels, in place, and returns it."""
        for windows, pixels, weight in self.laid:
            for meeting in meetings((rows, columns), windows, self.turn_px):
                picture[meeting.place].lerp_(pixels[meeting.box_place], weight[meeting.box_place])
        return picture


def blended(photograph: Tensor, blend_px: int) -> tuple[Tensor, Tensor]:
    """Returns a photograph float32 [1,3,h,w] in [-1, 1], and its weight float32 [1,1,h,w], which reaches 1 inside."""
    _, height, width = photograph.shape
    down, across = (inwards(n, photograph.device) for n in (height, width))
    distance = torch.minimum(down[:, None], across[None, :])
    weight = (distance / (blend_px + 1)).clamp(max=1)
    return photograph[None] / 127.5 - 1, weight[None, None]


def inwards(length: int, device: torch.device) -> Tensor:
    """Returns each position's distance from the nearer end of a row, from 1 on."""
    at = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    return torch.minimum(at, at.flip(0))
