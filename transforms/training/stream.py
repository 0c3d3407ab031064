"""Training patches streamed from shards by webdataset.

The order of the samples, the window cropped from each and its flip are functions of (seed, epoch, place in the epoch,
number of processes), so a run that stopped after n images goes on with the n+1st. What order that is follows from the
set's ``dataset.json`` alone: a run that goes on reads no shard that it has done with.

Each process takes every so-maniest shard of an epoch's order and reads them in blocks, whose samples it shuffles. One
thread reads the next block while others decode and crop the patches of this one; how many there are changes no order.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from model.errors import InputError, one_line
from model.metrics.statistics import horizon_height
from transforms.storage.pictures import STORED_FORMATS, open_picture
from transforms.storage.prefetch import map_ahead, one_ahead
from transforms.training.shard_reader import RawSample, Shards
from transforms.training_set.dataset import check_fits, damaged, read_dataset
from transforms.training_set.samples import vertical_position

SHUFFLED_SAMPLES = 1000
"""A block has at least as many samples, unless the epoch has fewer."""

DECODERS = min(4, os.cpu_count() or 1)
PART, PARTS_AHEAD = 16, 4
"""Patches that a thread decodes in one go, and how many such parts are decoded ahead."""

MIDDLE = 0.5
"""Of a picture's height: where its horizon lies lower, its top is farther from it."""

LEVELS = np.arange(256, dtype=np.float32) / 127.5 - 1
"""What each of a picture's levels is in [-1, 1]."""

Patch = tuple[npt.NDArray[np.float32], float]
Place = tuple[RawSample, str, float]
"""A raw sample, the seed of its window and flip, and the share of windows at the edges when its turn comes."""


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
    """An endless stream of random patches of a training set's photographs, or one process's share of it.

    Attributes:
        data: URL of the training set.
        patch_px: side of a patch.
        full_px: height of the photographs that the network is made for.
        seed: of the order, the windows and the flips.
        edge_share: of the windows, cropped at the very top or bottom, away from the horizon: what generated windows
            beyond the frame are held against.
        edge_after: patches of the stream before these begin.
        whole: whether it is whole frames, full_px high and wide, instead of patches; their t is 0.
        rank: which of the processes this is.
        ranks: how many processes share the set.
        strict: whether a shard that cannot be read is an error.
        skipped: the shards that were given up so far, and why.

    Raises:
        InputError: the set has no training samples, fewer shards than processes, or photographs of another height.
    """

    data: str
    patch_px: int
    full_px: int
    seed: int = 0
    edge_share: float = 0.0
    edge_after: int = 0
    whole: bool = False
    rank: int = 0
    ranks: int = 1
    strict: bool = False
    skipped: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check_fits(self.data, read_dataset(self.data), self.patch_px, self.full_px, self.ranks)

    def batches(self, size: int, after: int = 0) -> Iterator[PatchBatch]:
        """Batches of `size` patches, without the first `after` patches of this process's stream."""
        patches = self.patches(after)
        while True:
            pixels, positions = zip(*(next(patches) for _ in range(size)), strict=True)
            yield PatchBatch(np.stack(pixels), np.array(positions, dtype=np.float32))

    def patches(self, after: int = 0) -> Iterator[Patch]:
        """Yields single patches and their t, without the first `after`.

        Raises:
            InputError: a sample is damaged; or a shard, and that is an error or none can be read.
        """
        parts = (block[i : i + PART] for block in one_ahead(self.blocks(after)) for i in range(0, len(block), PART))
        return chain.from_iterable(map_ahead(self.patches_of, parts, DECODERS, PARTS_AHEAD))

    def patches_of(self, places: Sequence[Place]) -> list[Patch]:
        """Returns the patches of some places."""
        if self.whole:
            windows = [crop_frame(raw, self.full_px, Random(seed)) for raw, seed, _ in places]
        else:
            windows = [crop(raw, self.patch_px, Random(seed), edge_share) for raw, seed, edge_share in places]
        pixels = LEVELS[np.stack([window for window, _ in windows]).transpose(0, 3, 1, 2)]
        return [(pixels[index], t) for index, (_, t) in enumerate(windows)]

    def blocks(self, after: int) -> Iterator[list[Place]]:
        """Yields the samples of one block after the other."""
        records = read_dataset(self.data)["shards"]
        shards = Shards(self.data, records, self.strict, self.skipped)
        names = sorted(name for name in records if name.startswith("train-"))
        epoch, number, skip = 0, 0, after
        while True:
            order = deal(names, f"{self.seed} {epoch}", self.rank, self.ranks)
            place = self.rank
            for block in cut(order, shards):
                size = shards.samples(block)
                if skip < size:
                    samples = list(shards.read(block, order))
                    Random(f"{self.seed} {epoch} {block[0]}").shuffle(samples)
                    yield [
                        (
                            raw,
                            f"{self.seed} {epoch} {place + self.ranks * index}",
                            self.edge_share if number + index >= self.edge_after else 0.0,
                        )
                        for index, raw in enumerate(samples)
                        if index >= skip
                    ]
                skip = max(0, skip - size)
                number, place = number + size, place + self.ranks * size
            epoch += 1


def deal(names: Sequence[str], seed: str, rank: int, ranks: int) -> list[str]:
    """Returns the shards of one process in one epoch, in order; over all processes each shard comes once."""
    return Random(seed).sample(names, len(names))[rank::ranks]


def cut(order: Sequence[str], shards: Shards) -> Iterator[list[str]]:
    """Cuts an epoch's shards into blocks of at least a thousand samples, but for the last."""
    block: list[str] = []
    for name in order:
        block.append(name)
        if shards.samples(block) >= SHUFFLED_SAMPLES:
            yield block
            block = []
    if block:
        yield block


def crop(raw: RawSample, patch_px: int, random: Random, edge_share: float = 0.0) -> tuple[npt.NDArray[np.uint8], float]:
    """Returns a random window anywhere in a sample's picture, flipped half the time, uint8 [patch,patch,3], and its t.

    A share of the windows lies at its top or bottom, whichever is farther from the horizon: what generated windows
    beyond the frame are held against is then sky or ground. Hills on the frame's edge would be asked for at any height.

    Raises:
        InputError: the sample's metadata or picture are missing or damaged.
    """
    try:
        (top, bottom), picture = open_sample(raw)
        x = random.randint(0, picture.width - patch_px)
        highest, lowest = max(top, 0), min(bottom, picture.height) - patch_px
        column = np.array(picture.crop((x, highest, x + patch_px, lowest + patch_px)).convert("RGB"))
        y = random.randint(highest, lowest)
        if random.random() < edge_share:
            horizon = horizon_height(torch.from_numpy(column).permute(2, 0, 1)[None]).item()
            y = highest if horizon > MIDDLE else lowest
        window = column[y - highest :][:patch_px]
        t = vertical_position(y, (top, bottom), patch_px)
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes
        raise damaged(f"{raw['__url__']}, sample {raw['__key__']},", one_line(error)) from None
    return (window[:, ::-1] if random.random() < 0.5 else window), t


def crop_frame(raw: RawSample, full_px: int, random: Random) -> tuple[npt.NDArray[np.uint8], float]:
    """Returns a random square as high as a sample's picture, flipped half the time, uint8 [full,full,3], and its t, 0.

    A picture that is less wide than high is continued by reflection.

    Raises:
        InputError: the sample's metadata or picture are missing or damaged.
    """
    try:
        (top, bottom), picture = open_sample(raw)
        highest, lowest = max(top, 0), min(bottom, picture.height)
        side = lowest - highest
        x = random.randint(0, max(0, picture.width - side))
        frame = picture.crop((x, highest, min(x + side, picture.width), lowest)).convert("RGB")
        width = full_px * frame.width // side
        if frame.size != (width, full_px):
            frame = frame.resize((width, full_px), Image.Resampling.BICUBIC)
        window = np.pad(np.array(frame), ((0, 0), (0, full_px - width), (0, 0)), mode="symmetric")
    except Exception as error:  # Pillow's decoders raise almost anything on broken bytes
        raise damaged(f"{raw['__url__']}, sample {raw['__key__']},", one_line(error)) from None
    return (window[:, ::-1] if random.random() < 0.5 else window), 0.0


def open_sample(raw: RawSample) -> tuple[tuple[int, int], Image.Image]:
    """Returns the rows at which a sample's full picture begins and ends, and its picture, which is decoded lazily.

    Raises:
        Exception: of any kind, if either is missing or damaged.
    """
    encoded = next((raw[name] for name in ("jpg", "png", "webp") if name in raw), None)
    if encoded is None or "json" not in raw:
        raise InputError("one of its two files is missing")
    metadata = json.loads(raw["json"])
    top, bottom = metadata["full_rows_px"]
    image = open_picture(encoded, STORED_FORMATS)
    if image.size != (metadata["stored_width_px"], metadata["stored_height_px"]):
        raise InputError(f"the picture's size, {image.size}, is not that of its metadata")
    return (top, bottom), image
