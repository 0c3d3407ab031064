"""Measures how well near-duplicates are recognised: half of the photographs set the threshold, the others score it.

    python benchmarks/duplicates.py PHOTOGRAPHS

Positives: a photograph and itself resized to a quarter or more, as JPEG of quality 30 or more, cropped by up to 5%
per side, with colour, brightness and contrast changed by up to 10%, and all of these at once. Negatives: other
photographs, and windows of the same one that share at most 0.3 of their union. Either may come first.

Then measures how many of the positives are compared in runs of very many photographs: in those of 1,000,000 there are
245 pivots. Other windows of the photographs stand in for the pivots.
"""

import argparse
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from transforms.ingest.cells import UNCROPPED_BITS, nearest_cells
from transforms.photographs.hashes import (
    CENTRAL,
    DETAIL_DISTANCE,
    PERCEPTUAL_DISTANCE,
    coarse_features,
    crop_hashes,
    detail_distances,
    detail_hash,
    detail_words,
    grey_grid,
    perceptual_hash,
    split_hashes,
)
from transforms.storage.pictures import open_picture

NEVER = 145


class Hashes:
    """All hashes of a picture that are compared."""

    def __init__(self, image: Image.Image) -> None:
        grid = grey_grid(image.resize((max(1, round(image.width * 197 / image.height)), 197), Image.Resampling.LANCZOS))
        crops = crop_hashes(grid)
        self.perceptual = int(perceptual_hash(grid), 16)
        self.crops, self.detail = detail_words(crops), detail_words(bytes.fromhex(detail_hash(crops)))

    def distance(self, other: "Hashes") -> int:
        """Returns the differing bits of the detail hash, or `NEVER` if the perceptual hashes are too far apart."""
        if (self.perceptual ^ other.perceptual).bit_count() > PERCEPTUAL_DISTANCE:
            return NEVER
        return int(detail_distances(self.crops, other.detail)[0])


def positives(image: Image.Image, random: Random) -> Iterator[tuple[str, Image.Image]]:
    yield "resize", resized(image, random.uniform(0.25, 1))
    yield "resize ¼", resized(image, 0.25)
    yield "JPEG", jpeg(image, random.randint(30, 90))
    yield "JPEG 30", jpeg(image, 30)
    cut = cropped(image, [random.uniform(0, 0.05) for _ in range(4)])
    yield "crop", cut
    yield "crop 5%", cropped(image, [0.05] * 4)
    yield "crop 5%, corner", cropped(image, random.choice([[0.05, 0.05, 0, 0], [0, 0.05, 0.05, 0]]))
    changed = image
    for kind in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        changed = kind(changed).enhance(random.choice([0.9, 1.1]))
    yield "colour ±10%", changed
    all_at_once = ImageEnhance.Brightness(resized(cut, random.uniform(0.25, 1))).enhance(random.uniform(0.9, 1.1))
    yield "all at once", jpeg(all_at_once, random.randint(30, 90))


def windows(image: Image.Image) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Yields pairs of windows of a photograph whose intersection over union is 0.3 or less."""
    yield image, cropped(image, [0, 0, 0.46, 0.46])  # 0.29 of the whole
    yield image, cropped(image, [0.72, 0, 0, 0])
    yield image, cropped(image, [0, 0.7, 0, 0])
    yield cropped(image, [0, 0, 0.35, 0]), cropped(image, [0.35, 0, 0, 0])  # 0.3 / 1.0
    yield cropped(image, [0, 0, 0, 0.35]), cropped(image, [0, 0.35, 0, 0])


def resized(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, shares: list[float]) -> Image.Image:
    left, top, right, bottom = shares
    width, height = image.size
    return image.crop(
        (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    )


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return open_picture(buffer.getvalue()).convert("RGB")


def distances(photographs: list[Path]) -> tuple[dict[str, list[int]], list[int], list[tuple[Hashes, Hashes]]]:
    """Returns the distances of positives, by kind of change, and of negatives, in both orders; and the positives."""
    same: dict[str, list[int]] = {}
    other: list[int] = []
    pairs: list[tuple[Hashes, Hashes]] = []
    known: list[Hashes] = []
    for path in photographs:
        with open_picture(path.read_bytes()) as opened:
            image = opened.convert("RGB")
        image.thumbnail((1024, 1024))
        hashes = Hashes(image)
        for name, changed in positives(image, Random(path.name)):
            changed_hashes = Hashes(changed)
            pairs.append((hashes, changed_hashes))
            same.setdefault(name, []).extend([hashes.distance(changed_hashes), changed_hashes.distance(hashes)])
        for one, two in windows(image):
            pair = Hashes(one), Hashes(two)
            other += [pair[0].distance(pair[1]), pair[1].distance(pair[0])]
        other += [distance for before in known for distance in (hashes.distance(before), before.distance(hashes))]
        known.append(hashes)
    return same, other, pairs


class Windows:
    """Pictures with real statistics, as many as wanted: windows of some photographs, half of them mirrored."""

    def __init__(self, photographs: list[Path]) -> None:
        self._images = [open_picture(path.read_bytes()).convert("L") for path in photographs]
        for image in self._images:
            image.thumbnail((256, 256))

    def hashes(self, numbers: Iterable[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the hashes of the windows with these numbers, as `split_hashes` does."""
        content = bytearray()
        for number in numbers:
            random = Random(int(number))
            image = random.choice(self._images)
            width, height = random.uniform(0.3, 0.8), random.uniform(0.3, 0.8)
            left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
            window = cropped(image, [left, top, 1 - left - width, 1 - top - height])
            grid = grey_grid(ImageOps.mirror(window) if random.random() < 0.5 else window)
            content += bytes.fromhex(perceptual_hash(grid)) + crop_hashes(grid)
        return split_hashes(bytes(content))


def compared_in_cells(pairs: list[tuple[Hashes, Hashes]], pivots: np.ndarray) -> float:
    """Returns the share of pairs, in both orders, that are compared crop by crop in cells with these pivots."""
    features = (coarse_features(np.stack([some.crops for some in side])) for side in zip(*pairs, strict=True))
    one, two = (nearest_cells(some, pivots) for some in features)
    bits = np.array([(a.crops[CENTRAL] ^ b.crops[CENTRAL]) for a, b in pairs])
    near = np.bitwise_count(bits).sum(axis=1) <= UNCROPPED_BITS
    return float(np.mean([(one[:, :1] == two).any(axis=1) & near, (two[:, :1] == one).any(axis=1) & near]))


def score(same: dict[str, list[int]], other: list[int], threshold: int) -> tuple[float, float]:
    """Returns recall and precision."""
    values = np.concatenate([np.array(some) for some in same.values()])
    found, wrong = int((values <= threshold).sum()), int((np.array(other) <= threshold).sum())
    return found / len(values), found / max(1, found + wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs")
    parser.add_argument("--pivots", type=int, nargs="*", default=[245, 1000, 4000])
    parser.add_argument("--json", default="duplicates.json")
    arguments = parser.parse_args()
    paths = sorted(path for path in Path(arguments.photographs).iterdir() if path.suffix in (".jpg", ".jpeg", ".png"))
    chosen_on, scored_on = distances(paths[::2]), distances(paths[1::2])
    same, other, pairs = chosen_on
    scores = [sum(score(same, other, threshold)) for threshold in range(NEVER)]
    equal = [threshold for threshold, value in enumerate(scores) if value == max(scores)]
    best = equal[len(equal) // 2]
    print(
        f"chosen on {len(paths[::2])} photographs: {best}, the middle of {equal[0]} to {equal[-1]}, which score alike"
    )
    same, other, more = scored_on
    print(f"scored on {len(paths[1::2])}, {sum(map(len, same.values()))} positives and {len(other)} negatives:")
    for name, some in same.items():
        print(f"  {name}: farthest {max(some)}, recall {np.mean(np.array(some) <= DETAIL_DISTANCE):.4f}")
    results = {threshold: score(same, other, threshold) for threshold in (best, DETAIL_DISTANCE)}
    for threshold, (recall, precision) in results.items():
        print(f"  threshold {threshold}: recall {recall:.4f}, precision {precision:.4f}; nearest negative {min(other)}")
    pivots = coarse_features(Windows(paths).hashes(range(max(arguments.pivots, default=0)))[2])
    compared = {count: compared_in_cells(pairs + more, pivots[:count]) for count in arguments.pivots}
    for count, share in compared.items():
        print(f"{count} pivots: {share:.4f} of the positives are compared")
    written = {"chosen": best, "scores": results, "nearest_negative": min(other), "compared_in_cells": compared}
    Path(arguments.json).write_text(json.dumps(written))


if __name__ == "__main__":
    main()
