"""The targets of fuzzing: how an input is made, and which code must handle it. `TARGETS` lists them."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image, ImageCms

from transforms.photographs.prepare import Preparation, Prepared, prepare_photograph
from transforms.training_set.records import Photograph, Reject


@dataclass(frozen=True)
class Target:
    """Code that reads bytes from outside.

    Attributes:
        make: the function that makes an input.
        check: the function that handles an input, and raises if that goes wrong.
    """

    make: Callable[[Random], bytes]
    check: Callable[[bytes], None]


def mutate(random: Random, content: bytes) -> bytes:
    """Returns content with up to eight faults: bytes and numbers changed, parts cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(random.randint(1, 8)):
        at, size = random.randrange(len(data) + 1), min(random.choice((1, 2, 4, 8, 64, 1024)), len(data))
        kind = random.choice(("byte", "number", "cut", "double", "move", "end"))
        if kind == "byte":
            data[at : at + 1] = random.randbytes(1)
        elif kind == "number":
            value = random.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
            width = random.choice((2, 4))
            data[at : at + width] = (value & (256**width - 1)).to_bytes(width, random.choice(("big", "little")))
        elif kind == "cut":
            del data[at : at + size]
        elif kind == "double":
            data[at:at] = data[at : at + size] * random.choice((1, 1, 100))
        elif kind == "move":
            data[at:at] = data[random.randrange(len(data) + 1) :][:size]
        elif random.random() < 0.3:
            del data[at:]
    return bytes(data)


@cache
def pictures() -> list[bytes]:
    """Returns a small picture of every kind of file, with all that such a file may carry."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a lake"
    about = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    rgb = Image.linear_gradient("L").resize((160, 120)).convert("RGB")
    rgba = rgb.convert("RGBA")
    kinds = [
        *((rgb, "JPEG", {**about, **more}) for more in ({}, {"progressive": True}, {"optimize": True})),
        *((rgb.convert(mode), "JPEG", {}) for mode in ("L", "CMYK")),
        (rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        *((rgb.convert(mode), "PNG", about) for mode in ("RGB", "RGBA", "LA", "L", "P", "I;16", "1")),
        (rgb, "PNG", {"save_all": True, "append_images": [rgba]}),
        *((rgba, "WEBP", {**about, **more}) for more in ({}, {"lossless": True})),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgba]}),
        *(
            (rgb, "TIFF", {**about, "compression": way})
            for way in (None, "tiff_lzw", "jpeg", "packbits", "tiff_deflate")
        ),
        *((rgb.convert(mode), "TIFF", {}) for mode in ("CMYK", "YCbCr", "I;16", "F", "1")),
        (rgb.convert("P"), "GIF", {"save_all": True, "append_images": [rgb.convert("P")], "comment": b"a lake"}),
        (rgba, "AVIF", about),
        *((rgba, "JPEG2000", more) for more in ({}, {"tile_size": (64, 64)})),
        *((rgb, kind, {}) for kind in ("BMP", "PPM")),
        (rgba, "TGA", {"compression": "tga_rle"}),
    ]
    files = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **{name: value for name, value in options.items() if value is not None})
        files.append(buffer.getvalue())
    return files


def prepare(content: bytes) -> None:
    """Checks that a photograph becomes a training image, or a reject with a specific reason."""
    outcome = prepare_photograph(Photograph("a.jpg"), content, 1, Preparation())
    assert isinstance(outcome, (Prepared, Reject))
    if isinstance(outcome, Reject):
        assert outcome.reason not in ("", "internal"), outcome
        assert outcome.message, outcome
        outcome.message.encode()


TARGETS = {
    "pictures": Target(lambda random: mutate(random, random.choice(pictures())), prepare),
}
"""The targets of ``make fuzz``."""


def _raise(content: bytes) -> None:
    if content[0] == 3:
        raise ValueError("three")


def _hang(content: bytes) -> None:
    while content[0] == 3:
        pass


def _grow(content: bytes) -> None:
    bytearray((4 << 30) if content[0] == 3 else 1)


def _die(content: bytes) -> None:
    if content[0] == 3:
        os._exit(5)


FAULTY = {
    name: Target(lambda random: bytes([random.randrange(4)]), check)
    for name, check in (("raise", _raise), ("hang", _hang), ("grow", _grow), ("die", _die))
}
"""Faulty code for testing the driver itself: each target fails for input 3."""
