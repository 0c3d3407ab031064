"""How far a checkpoint's pictures are from held-out photographs, by bands of height.

Kernel distance (KID, unbiased, cubic kernel) in EfficientNet-Lite0's pooled features, the share of clipped pixels, and
contrast. Photographs: the val and test splits of a training set; the floor is the distance of its train split from
them.

    python benchmarks/quality.py CHECKPOINT DATA [--out FILE.json]
"""

import io
import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from model.checkpoint import load_checkpoint
from model.config import GeneratorConfig
from model.features import EfficientNetLite0
from model.memory import reuse_freed_memory
from model.quantise import quantise
from model.world import World
from transforms.storage import join, read_bytes
from transforms.training_shards import read_index

BANDS_PX = (-388, -128, -48, 0, 48, 128, 388)
WORLDS, PATCHES_A_WORLD, FIRST_SEED = 40, 6, 1000
CROPS_HELD_OUT, CROPS_TRAINED = 16, 2
FEATURE_PX, BATCH, BOOTSTRAPS = 224, 32, 50


def read_photographs(data: str, splits: tuple[str, ...]) -> list[npt.NDArray[np.uint8]]:
    """The stored images of splits, uint8 [h,w,3]."""
    shards: dict[str, bytes] = {}
    pictures = []
    for row in read_index(data):
        if row["split"] in splits:
            if row["shard"] not in shards:
                shards[row["shard"]] = read_bytes(join(data, row["shard"]))
            content = shards[row["shard"]][row["offset"] : row["offset"] + row["size"]]
            pictures.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    return pictures


def crop_photographs(
    photographs: list[npt.NDArray[np.uint8]],
    config: GeneratorConfig,
    band_px: int,
    each: int,
    random: np.random.Generator,
) -> Tensor:
    """Crops uint8 [N·each,3,patch,patch] whose middle lies so far below the photograph's, clamped to it."""
    size, crops = config.patch_px, []
    for picture in photographs:
        free = picture.shape[0] - size
        top = round(min(max(free / 2 + band_px, 0), free))
        lefts = random.integers(0, picture.shape[1] - size + 1, each)
        crops += [picture[top : top + size, left : left + size] for left in lefts]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


def render_patches(worlds: list[World], band_px: int, random: np.random.Generator) -> Tensor:
    """Patches uint8 [N,3,patch,patch] whose middle row lies so far below the horizon."""
    patches = []
    for world in worlds:
        size = world.config.patch_px
        rows = (band_px - size // 2, band_px - size // 2 + size - 1)
        lefts = random.integers(0, 100_000, PATCHES_A_WORLD).tolist()
        patches += [quantise(world.render(rows, (left, left + size - 1))) for left in lefts]
    return torch.stack(patches)


@torch.inference_mode()
def features(network: EfficientNetLite0, patches: Tensor) -> Tensor:
    """Pooled features float64 [N,1280] of uint8 [N,3,h,w]."""
    parts = []
    for batch in patches.split(BATCH):
        size = (FEATURE_PX, FEATURE_PX)
        enlarged = F.interpolate(batch.float() / 127.5 - 1, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        parts.append(network.pooled(enlarged.contiguous(memory_format=torch.channels_last)))
    return torch.cat(parts).double()


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel (x·y/d + 1)³ (Bińkowski et al. 2018)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(k: Tensor) -> Tensor:
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))

    return float(within(kernel(x, x)) + within(kernel(y, y)) - 2 * kernel(x, y).mean())


def measure(checkpoint: str, data: str) -> list[dict[str, Any]]:
    """A row a band."""
    generator = load_checkpoint(read_bytes(checkpoint), checkpoint).generator
    worlds = [World(generator, FIRST_SEED + number) for number in range(WORLDS)]
    held_out, trained = read_photographs(data, ("val", "test")), read_photographs(data, ("train",))
    network, random, rows = EfficientNetLite0(), np.random.default_rng(0), []
    for band_px in BANDS_PX:
        fakes = render_patches(worlds, band_px, random)
        reals = crop_photographs(held_out, generator.config, band_px, CROPS_HELD_OUT, random)
        known = crop_photographs(trained, generator.config, band_px, CROPS_TRAINED, random)
        fake, real = features(network, fakes), features(network, reals)
        by_photograph = real.unflatten(0, (len(held_out), CROPS_HELD_OUT))
        draws = [random.integers(0, len(held_out), len(held_out)) for _ in range(BOOTSTRAPS)]
        spread = np.std([kernel_distance(fake, by_photograph[draw].flatten(0, 1)) for draw in draws])
        rows.append(
            {
                "row, px": band_px,
                "KID": kernel_distance(fake, real),
                "±": float(spread),
                "floor": kernel_distance(features(network, known), real),
                "clipped": clipped(fakes),
                "photos clipped": clipped(reals),
                "contrast": contrast(fakes),
                "photos contrast": contrast(reals),
            }
        )
    return rows


def clipped(patches: Tensor) -> float:
    """Share of the pixels with a channel at 0, 1, 254 or 255."""
    return float(((patches <= 1) | (patches >= 254)).any(dim=1).float().mean())


def contrast(patches: Tensor) -> float:
    """Mean over patches of the standard deviation of their values, of 255."""
    return float(patches.float().std(dim=(1, 2, 3)).mean())


def main() -> None:
    reuse_freed_memory()
    rows = measure(*sys.argv[1:3])
    table = Table(title="Distance to held-out photographs, by height")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if sys.argv[3:4] == ["--out"]:
        with open(sys.argv[4], "w") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
