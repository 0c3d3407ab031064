"""``report.html``: a page that shows the contents of a training set and its rejects. It needs no network."""

import base64
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from PIL import Image

from model.errors import InputError
from transforms.storage.byte_ranges import Piece, read_each
from transforms.storage.files import join, write_bytes
from transforms.storage.pictures import STORED_FORMATS, open_picture
from transforms.storage.templates import fill
from transforms.training_set.dataset import INDEX, REPORT, UNSTATED, Dataset, read_index_parts, read_rejects
from transforms.training_set.records import Reject
from transforms.training_set.samples import SPLITS

LOOKED_AT: Final = 240
"""The most pictures that are opened, spread evenly over the index. Half of them are shown."""

THUMBNAIL_PX: Final = 72
BANDS: Final = 24
EXAMPLES: Final = 5
LICENCES: Final = 40
BINS: Final = 24
COLUMNS: Final = (
    *("shard", "key", "offset", "size", "source", "licence", "author", "title"),
    *("original_width_px", "original_height_px"),
)
MOST_SIZES: Final = 100_000
"""The number of different sizes of originals beyond which they are rounded to two digits."""

MOST_LICENCES: Final = 10_000
"""The number of different licences beyond which the rare ones are forgotten."""


@dataclass
class Contents:
    """What the report says of a set's tables, gathered in memory that does not grow with them.

    Attributes:
        samples: the number of samples.
        every: of how many samples one is looked at.
        sizes: how many originals have each width and height.
        licences: how many samples have each licence.
        looked_at: the rows of the samples that are opened.
        rejected: the number of rejects of each reason, and the first ones.
    """

    samples: int
    every: int
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    looked_at: list[dict[str, Any]] = field(default_factory=list)
    rejected: dict[str, tuple[int, list[Reject]]] = field(default_factory=dict)


def read_contents(out: str, dataset: Dataset) -> Contents:
    """Reads the tables of a set, in parts.

    Raises:
        InputError: a table is damaged.
    """
    samples = sum(dataset["samples"].values())
    contents = Contents(samples, -(-samples // LOOKED_AT) or 1)
    begin = 0
    for part in read_index_parts(out, dataset["shards"], COLUMNS):
        for name in ("original_width_px", "original_height_px", "size"):
            if part[name].null_count or (len(part) and pc.min(part[name]).as_py() < 1):
                raise InputError(f"{join(out, INDEX)} is damaged: it has a sample without a valid {name}")
        contents.sizes.update(
            zip(part["original_width_px"].to_pylist(), part["original_height_px"].to_pylist(), strict=True)
        )
        contents.licences.update(licence or UNSTATED for licence in part["licence"].to_pylist())
        first = -begin % contents.every
        contents.looked_at += part.take(list(range(first, len(part), contents.every))).to_pylist()
        begin += len(part)
        _bound(contents)
    for reject in read_rejects(out):
        count, examples = contents.rejected.get(reject.reason, (0, []))
        contents.rejected[reject.reason] = (count + 1, examples if count >= EXAMPLES else [*examples, reject])
    return contents


def _bound(contents: Contents) -> None:
    """Limits what is remembered of a set with very many sizes or licences."""
    if len(contents.sizes) > MOST_SIZES:
        rounded: Counter[tuple[int, int]] = Counter()
        for (width, height), count in contents.sizes.items():
            rounded[_rounded(width), _rounded(height)] += count
        contents.sizes = rounded
    if len(contents.licences) > MOST_LICENCES:
        contents.licences = Counter(dict(contents.licences.most_common(MOST_LICENCES // 2)))


def _rounded(number: int) -> int:
    """Returns the number with two significant digits."""
    return int(float(f"{number:.1e}"))


def write_report(out: str, dataset: Dataset) -> None:
    """Writes the report of the training set in a folder."""
    write_bytes(join(out, REPORT), build_report(out, dataset).encode())


def build_report(out: str, dataset: Dataset) -> str:
    """Returns the report as HTML."""
    contents = read_contents(out, dataset)
    looked_at = contents.looked_at
    pieces = (Piece(join(out, row["shard"]), row["offset"], row["size"]) for row in looked_at)
    images = [_open(content) for content in read_each(pieces)]
    opened = [image for image in images if image is not None]
    shards = Counter(name.split("-")[0] for name in dataset["shards"])
    return fill(
        "report.html",
        full_height_px=dataset["full_height_px"],
        patch_size_px=dataset["patch_size_px"],
        megabytes=sum(shard["size_bytes"] for shard in dataset["shards"].values()) / 1e6,
        splits=[(split, dataset["samples"][split], shards[split]) for split in SPLITS],
        shown=[_shown(row, image) for row, image in zip(looked_at[::2], images[::2], strict=True)],
        opened=len(images),
        examples=EXAMPLES,
        broken=[row for row, image in zip(looked_at, images, strict=True) if image is None],
        histograms=_histograms(contents.sizes, opened) if contents.sizes else [],
        bands=_bands(opened) if opened else [],
        rejected=sorted(
            ((reason, *counted) for reason, counted in contents.rejected.items()), key=lambda row: (-row[1], row[0])
        ),
        licences=_most_common(contents.licences, LICENCES),
    )


def _open(content: bytes | Exception) -> Image.Image | None:
    """Returns a stored picture, or None if it cannot be read. The report counts those and continues."""
    try:
        if isinstance(content, Exception):
            return None
        with open_picture(content, STORED_FORMATS) as image:
            return image.convert("RGB")
    except Exception:  # Pillow's decoders raise errors of almost any type on broken bytes
        return None


def _shown(row: dict[str, Any], image: Image.Image | None) -> dict[str, str]:
    """Returns a picture of the contact sheet; if it cannot be read, the text says where it is stored."""
    if image is None:
        return {"thumbnail": "", "text": f"{row['shard']}, {row['key']}: {row['source']}"}
    width_px = max(1, round(image.width * THUMBNAIL_PX / image.height))
    buffer = io.BytesIO()
    image.resize((width_px, THUMBNAIL_PX), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
    words = [row["title"], row["author"], row["licence"], row["source"]]
    thumbnail = base64.b64encode(buffer.getvalue()).decode()
    return {"thumbnail": thumbnail, "text": " · ".join(word for word in words if word)}


def _histograms(sizes: Counter[tuple[int, int]], images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Returns histograms of the sizes of all originals, and of the brightness of the pictures that were opened."""
    sides = np.array(list(sizes), dtype=np.float64)
    counts = np.array(list(sizes.values()))
    histograms = [
        _histogram("Short side of the originals, px", sides.min(axis=1), counts),
        _histogram("Width of the originals divided by their height", sides[:, 0] / sides[:, 1], counts),
    ]
    if images:
        light = np.array([np.asarray(image.convert("L")).mean() for image in images])
        caption = f"Mean brightness of {len(images)} pictures, 0 to 255"
        histograms.append(_histogram(caption, light, np.ones(len(light), dtype=np.int64)))
    return histograms


def _histogram(caption: str, values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Counts values from the 1st to the 99th percentile. The outermost bars include the values beyond."""
    low, high = (_percentile(values, counts, share) for share in (0.01, 0.99))
    high = high if high > low else low + max(1.0, abs(low))
    bars, edges = np.histogram(values.clip(low, high), bins=BINS, range=(low, high), weights=counts)
    return {
        "caption": caption,
        "counts": bars.tolist(),
        "edges": [_number(edge) for edge in edges],
        "middle": _number((low + high) / 2),
    }


def _percentile(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], share: float) -> float:
    """Returns a percentile of values, each of which occurs several times, as ``np.percentile`` does."""
    order = np.argsort(values)
    ends = np.cumsum(counts[order])
    place = (ends[-1] - 1) * share
    part = place - math.floor(place)
    below, above = values[order][np.searchsorted(ends, [math.floor(place), math.ceil(place)], side="right")]
    return float(below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part))


def _bands(images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Returns the mean colour and brightness at each height, from top to bottom."""
    columns = [np.asarray(image.resize((1, BANDS), Image.Resampling.BOX), dtype=np.float64)[:, 0] for image in images]
    colours = np.mean(columns, axis=0)  # [BANDS, 3]
    levels = colours @ (0.299, 0.587, 0.114)
    return [
        {"colour": [f"{value:.0f}" for value in colour], "level": level}
        for colour, level in zip(colours.tolist(), levels.tolist(), strict=True)
    ]


def _most_common(values: Counter[str], most: int) -> list[tuple[str, int]]:
    counts = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in counts[most:])
    return counts[:most] + ([(f"{len(counts) - most} others", rest)] if rest else [])


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}"
