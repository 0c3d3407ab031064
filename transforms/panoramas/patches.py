"""Patches (the pixels of tiles) and the files that a patch shard holds for each."""

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
"""The suffixes of a patch's files."""

MOST_PX = 2**27
"""The most pixels that are decoded."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between a reduced precision and float32 on a tile: the largest and the mean, of 255."""

    max: int
    mean: float


@dataclass(frozen=True, slots=True)
class Patch:
    """A tile's pixels.

    Attributes:
        index: the index of the tile in its plan.
        x_px: world pixel of its left edge.
        y_px: world pixel of its top edge.
        pixels: uint8 [h,w,3], cropped to the panorama.
        edges: uint8 [4·overlap,longer side,3], this tile's pixels of the strips shared with each neighbour: left,
            right, top and bottom; the first two are transposed to lie along the rows.
        difference: the difference from float32, if it was measured.
    """

    index: int
    x_px: int
    y_px: int
    pixels: npt.NDArray[np.uint8]
    edges: npt.NDArray[np.uint8]
    difference: Difference | None = None


EncodedPatch = dict[str, str | bytes]
"""A sample of a patch shard: its key, and its files by suffix."""


def encode_patch(plan: Plan, patch: Patch) -> EncodedPatch:
    """Encodes a patch as a sample of its shard: its key and its files; encoding it again gives the same bytes."""
    return {
        "__key__": plan.member(patch.index),
        PIXELS: encode(patch.pixels),
        ABOUT: json.dumps(metadata_of(patch), sort_keys=True).encode(),
        EDGES: encode(patch.edges),
    }


def metadata_of(patch: Patch) -> dict[str, Any]:
    """Returns a patch's metadata: its position in the world, and the checksums of its pixels."""
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
        ValueError: the picture has too many pixels. A damaged one raises the error that Pillow does.
    """
    with open_picture(content, ["PNG"]) as image:
        if image.width * image.height > most_px:
            raise ValueError(f"{image.width} x {image.height} px are more than the {most_px} allowed")
        return np.asarray(image.convert("RGB"))


def pixel_checksum(pixels: npt.NDArray[np.uint8]) -> str:
    """Computes the SHA-256 of a patch's RGB bytes, row by row."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
