"""Pastes the photographs of overlays into pictures: their own pixels, blended in along their borders.

A photograph is pasted at each scale up to its own, so that what a detail stage draws around it continues it. Beyond its
own scale the detail stage draws it like the rest of the world.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.geometry import Window
from model.world.definition import Definition
from model.world.latents import Place, meetings
from model.world.overlay import Overlay, box_windows, reduced


class Paste:
    """The photographs of a world at a scale.

    Args:
        definition: The world, which determines whether they are pasted and how widely they blend.
        overlays: The overlays laid over the world.
        scale: The scale of the pictures.
    """

    def __init__(self, definition: Definition, overlays: Sequence[Overlay], scale: int = 1):
        self.definition, self.overlays, self.scale = definition, overlays, scale
        self.turn_px = definition.cyclic_px and definition.cyclic_px * scale
        self.blend_px = (definition.paste_px or 0) * scale
        self.laid: list[tuple[Overlay, Tensor | None]] = []
        """The overlays with their photographs at this scale, or None if theirs are of a lower scale."""
        if definition.paste_px is not None and any(overlay.scale >= scale for overlay in overlays):
            self.laid = [(x, reduced(x.photograph, x.scale // scale) if x.scale >= scale else None) for x in overlays]

    def at(self, scale: int) -> "Paste":
        """Returns the same photographs at another scale."""
        return Paste(self.definition, self.overlays, scale)

    def __call__(self, picture: Tensor, rows: Window, columns: Window) -> Tensor:
        """Pastes the photographs into a picture [1,3,H,W] at a window of pixels, in place, and returns it."""
        drawn = picture.clone() if any(photograph is None for _, photograph in self.laid) else picture
        for overlay, photograph in self.laid:
            x, y, width, height = (self.scale * n for n in overlay.box_px)
            for meeting in meetings((rows, columns), box_windows((x, y, width, height)), self.turn_px):
                # What the stage drew of a photograph of a lower scale covers the photographs before it.
                pixels = drawn[meeting.place] if photograph is None else photograph[None][meeting.box_place] / 127.5 - 1
                picture[meeting.place].lerp_(pixels, self.weight(height, width, meeting.box_place, picture.device))
        return picture

    def weight(self, height: int, width: int, place: Place, device: torch.device) -> Tensor:
        """Returns the weight float32 [h,w] of a photograph's pixels, which reaches 1 inside, at a place in it."""
        down, across = (inwards(n, device)[part] for n, part in zip((height, width), place[2:], strict=True))
        return (torch.minimum(down[:, None], across[None, :]) / (self.blend_px + 1)).clamp(max=1)


def inwards(length: int, device: torch.device) -> Tensor:
    """Returns each position's distance from the nearer end of a row, from 1 on."""
    at = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    return torch.minimum(at, at.flip(0))
