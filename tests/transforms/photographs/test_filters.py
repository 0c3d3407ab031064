from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from transforms.photographs.codec import DecodedPicture, decode, frame, store
from transforms.photographs.filters import check_content, check_shape
from transforms.training_set.records import Rejection

PHOTOGRAPHS = sorted((Path(__file__).parents[3] / "samples").glob("*.jpg"))[::2]
SIZE = (394, 197)


def reason_of(image):
    try:
        check_content(image)
    except Rejection as rejection:
        return rejection.reason
    return None


def stored(path):
    picture = decode(path.read_bytes(), 197)
    return store(picture, frame(picture.width_px, picture.height_px, 197))


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_landscapes_pass_also_at_dusk_in_fog_and_upside_down(path):
    image = stored(path)
    levels = np.asarray(image, dtype=float)
    assert reason_of(image) is None
    assert reason_of(Image.fromarray((levels * 0.4).astype(np.uint8))) is None
    assert reason_of(Image.fromarray((150 + levels * 0.3).astype(np.uint8))) is None
    assert reason_of(image.rotate(180)) is None


def page(size, ink="black", paper="white"):
    image = Image.new("RGB", (1000, 700), paper)
    draw = ImageDraw.Draw(image)
    for y in range(20, 680, size + 6):
        draw.text((40, y), "The quick brown fox jumps over the lazy dog, home. " * 3, ink, ImageFont.load_default(size))
    return image.resize((281, 197), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("size", [12, 16, 24])
@pytest.mark.parametrize("colours", [("black", "white"), ("white", "black"), ("#223344", "#f4ecd8")])
def test_pages_of_text_are_held_back(size, colours):
    assert reason_of(page(size, *colours)) == "text"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.new("RGB", SIZE), "dark"),
        (Image.fromarray(np.random.default_rng(0).integers(0, 16, (197, 394, 3), np.uint8)), "dark"),
        (Image.new("RGB", SIZE, "white"), "flat"),
        (Image.fromarray(np.random.default_rng(0).integers(120, 130, (197, 394, 3), np.uint8)), "flat"),
    ],
)
def test_black_and_flat_pictures_are_held_back(image, reason):
    assert reason_of(image) == reason


@pytest.mark.parametrize("box", [(0, 25, 394, 172), (50, 0, 344, 197), (60, 30, 334, 167), (0, 0, 394, 160)])
@pytest.mark.parametrize("colour", ["black", "white", "#808080"])
def test_framed_pictures_are_held_back(box, colour):
    framed = Image.new("RGB", SIZE, colour)
    framed.paste(stored(PHOTOGRAPHS[1]).resize((box[2] - box[0], box[3] - box[1])), box[:2])
    assert reason_of(framed) == "border"


def test_a_thin_border_passes():
    framed = Image.new("RGB", SIZE, "black")
    framed.paste(stored(PHOTOGRAPHS[1]).resize((382, 185)), (6, 6))
    assert reason_of(framed) is None


@pytest.mark.parametrize(
    ("size", "reason"), [((300, 99), "too_small"), ((99, 300), "too_small"), ((1001, 100), "aspect")]
)
def test_shapes_are_held_to_their_bounds(size, reason):
    with pytest.raises(Rejection, match=f"{size[0]}×{size[1]}") as caught:
        check_shape(DecodedPicture(Image.new("RGB", (8, 8)), *size), 100, 10.0)
    assert caught.value.reason == reason
    check_shape(DecodedPicture(Image.new("RGB", (8, 8)), 1000, 100), 100, 10.0)
