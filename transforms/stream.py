"""Training patches streamed from shards by webdataset.

The order of the samples, the window cropped from each and its flip are functions of (seed, epoch, place in the epoch),
so a run that stopped after n images goes on with the n+1st.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import webdataset as wds
from PIL import Image

from model.errors import InputError
from transforms.samples import Sample
from transforms.storage import filesystem, join
from transforms.training_shards import read_dataset

SHUFFLE_BUFFER = 1000
GEOMETRY_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches of photographs and where in their photographs they lie.

    Attributes:
        pixels: float32 [N,3,patch,patch] in [-1, 1].
        vertical_positions: t, float32 [N] in [-1, 1].
    """

    pixels: npt.NDArray[np.float32]
    vertical_positions: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PatchStream:
    """An endless stream of random patches of a training set's photographs.

    Attributes:
        data: URL of the training set.
        patch_px: side of a patch.
        full_px: height of the photographs that the network is made for.
        seed: of the order, the windows and the flips.

    Raises:
        InputError: the set has no training samples, or its photographs are of another height.
    """

    data: str
    patch_px: int
    full_px: int
    seed: int = 0

    def __post_init__(self) -> None:
        dataset = read_dataset(self.data)
        if dataset["samples"]["train"] == 0:
            raise InputError(f"{self.data} holds no training samples; ingest more photographs")
        travel, wanted = dataset["full_size_px"] - self.patch_px, self.full_px - self.patch_px
        if abs(travel - wanted) > GEOMETRY_TOLERANCE * wanted:
            raise InputError(
                f"{self.data} holds photographs {dataset['full_size_px']} px high, but this preset crops "
                f"{self.patch_px} px from {self.full_px}: ingest them with --full-size {self.full_px} "
                f"--patch-size {self.patch_px}"
            )

    def batches(self, size: int, after: int = 0) -> Iterator[PatchBatch]:
        """Batches of `size` patches, without the first `after` patches of the stream."""
        patches = self.patches(after)
        while True:
            pixels, positions = zip(*(next(patches) for _ in range(size)), strict=True)
            yield PatchBatch(np.stack(pixels), np.array(positions, dtype=np.float32))

    def patches(self, after: int = 0) -> Iterator[tuple[npt.NDArray[np.float32], float]]:
        """Single patches and their t, without the first `after`."""
        dataset = read_dataset(self.data)
        shards = sorted(name for name in dataset["shards"] if name.startswith("train-"))
        epoch, skipped = divmod(after, dataset["samples"]["train"])
        while True:
            for place, raw in enumerate(read_epoch(self.data, shards, f"{self.seed} {epoch}")):
                if place >= skipped:
                    yield crop(raw, self.patch_px, Random(f"{self.seed} {epoch} {place}"))
            epoch, skipped = epoch + 1, 0


def read_epoch(data: str, shards: list[str], seed: str) -> Iterator[dict[str, Any]]:
    """The raw samples of all shards once, in an order that the seed decides."""
    random = Random(seed)
    urls = [join(data, name) for name in random.sample(shards, len(shards))]
    files = wds.tariterators.tar_file_expander(open_shards(urls))
    samples = wds.tariterators.group_by_keys(files)
    return wds.filters.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=random)(samples)


def open_shards(urls: list[str]) -> Iterator[dict[str, Any]]:
    """Each shard's open file, as webdataset's readers take it."""
    for url in urls:
        fs, path = filesystem(url)
        with fs.open(path, "rb") as stream:
            yield {"url": url, "stream": stream}


def crop(raw: dict[str, Any], patch_px: int, random: Random) -> tuple[npt.NDArray[np.float32], float]:
    """A random window anywhere in a sample's picture, flipped half the time, float32 [3,patch,patch], and its t."""
    sample = Sample.from_json(json.loads(raw["json"]))
    top, bottom = sample.full_rows_px
    x = random.randint(0, sample.stored_width_px - patch_px)
    y = random.randint(max(top, 0), min(bottom, sample.stored_height_px) - patch_px)
    encoded = next(raw[name] for name in ("jpg", "png", "webp") if name in raw)
    with Image.open(io.BytesIO(encoded)) as image:
        window = np.asarray(image.convert("RGB").crop((x, y, x + patch_px, y + patch_px)))
    if random.random() < 0.5:
        window = window[:, ::-1]
    t = 2 * (y - top) / (bottom - top - patch_px) - 1
    return window.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1, t
