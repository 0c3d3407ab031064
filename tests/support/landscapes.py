"""Small pictures that stand for photographs of landscapes."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_landscapes(folder: Path, count: int, height_px: int, width_px: int) -> None:
    """Writes noise of one brightness over noise of another: a sky over a land, each of random colours."""
    random = np.random.default_rng(0)
    for index in range(count):
        pixels = random.integers(0, 60, (height_px, width_px, 3))
        pixels[: height_px // 2] += random.integers(60, 190, 3)
        pixels[height_px // 2 :] += random.integers(0, 120, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02d}.png")
