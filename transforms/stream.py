"""Training patches streamed from shards by webdataset.

The order of the samples, the window cropped from each and its flip are functions of (seed, epoch, place in the epoch),
so a run that stopped after n images goes on with the n+1st. A damaged shard or sample ends the stream with an
``InputError``: an epoch that lacked samples would be another one.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import webdataset as wds
from PIL import Image

from model.errors import InputError, one_line
from transforms.samples import Sample, vertical_position
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
        edge_share: of the windows, cropped at the very top or bottom: the partners of generated windows beyond it.
        edge_after: patches of the stream before these begin.

    Raises:
        InputError: the set has no training samples, or its photographs are of another height.
    """

    data: str
    patch_px: int
    full_px: int
    seed: int = 0
    edge_share: float = 0.0
    edge_after: int = 0

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
        """Single patches and their t, without the first `after`.

        Raises:
            InputError: a shard or a sample is damaged.
        """
        dataset = read_dataset(self.data)
        counts = {name: shard["samples"] for name, shard in sorted(dataset["shards"].items())}
        shards = {name: count for name, count in counts.items() if name.startswith("train-")}
        epoch, skipped = divmod(after, dataset["samples"]["train"])
        number = after
        while True:
            for place, raw in enumerate(read_epoch(self.data, shards, f"{self.seed} {epoch}")):
                if place >= skipped:
                    edge_share = self.edge_share if number >= self.edge_after else 0.0
                    yield crop(raw, self.patch_px, Random(f"{self.seed} {epoch} {place}"), edge_share)
                    number += 1
            epoch, skipped = epoch + 1, 0


def read_epoch(data: str, shards: Mapping[str, int], seed: str) -> Iterator[dict[str, Any]]:
    """The raw samples of all shards, given with their numbers of samples, once, in an order that the seed decides."""
    random = Random(seed)
    order = random.sample(list(shards), len(shards))
    samples = chain.from_iterable(read_shard(join(data, name), shards[name]) for name in order)
    return wds.filters.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=random)(samples)


def read_shard(url: str, count: int) -> Iterator[dict[str, Any]]:
    """The raw samples of a shard that should have `count` of them.

    Raises:
        InputError: the shard is missing, no tar, or cut short.
    """
    fs, path = filesystem(url)
    read = 0
    try:
        with fs.open(path, "rb") as stream:
            files = wds.tariterators.tar_file_expander([{"url": url, "stream": stream}])
            for raw in wds.tariterators.group_by_keys(files):
                read += 1
                yield raw
    except FileNotFoundError:
        raise damaged(url, "it is missing") from None
    except (tarfile.TarError, ValueError, EOFError):
        raise damaged(url, "it is no tar of samples, or is cut short") from None
    if read != count:
        # A tar that ends between two files, or that has a broken header, is read as a shorter one.
        raise damaged(url, f"{read} of its {count} samples can be read")


def damaged(what: str, why: str) -> InputError:
    """What is said of a shard or sample that cannot be read."""
    return InputError(f"{what} is damaged ({why}): copy the shard again, or ingest the photographs again")


def crop(
    raw: dict[str, Any], patch_px: int, random: Random, edge_share: float = 0.0
) -> tuple[npt.NDArray[np.float32], float]:
    """A random window anywhere in a sample's picture, flipped half the time, float32 [3,patch,patch], and its t.

    A share of the windows lies at its top or bottom.

    Raises:
        InputError: the sample's metadata or picture are missing or damaged.
    """
    try:
        sample, picture = read_sample(raw)
        top, bottom = sample.full_rows_px
        x = random.randint(0, sample.stored_width_px - patch_px)
        highest, lowest = max(top, 0), min(bottom, sample.stored_height_px) - patch_px
        y = random.randint(highest, lowest)
        if random.random() < edge_share:
            y = random.choice((highest, lowest))
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes
        raise damaged(f"{raw['__url__']}, sample {raw['__key__']},", one_line(error)) from None
    window = np.asarray(picture.crop((x, y, x + patch_px, y + patch_px)))
    if random.random() < 0.5:
        window = window[:, ::-1]
    t = vertical_position(y, sample.full_rows_px, patch_px)
    return window.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1, t


def read_sample(raw: dict[str, Any]) -> tuple[Sample, Image.Image]:
    """A sample's metadata and its picture, RGB.

    Raises:
        Exception: of any kind, if either is missing or damaged.
    """
    encoded = next((raw[name] for name in ("jpg", "png", "webp") if name in raw), None)
    if encoded is None or "json" not in raw:
        raise InputError("one of its two files is missing")
    sample = Sample.from_json(json.loads(raw["json"]))
    with Image.open(io.BytesIO(encoded)) as image:
        if image.size != (sample.stored_width_px, sample.stored_height_px):
            raise InputError(f"the picture's size, {image.size}, is not that of its metadata")
        return sample, image.convert("RGB")
