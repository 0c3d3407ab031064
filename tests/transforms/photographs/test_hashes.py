import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from transforms.photographs.hashes import (
    DETAIL_DISTANCE,
    PERCEPTUAL_DISTANCE,
    crop_hashes,
    detail_distances,
    detail_hash,
    detail_words,
    grey_grid,
    perceptual_hash,
)


def picture(seed=0, width=480, height=240):
    """Returns colours at several scales, as in a landscape."""
    rng = np.random.default_rng(seed)
    levels = sum(
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, 2 * n, 3), np.uint8)).resize((width, height)), float) / n
        for n in (3, 6, 12, 24)
    )
    return Image.fromarray((levels * 1.4).clip(0, 255).astype(np.uint8))


def distances(one, other):
    """Returns the number of bits by which two pictures' hashes differ, for both kinds."""
    grids = [grey_grid(image.resize((394, 197))) for image in (one, other)]
    perceptual = [int(perceptual_hash(grid), 16) for grid in grids]
    crops = [crop_hashes(grid) for grid in grids]
    details = detail_words(bytes.fromhex(detail_hash(crops[1])))
    return (perceptual[0] ^ perceptual[1]).bit_count(), int(detail_distances(detail_words(crops[0]), details)[0])


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image,
        lambda image: image.resize((120, 60)),
        lambda image: jpeg(image, 30),
        lambda image: image.crop((24, 12, 456, 228)),
        lambda image: image.crop((0, 12, 456, 240)),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        lambda image: ImageEnhance.Color(image).enhance(1.1),
    ],
)
def test_a_picture_is_known_again_whichever_of_the_two_comes_first(seed, change):
    for pair in ((picture(seed), change(picture(seed))), (change(picture(seed)), picture(seed))):
        perceptual, detail = distances(*pair)
        assert perceptual <= PERCEPTUAL_DISTANCE
        assert detail <= DETAIL_DISTANCE


def test_other_pictures_are_others():
    pictures = [picture(seed) for seed in range(12)]
    apart = [distances(one, other)[1] for one in pictures for other in pictures if one is not other]
    assert min(apart) > DETAIL_DISTANCE
    assert distances(pictures[0], pictures[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))[1] > DETAIL_DISTANCE


def test_hashes_are_hex_digits_of_their_sizes_and_do_not_change_from_version_to_version():
    ramp = Image.fromarray(np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8))
    grid = grey_grid(ramp)
    assert perceptual_hash(grid) == PERCEPTUAL
    assert detail_hash(crop_hashes(grid)) == DETAIL


PERCEPTUAL = "8000000000000000"
DETAIL = "800000000000000000000000000000000000"
