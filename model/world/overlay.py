"""Overlays: fields of a box of the world that are stored instead of drawn, such as inversion finds for a photograph.

An overlay belongs to one place. The network sees a cell's coordinates, so fields that give a photograph in one place
give another picture anywhere else (paper, Appendix I). The file therefore records the place, the width of the circle
and the checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model import checkpoint, geometry
from model.config import GeneratorConfig
from model.errors import InputError
from model.world.definition import Box, check_box, check_integer
from model.world.footprint import Footprint, Windows, footprint
from model.world.scale import SCALES

OVERLAY = "overlay"
MOST_SIDE_PX = 16384
"""The limit on a photograph's sides, because its fields are held in memory whole."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """The fields that reproduce a photograph.

    Attributes:
        box_px: The box of the photograph in the world at scale 1.
        cyclic_px: The circumference of the world that it was made for, or None.
        checkpoint_sha256: The checksum of the network's checkpoint.
        z_g: float32 [1,z_g_dim].
        w: W+, float32 [2L+1,w_dim]: one row for each layer of G_T, and one for the last to-RGB.
        z_l: float32 [1,z_l_dim,H,W] at the footprint's latents.
        z_n: float32 [1,1,h,w] for each layer, at the footprint's noise.
        photograph: uint8 [3,h,w], at one of `SCALES`: as many pixels along each side of a pixel of the box.
        provenance: What it was made from, and how well it fits; JSON values.
        sha256: The checksum of the file; empty before it is saved.
    """

    box_px: Box
    cyclic_px: int | None
    checkpoint_sha256: str
    z_g: Tensor
    w: Tensor
    z_l: Tensor
    z_n: tuple[Tensor, ...]
    photograph: Tensor
    provenance: Mapping[str, Any]
    sha256: str = ""

    @property
    def windows(self) -> Windows:
        """Returns the rows and columns of the photograph."""
        return box_windows(self.box_px)

    @property
    def scale(self) -> int:
        """Returns the scale of the photograph."""
        return self.photograph.shape[2] // self.box_px[2]

    def footprint(self, config: GeneratorConfig) -> Footprint:
        """Returns the footprint of its fields."""
        return footprint(config, *self.windows)

    def to(self, device: str) -> "Overlay":
        """Returns the overlay on a device."""
        fields = {name: getattr(self, name).to(device) for name in ("z_g", "w", "z_l", "photograph")}
        rest = (self.box_px, self.cyclic_px, self.checkpoint_sha256)
        z_n = tuple(noise.to(device) for noise in self.z_n)
        return Overlay(*rest, **fields, z_n=z_n, provenance=self.provenance, sha256=self.sha256)


def box_windows(box: Box) -> Windows:
    """Returns the rows and columns of a box."""
    x, y, width, height = box
    return (y, y + height - 1), (x, x + width - 1)


def save_overlay(overlay: Overlay) -> bytes:
    """Returns the file of an overlay; equal content gives equal bytes."""
    tensors = {name: getattr(overlay, name) for name in ("z_g", "w", "z_l", "photograph")}
    tensors |= {f"z_n.{layer}": noise for layer, noise in enumerate(overlay.z_n)}
    header = {
        "box_px": list(overlay.box_px),
        "cyclic_px": overlay.cyclic_px,
        "checkpoint_sha256": overlay.checkpoint_sha256,
        "provenance": dict(overlay.provenance),
    }
    return checkpoint.save(OVERLAY, tensors, header)


def load_overlay(content: bytes, name: str) -> Overlay:
    """Loads an overlay from its file; `check_overlay` tells whether it fits a network.

    Raises:
        InputError: The file is not an overlay, or is damaged.
    """
    header, tensors = checkpoint.load(OVERLAY, content, name)
    try:
        box, turn_px = tuple(header["box_px"]), header["cyclic_px"]
        check_box("box_px", box)
        if turn_px is not None:
            check_integer("cyclic_px", turn_px)
        if max(box[2:]) > MOST_SIDE_PX:
            raise InputError(f"its photograph is {box[2]}×{box[3]} px; its sides must not exceed {MOST_SIDE_PX} px")
        z_n = tuple(tensors.pop(f"z_n.{layer}") for layer in range(sum(key.startswith("z_n.") for key in tensors)))
        fields = {key: tensors.pop(key) for key in ("z_g", "w", "z_l", "photograph")}
        provenance = header["provenance"]
    except (KeyError, TypeError, InputError) as error:
        raise InputError(f"{name} is a damaged overlay: {error}") from None
    if tensors or not isinstance(provenance, dict):
        raise InputError(f"{name} is a damaged overlay: it has unexpected tensors")
    sha256 = str(header.get("checkpoint_sha256"))
    return Overlay(box, turn_px, sha256, **fields, z_n=z_n, provenance=provenance, sha256=checkpoint.sha256(content))


def check_overlay(
    overlay: Overlay, name: str, config: GeneratorConfig, cyclic_px: int | None, checkpoint_sha256: str | None = None
) -> None:
    """Checks that an overlay fits a network and a world.

    Args:
        overlay: The overlay.
        name: Its name in error messages.
        config: The network's configuration.
        cyclic_px: The circumference of the world, or None.
        checkpoint_sha256: The checksum of the network's checkpoint, if known.

    Raises:
        InputError: It belongs to another checkpoint or coordinate law, or has unexpected tensors.
    """
    if checkpoint_sha256 not in (None, overlay.checkpoint_sha256):
        raise InputError(
            f"overlay {name} was made for the checkpoint {overlay.checkpoint_sha256[:12]}, not for "
            f"{str(checkpoint_sha256)[:12]}; invert the photograph again with this one"
        )
    if overlay.cyclic_px != cyclic_px:
        raise InputError(
            f"overlay {name} was made for {described(overlay.cyclic_px)}, and this is {described(cyclic_px)}: its "
            "position is fixed; invert the photograph again for this one"
        )
    place = overlay.footprint(config)
    check_turn(place, overlay.box_px, config, cyclic_px)
    expected = {
        "z_g": (overlay.z_g, (1, config.z_g_dim)),
        "w": (overlay.w, (2 * config.pairs + 1, config.w_dim)),
        "z_l": (overlay.z_l, (1, config.z_l_dim, *lengths(place.latents))),
        "photograph": (overlay.photograph, photograph_shape(overlay)),
    }
    shapes = [(1, 1, *lengths(windows)) for windows in place.noise]
    if len(overlay.z_n) != len(shapes):
        raise InputError(f"overlay {name} has noise for {len(overlay.z_n)} layers; this network has {len(shapes)}")
    expected |= {f"z_n.{layer}": pair for layer, pair in enumerate(zip(overlay.z_n, shapes, strict=True))}
    for key, (tensor, shape) in expected.items():
        kind = torch.uint8 if key == "photograph" else torch.float32
        if tensor.shape != shape or tensor.dtype != kind:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise InputError(f"overlay {name}: {key} is {found}; for its place it must be {kind} {list(shape)}")
        if not torch.isfinite(tensor).all():
            raise InputError(f"overlay {name}: {key} holds values that are not finite; invert the photograph again")


def photograph_shape(overlay: Overlay) -> tuple[int, int, int]:
    """Returns the shape that a photograph must have, at its own scale if that is one of `SCALES`."""
    scale = overlay.scale if overlay.photograph.ndim == 3 and overlay.scale in SCALES else 1
    height, width = lengths(overlay.windows)
    return 3, scale * height, scale * width


def reduced(photograph: Tensor, factor: int) -> Tensor:
    """Reduces a photograph uint8 [3,h,w] by a factor: the rounded mean of each square of pixels."""
    if factor == 1:
        return photograph
    _, height, width = photograph.shape
    squares = photograph.to(torch.int32).reshape(3, height // factor, factor, width // factor, factor)
    return ((squares.sum(dim=(2, 4)) + factor**2 // 2) // factor**2).to(torch.uint8)


def check_turn(place: Footprint, box: Box, config: GeneratorConfig, cyclic_px: int | None) -> None:
    """Raises InputError for a photograph whose fields would overlap themselves around the circle."""
    width_px = geometry.length(place.latents[1]) * config.cell_px
    if cyclic_px is not None and width_px > cyclic_px:
        raise InputError(
            f"a photograph {box[2]} px wide with its surroundings needs {width_px} px of the circle, but the circle "
            f"has only {cyclic_px} px; make it wider"
        )


def described(cyclic_px: int | None) -> str:
    """Describes a coordinate law in words."""
    return "a world without end" if cyclic_px is None else f"a circle of {cyclic_px} px"


def lengths(windows: Windows) -> tuple[int, int]:
    """Returns the height and width."""
    return geometry.length(windows[0]), geometry.length(windows[1])
