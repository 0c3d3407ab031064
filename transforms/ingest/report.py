"""``report.html``: a page that shows the contents of a training set and its rejects. It needs no network."""

import base64
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from transforms.storage.byte_ranges import Piece, read_each
from transforms.storage.files import join, write_bytes
from transforms.storage.pictures import STORED_FORMATS, open_picture
from transforms.storage.templates import fill
from transforms.training_set.dataset import REPORT, IndexRow, TrainingSet
from transforms.training_set.records import Reject
from transforms.training_set.samples import SPLITS

LOOKED_AT: Final = 240
"""The most pictures that are opened, spread evenly over the index. Half of them are shown."""

THUMBNAIL_PX: Final = 72
BANDS: Final = 24
EXAMPLES: Final = 5
LICENCES: Final = 40
BINS: Final = 24


def write_report(out: str, training_set: TrainingSet) -> None:
    """Writes the report of the training set in a folder."""
    write_bytes(join(out, REPORT), build_report(out, training_set).encode())


def build_report(out: str, training_set: TrainingSet) -> str:
    """Returns the report as HTML."""
    dataset, rows = training_set.dataset, training_set.rows
    looked_at = rows[:: -(-len(rows) // LOOKED_AT) or 1]
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
        broken=[row for row, image in zip(looked_at, images, strict=True) if image is None],
        examples=EXAMPLES,
        histograms=_histograms(rows, opened) if rows else [],
        bands=_bands(opened) if opened else [],
        rejected=_by_reason(training_set.rejects),
        licences=_most_common((row["licence"] or "unstated" for row in rows), LICENCES),
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


def _shown(row: IndexRow, image: Image.Image | None) -> dict[str, str]:
    """Returns a picture of the contact sheet; if it cannot be read, the text says where it is stored."""
    if image is None:
        return {"thumbnail": "", "text": f"{row['shard']}, {row['key']}: {row['source']}"}
    width_px = max(1, round(image.width * THUMBNAIL_PX / image.height))
    buffer = io.BytesIO()
    image.resize((width_px, THUMBNAIL_PX), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=80)
    words = [row["title"], row["author"], row["licence"], row["source"]]
    thumbnail = base64.b64encode(buffer.getvalue()).decode()
    return {"thumbnail": thumbnail, "text": " · ".join(word for word in words if word)}


def _histograms(rows: Sequence[IndexRow], images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Returns histograms of the sizes of all originals, and of the brightness of the pictures that were opened."""
    sides = np.array([(row["original_width_px"], row["original_height_px"]) for row in rows], dtype=np.float64)
    histograms = [
        _histogram("Short side of the originals, px", sides.min(axis=1)),
        _histogram("Width of the originals divided by their height", sides[:, 0] / sides[:, 1]),
    ]
    if images:
        light = np.array([np.asarray(image.convert("L")).mean() for image in images])
        histograms.append(_histogram(f"Mean brightness of {len(images)} pictures, 0 to 255", light))
    return histograms


def _histogram(caption: str, values: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Counts values from the 1st to the 99th percentile. The outermost bars include the values beyond."""
    low, high = np.percentile(values, (1, 99))
    high = high if high > low else low + max(1.0, abs(low))
    counts, edges = np.histogram(values.clip(low, high), bins=BINS, range=(low, high))
    return {
        "caption": caption,
        "counts": counts.tolist(),
        "edges": [_number(edge) for edge in edges],
        "middle": _number((low + high) / 2),
    }


def _bands(images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Returns the mean colour and brightness at each height, from top to bottom."""
    columns = [np.asarray(image.resize((1, BANDS), Image.Resampling.BOX), dtype=np.float64)[:, 0] for image in images]
    colours = np.mean(columns, axis=0)  # [BANDS, 3]
    levels = colours @ (0.299, 0.587, 0.114)
    return [
        {"colour": [f"{value:.0f}" for value in colour], "level": level}
        for colour, level in zip(colours.tolist(), levels.tolist(), strict=True)
    ]


def _by_reason(rejects: Sequence[Reject]) -> list[tuple[str, list[Reject]]]:
    """Returns the rejects of each reason, the most frequent first."""
    by_reason: dict[str, list[Reject]] = {}
    for reject in rejects:
        by_reason.setdefault(reject.reason, []).append(reject)
    return sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))


def _most_common(values: Iterable[str], most: int) -> list[tuple[str, int]]:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in counts[most:])
    return counts[:most] + ([(f"{len(counts) - most} others", rest)] if rest else [])


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}"
