"""Streams training patches from shards with webdataset.

The order of the samples, and the window and flip of each, are functions of (seed, epoch, place in the epoch, number of
processes), so a run that stopped after n images continues with image n + 1. The order follows from the set's
``dataset.json`` alone: a resumed run does not read shards that it has already used.

With n processes, each takes every n-th shard of an epoch's order and reads its shards in blocks, whose samples it
shuffles. One thread reads the next block while others decode and crop patches of the current one; the number of threads
does not affect the order.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from model.errors import InputError, one_line
from model.metrics.statistics import horizon_height
from transforms.storage.pictures import STORED_FORMATS, open_picture
from transforms.storage.prefetch import map_ahead, one_ahead
from transforms.training.shard_reader import RawSample, Shards
from transforms.training_set.dataset import damaged
from transforms.training_set.samples import vertical_position

SHUFFLED_SAMPLES = 1000
"""The least number of samples in a block, unless the epoch has fewer."""

DECODERS = min(4, os.cpu_count() or 1)
PART, PARTS_AHEAD = 16, 4
"""The number of patches that a thread decodes in one go, and of such parts decoded ahead."""

MIDDLE = 0.5
"""The share of a picture's height below which a horizon counts as low: the top is then farther from it."""

LEVELS = np.arange(256, dtype=np.float32) / 127.5 - 1
"""The values in [-1, 1] of a picture's levels."""

Window = tuple[npt.NDArray[np.uint8], float]
"""A part of a photograph: its pixels, uint8 [h,w,3], and its vertical position t."""

TrainingPatch = tuple[npt.NDArray[np.float32], float]
"""A window as networks take it: its pixels, float32 [3,h,w] in [-1, 1], and its t."""


class Place(NamedTuple):
    """A sample's turn in the stream.

    Attributes:
        number: the number of samples of this process's stream before it.
        seed: the seed of its window and flip.
        raw: the sample.
    """

    number: int
    seed: str
    raw: RawSample


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches of photographs, and their vertical positions in the photographs.

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
        shards: the shards of the training set, and which of them were given up.
        patch_px: the side of a patch.
        full_px: the height of the photographs that the network is made for.
        seed: the seed of the order, the windows and the flips.
        beyond_share: the share of windows cropped at the very top or bottom, away from the horizon; generated windows
            beyond the frame are compared with these.
        rank: the number of this process.
        ranks: the number of processes that share the set.
    """

    shards: Shards
    patch_px: int
    full_px: int
    seed: int = 0
    beyond_share: float = 0.0
    rank: int = 0
    ranks: int = 1

    def batches(self, size: int, after: int = 0, beyond_after: int = 0) -> Iterator[PatchBatch]:
        """Yields batches of `size` patches; the other arguments are those of `patches`."""
        return in_batches(self.patches(after, beyond_after), size)

    def frame_batches(self, size: int, after: int = 0) -> Iterator[PatchBatch]:
        """Yields batches of `size` whole frames, without the first `after` frames of this process's stream."""
        return in_batches(self.frames(after), size)

    def patches(self, after: int = 0, beyond_after: int = 0) -> Iterator[TrainingPatch]:
        """Yields single patches and their t.

        Args:
            after: the number of patches of this process's stream to skip.
            beyond_after: the number of patches of this process's stream before `beyond_share` applies.

        Raises:
            InputError: a sample is damaged; or a shard is, and that is an error or no shard can be read.
        """

        def cut_patch(place: Place) -> Window:
            beyond_share = self.beyond_share if place.number >= beyond_after else 0.0
            return crop(place.raw, self.patch_px, Random(place.seed), beyond_share)

        return self.windows(after, cut_patch)

    def frames(self, after: int = 0) -> Iterator[TrainingPatch]:
        """Yields single whole frames, `full_px` high and wide, and their t, which is 0; without the first `after`.

        Raises:
            InputError: as `patches` does.
        """
        return self.windows(after, lambda place: crop_frame(place.raw, self.full_px, Random(place.seed)))

    def windows(self, after: int, cut_window: Callable[[Place], Window]) -> Iterator[TrainingPatch]:
        """Yields what is cut from one sample after the other."""
        parts = (block[i : i + PART] for block in one_ahead(self.blocks(after)) for i in range(0, len(block), PART))
        return chain.from_iterable(map_ahead(partial(decode, cut_window), parts, DECODERS, PARTS_AHEAD))

    def blocks(self, after: int) -> Iterator[list[Place]]:
        """Yields the places of one block after the other, without the first `after`."""
        names = sorted(name for name in self.shards.records if name.startswith("train-"))
        number = 0
        for epoch in count():
            epochs_first = number
            order = deal(names, f"{self.seed} {epoch}", self.rank, self.ranks)
            for block in cut(order, self.shards):
                size = self.shards.samples(block)
                if after < number + size:
                    samples = list(self.shards.read(block, order))
                    Random(f"{self.seed} {epoch} {block[0]}").shuffle(samples)
                    yield [
                        Place(n, f"{self.seed} {epoch} {self.rank + self.ranks * (n - epochs_first)}", raw)
                        for n, raw in enumerate(samples, number)
                        if n >= after
                    ]
                number += size


def in_batches(patches: Iterator[TrainingPatch], size: int) -> Iterator[PatchBatch]:
    """Puts every `size` patches into one batch."""
    while True:
        pixels, positions = zip(*(next(patches) for _ in range(size)), strict=True)
        yield PatchBatch(np.stack(pixels), np.array(positions, dtype=np.float32))


def decode(cut_window: Callable[[Place], Window], places: Sequence[Place]) -> list[TrainingPatch]:
    """Cuts the windows of some places, all of one size."""
    windows = [cut_window(place) for place in places]
    pixels = LEVELS[np.stack([window for window, _ in windows]).transpose(0, 3, 1, 2)]
    return [(pixels[index], t) for index, (_, t) in enumerate(windows)]


def deal(names: Sequence[str], seed: str, rank: int, ranks: int) -> list[str]:
    """Returns the shards of one process in one epoch, in order; over all processes each shard comes once."""
    return Random(seed).sample(names, len(names))[rank::ranks]


def cut(order: Sequence[str], shards: Shards) -> Iterator[list[str]]:
    """Cuts an epoch's shards into blocks of at least a thousand samples, except for the last."""
    block: list[str] = []
    for name in order:
        block.append(name)
        if shards.samples(block) >= SHUFFLED_SAMPLES:
            yield block
            block = []
    if block:
        yield block


def crop(raw: RawSample, patch_px: int, random: Random, beyond_share: float = 0.0) -> Window:
    """Crops a random window anywhere in a sample's picture, flipped half the time: uint8 [patch,patch,3], and its t.

    A share of the windows lies at the picture's top or bottom, whichever is farther from the horizon, so that generated
    windows beyond the frame are compared with sky or ground. Otherwise hills at the frame's edge would be learned for
    any height.

    Raises:
        InputError: the sample's metadata or picture are missing or damaged.
    """
    try:
        (top, bottom), picture = open_sample(raw)
        x = random.randint(0, picture.width - patch_px)
        highest, lowest = max(top, 0), min(bottom, picture.height) - patch_px
        column = np.array(picture.crop((x, highest, x + patch_px, lowest + patch_px)).convert("RGB"))
        y = random.randint(highest, lowest)
        if random.random() < beyond_share:
            horizon = horizon_height(torch.from_numpy(column).permute(2, 0, 1)[None]).item()
            y = highest if horizon > MIDDLE else lowest
        window = column[y - highest :][:patch_px]
        t = vertical_position(y, (top, bottom), patch_px)
    except Exception as error:  # Pillow's decoders raise errors of almost any type on broken bytes
        raise damaged(f"{raw['__url__']}, sample {raw['__key__']},", one_line(error)) from None
    return (window[:, ::-1] if random.random() < 0.5 else window), t


def crop_frame(raw: RawSample, full_px: int, random: Random) -> Window:
    """Crops a random square as high as a sample's picture, flipped half the time: uint8 [full,full,3], and its t, 0.

    A picture that is narrower than it is high is continued by reflection.

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
    except Exception as error:  # Pillow's decoders raise errors of almost any type on broken bytes
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
        raise InputError(f"the picture's size, {image.size}, differs from that in its metadata")
    return (top, bottom), image
