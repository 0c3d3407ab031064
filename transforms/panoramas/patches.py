"""Patches, the pixels of tiles, and the files that a patch shard keeps of each."""

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.formats.png import write_png
from transforms.panoramas.plan import Plan
from transforms.storage.pictures import open_picture

PIXELS, EDGES, ABOUT = "png", "edge.png", "json"
"""The files of a patch."""

MOST_PX = 2**27
"""What claims more pixels is not decoded."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a reduced precision is from float32 on a tile: the largest and the mean difference, of 255."""

    max: int
    mean: float


@dataclass(frozen=True, slots=True)
class Patch:
    """A tile's pixels.

    Attributes:
        index: of the tile in its plan.
        x_px: world pixel of its left edge.
        y_px: world pixel of its top edge.
        pixels: uint8 [h,w,3], cropped to the panorama.
        edges: uint8 [4·overlap,tile,3], the strips that this tile and each neighbour both compute, as this tile has
            them, left, right, top and bottom; the first two are turned to lie along the rows.
        difference: from float32, where it was measured.
    """

    index: int
    x_px: int
    y_px: int
    pixels: npt.NDArray[np.uint8]
    edges: npt.NDArray[np.uint8]
    difference: Difference | None = None


def encode_patch(plan: Plan, patch: Patch) -> dict[str, Any]:
    """Returns a patch as a sample of its shard: its key and its files, the same bytes whenever it is done again."""
    return {
        "__key__": plan.member(patch.index),
        PIXELS: encode(patch.pixels),
        ABOUT: json.dumps(describe(patch), sort_keys=True).encode(),
        EDGES: encode(patch.edges),
    }


def describe(patch: Patch) -> dict[str, Any]:
    """Returns what stands beside a patch: where in the world it lies, and the checksums of its pixels."""
    height, width, _ = patch.pixels.shape
    return {
        "index": patch.index,
        "world_x_px": patch.x_px,
        "world_y_px": patch.y_px,
        "width_px": width,
        "height_px": height,
        "sha256": pixel_checksum(patch.pixels),
        "edges_sha256": pixel_checksum(patch.edges),
    } | ({"difference": dataclasses.asdict(patch.difference)} if patch.difference else {})


def encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encodes uint8 [h,w,3] as PNG."""
    buffer = io.BytesIO()
    height_px, width_px, _ = pixels.shape
    write_png(buffer, width_px, height_px, [pixels], {})
    return buffer.getvalue()


def decode(content: bytes, most_px: int = MOST_PX) -> npt.NDArray[np.uint8]:
    """Decodes a PNG to uint8 [h,w,3].

    Raises:
        ValueError: it has more pixels than it may have. A damaged one raises whatever Pillow does.
    """
    with open_picture(content, ["PNG"]) as image:
        if image.width * image.height > most_px:
            raise ValueError(f"{image.width} x {image.height} px are more than {most_px}")
        return np.asarray(image.convert("RGB"))


def pixel_checksum(pixels: npt.NDArray[np.uint8]) -> str:
    """Computes the SHA-256 of a patch's RGB bytes, row by row."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
