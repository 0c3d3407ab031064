"""The photographs that worlds are compared with, and the crops taken from each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import tee

import numpy as np
import torch
from torch import Tensor

from model.config import GeneratorConfig
from model.errors import InputError, one_line
from model.metrics.statistics import horizon_height
from transforms.evaluation.settings import (
    GROUND,
    PATCH,
    SKY,
    Evaluation,
    PictureSets,
    band,
    clamp_to_frame,
    cut,
    frame,
    paper,
    paper_base_px,
    scale_down,
    spread,
    to_tensor,
)
from transforms.storage.byte_ranges import Piece, read_each
from transforms.storage.files import join
from transforms.storage.pictures import STORED_FORMATS, open_picture
from transforms.training_set.dataset import IndexRow, IndexRows, check_fits, damaged, read_dataset

HELD_OUT = ("val", "test")


@dataclass(frozen=True, slots=True)
class Photographs:
    """Photographs of a training set, as an evaluation crops them.

    Attributes:
        data: the URL of the training set.
        rows: a row of the set's index for each photograph.
        crop: returns the crops of a picture uint8 [3,h,w], given its number and its row.
    """

    data: str
    rows: IndexRows
    crop: Callable[[int, IndexRow, Tensor], PictureSets]

    def __iter__(self) -> Iterator[PictureSets]:
        """Yields each photograph's crops in turn.

        Raises:
            InputError: a shard or a picture is damaged.
        """
        for number, (row, picture) in enumerate(read_pictures(self.data, self.rows)):
            yield self.crop(number, row, picture)


def read_photographs(data: str, config: GeneratorConfig, evaluation: Evaluation) -> tuple[Photographs, Photographs]:
    """Returns the held-out photographs, and some of the training split.

    Raises:
        InputError: this is not a training set, it lacks one of the two, or was made for another network.
    """
    held_out, trained = rows_of(data, config.patch_px, config.full_px, (None, evaluation.trained_photographs))
    return (
        Photographs(data, held_out, partial(crop_planned, config, evaluation)),
        Photographs(data, trained, partial(crop_planned, config, evaluation.of_trained())),
    )


def crop_planned(
    config: GeneratorConfig, evaluation: Evaluation, number: int, row: IndexRow, picture: Tensor
) -> PictureSets:
    """Crops a photograph uint8 [3,h,w], with patches where its row has planned some."""
    random = np.random.default_rng((evaluation.seed, number))
    # Planned patches are ordered from top to bottom; if few are taken, photographs take turns at the heights.
    planned = [patch["vertical_position"] for patch in row["patches"]]
    step = max(1, len(planned) // evaluation.patches)
    return crop_photograph(picture, planned[number % step :: step], config, evaluation, random)


def rows_of(data: str, patch_px: int, full_px: int, most: tuple[int | None, int]) -> tuple[IndexRows, IndexRows]:
    """Returns the rows of held-out photographs, and of the training split; `most` limits each.

    Raises:
        InputError: this is not a training set, it lacks one of the two, or its photographs have another height.
    """
    dataset = read_dataset(data)
    check_fits(data, dataset, patch_px, full_px)
    held_out, trained = IndexRows(data, dataset, HELD_OUT, most[0]), IndexRows(data, dataset, ("train",), most[1])
    if len(held_out) < 2:
        raise InputError(f"{data} holds {len(held_out)} photographs to evaluate with (val, test); ingest more")
    return held_out, trained


def read_pictures(data: str, rows: Iterable[IndexRow]) -> Iterator[tuple[IndexRow, Tensor]]:
    """Yields the pictures uint8 [3,h,w] of rows of a set's index, with their rows.

    Raises:
        InputError: a shard or a picture is damaged.
    """
    rows, same_rows = tee(rows)
    pieces = (Piece(join(data, row["shard"]), row["offset"], row["size"]) for row in same_rows)
    for row, content in zip(rows, read_each(pieces), strict=True):
        if isinstance(content, FileNotFoundError):
            raise damaged(join(data, row["shard"]), "it is missing")
        name = f"{data}, photograph {row['key']},"
        if isinstance(content, Exception):
            raise damaged(name, one_line(content))
        yield row, read_picture(content, row, name)


def read_picture(content: bytes, row: IndexRow, name: str) -> Tensor:
    """Decodes the stored picture, uint8 [3,h,w], of a row of the index.

    Raises:
        InputError: the picture is damaged, or its size differs from that in the row.
    """
    try:
        with open_picture(content, STORED_FORMATS) as image:
            picture = to_tensor(image.convert("RGB"))
    except Exception:  # Pillow's decoders raise errors of almost any type on broken bytes
        raise damaged(name, "its picture cannot be read") from None
    if picture.shape[1:] != (row["stored_height_px"], row["stored_width_px"]):
        raise damaged(name, "its picture's size differs from that in the index")
    return picture


def crop_photograph(
    picture: Tensor,
    positions: Sequence[float],
    config: GeneratorConfig,
    evaluation: Evaluation,
    random: np.random.Generator,
) -> PictureSets:
    """Crops a photograph uint8 [3,h,w].

    Returns:
        Patches at its planned vertical positions; patches of each band, clamped to the frame; patches of its sky and
        its ground without the horizon, if any; and whole frames.
    """
    _, height, width = picture.shape
    size, free = config.patch_px, height - config.patch_px

    def patches(tops: Sequence[int]) -> Tensor:
        return cut(picture, size, zip(tops, spread(width - size, len(tops), random), strict=True))

    sets = {PATCH: patches([round(free * (t + 1) / 2) for t in positions])}
    for band_px in sorted({clamp_to_frame(band_px, config) for band_px in evaluation.bands_px}):
        top = min(max(round(free / 2) + band_px, 0), free)
        sets[band(band_px)] = patches([top] * evaluation.band_crops)
    columns = torch.stack([picture[:, :, x : x + size] for x in spread(width - size, evaluation.band_crops, random)])
    horizons_px = horizon_height(columns) * height
    sets[SKY], sets[GROUND] = columns[horizons_px >= size, :, :size], columns[horizons_px <= free, :, free:]
    lefts = spread(width - height, evaluation.frame_crops, random)
    sets[frame()] = cut(picture, height, [(0, left) for left in lefts])
    if evaluation.protocol == "paper":
        sets[paper(frame())] = scale_down(sets[frame()], paper_base_px(config))
    return sets
