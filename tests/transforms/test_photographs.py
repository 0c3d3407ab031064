import ast
import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, UnidentifiedImageError

from transforms.photographs import (
    FORMATS,
    LONGEST_SIDE_PX,
    PIXEL_CAP,
    STORED_FORMATS,
    Rejection,
    decode,
    encode,
    frame,
    open_picture,
    store,
    to_srgb,
)


def landscape(width: int = 480, height: int = 240, seed: int = 0) -> Image.Image:
    """Blue above, green below, red at the left: its orientation can be told."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (60, 120, 220)
    pixels[height // 2 :] = (60, 160, 40)
    pixels[:, : width // 4, 0] = 230
    return Image.fromarray((pixels + rng.integers(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format_: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


def rejection(content: bytes) -> Rejection:
    with pytest.raises(Rejection) as caught:
        decode(content, 197)
    assert caught.value.message
    return caught.value


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1, 8])
def test_every_orientation_comes_out_upright(format_, orientation, scale):
    upright = landscape(200 * scale, 104 * scale)
    inverse = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if inverse is None else upright.transpose(Image.Transpose(inverse))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(stored, format_, exif=exif), 101)
    assert (picture.width_px, picture.height_px) == upright.size
    assert difference(picture.image, upright.resize(picture.image.size)) < 6


def test_a_large_jpeg_is_decoded_at_a_reduced_scale_and_looks_the_same():
    picture = decode(encoded(landscape(3204, 1608), "JPEG", quality=95), 101)
    assert (picture.width_px, picture.height_px) == (3204, 1608)
    assert 202 <= picture.image.height <= 404
    stored = store(picture, frame(3204, 1608, 101))
    assert difference(stored, landscape(3204, 1608).resize(stored.size, Image.Resampling.LANCZOS)) < 2


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (128, 1))
    image = decode(encoded(Image.fromarray(ramp)), 101).image
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image)[0, :, 0], np.arange(256), atol=1)


def test_transparency_becomes_white():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    for content in (encoded(image), encoded(image.quantize(), transparency=image.quantize().getpixel((5, 5)))):
        pixels = np.asarray(decode(content, 4).image)
        assert tuple(pixels[5, 5]) == (255, 255, 255)
        assert tuple(pixels[0, 0]) == (0, 0, 255)


def test_grey_with_alpha_and_rgb_with_a_transparent_colour():
    assert decode(encoded(Image.new("LA", (8, 8), (10, 0))), 4).image.getpixel((3, 3)) == (255, 255, 255)
    content = encoded(Image.new("RGB", (8, 8), (1, 2, 3)), transparency=(1, 2, 3))
    assert decode(content, 4).image.getpixel((3, 3)) == (255, 255, 255)


def test_cmyk_becomes_rgb():
    image = decode(encoded(landscape().convert("CMYK"), "JPEG", quality=95), 197).image
    assert image.mode == "RGB"
    assert difference(image, landscape()) < 4


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (120, 120), colour) for colour in ("red", "lime", "blue")]
    for format_ in ("GIF", "PNG", "TIFF"):
        content = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
        assert decode(content, 101).image.getpixel((60, 60)) == (255, 0, 0), format_


def lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def test_a_colour_profile_is_applied():
    # A profile of the sRGB primaries with its red and blue swapped: what is stored as red means blue.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, blue = tags[b"rXYZ"] + 4, tags[b"bXYZ"] + 4
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    named = bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")).replace(b"sRGB", b"test")
    pixel = decode(encoded(Image.new("RGB", (9, 9), (255, 0, 0)), icc_profile=named), 4).image.getpixel((4, 4))
    assert pixel[2] > 240
    assert max(pixel[:2]) < 15


@pytest.mark.parametrize("profile", [b"nonsense", lab_profile()])
def test_a_profile_that_cannot_be_used_is_ignored(profile):
    image = decode(encoded(landscape(), icc_profile=profile), 197).image
    assert difference(image, landscape()) == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_lose_the_photograph():
    content = encoded(landscape(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x01")
    assert decode(content, 197).height_px == 240


def test_empty():
    assert rejection(b"").reason == "empty"


@pytest.mark.parametrize(
    "content", [b"once upon a time", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x00" * 99, b"%PDF-1.4"]
)
def test_not_a_picture(content):
    assert rejection(content).reason in ("unreadable", "truncated")


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "BMP"])
def test_truncated(format_):
    content = encoded(landscape(), format_)
    assert rejection(content[: len(content) * 6 // 10]).reason == "truncated"


@settings(deadline=None)
@given(data=st.data())
def test_no_broken_bytes_raise_anything_but_a_rejection(data):
    format_ = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]))
    content = bytearray(encoded(landscape(32, 16), format_))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Rejection):
        assert decode(bytes(content), 8).image.mode == "RGB"


def test_a_decompression_bomb_is_refused_before_it_is_decoded_and_without_a_warning():
    side = 15_000
    assert side * side > PIXEL_CAP
    bomb = encoded(Image.new("1", (side, side)))
    assert len(bomb) < 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rejection(bomb).reason == "too_large"


def test_large_pictures_below_the_cap_give_no_warning():
    content = encoded(Image.new("1", (13_500, 13_500)), "TIFF", compression="group4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(content, 197).width_px == 13_500


def test_pixels_of_32_bits_are_unsupported():
    assert rejection(encoded(Image.new("F", (9, 9)), "TIFF")).reason == "unsupported"
    with pytest.raises(Rejection):
        to_srgb(Image.new("I", (9, 9)))


@settings(deadline=None)
@given(width=st.integers(1, 30_000), height=st.integers(1, 30_000), full=st.integers(1, 800), square=st.booleans())
def test_framing_keeps_the_proportions(width, height, full, square):
    framing = frame(width, height, full, square)
    left, top, right, bottom = framing.crop_box_px
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert framing.height_px == full
    assert full <= framing.width_px <= LONGEST_SIDE_PX["jpg"]
    assert framing.width_px == pytest.approx((right - left) / (bottom - top) * full, rel=0.02, abs=1)
    if square or height >= width:
        assert framing.width_px == full
        assert abs((top + bottom) - height) <= 1
        assert abs((left + right) - width) <= 1
    else:
        assert (top, bottom) == (0, height)


def test_a_wide_photograph_keeps_its_width_and_a_tall_one_its_middle():
    assert frame(1440, 720, 197).crop_box_px == (0, 0, 1440, 720)
    assert frame(1440, 720, 197).width_px == 394
    assert frame(720, 1440, 197).crop_box_px == (0, 360, 720, 1080)
    assert frame(1440, 720, 197, square=True).crop_box_px == (360, 0, 1080, 720)


def test_resizing_is_antialiased():
    stripes = np.zeros((400, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    stored = store(decode(encoded(Image.fromarray(stripes)), 100), frame(800, 400, 100))
    assert np.asarray(stored).std() < 3


def test_the_stored_jpeg_is_reproducible_and_keeps_its_colour():
    content = encode(landscape(), "jpg", 95)
    assert content == encode(landscape(), "jpg", 95)
    with Image.open(io.BytesIO(content)) as image:
        assert image.layer[0][1:3] == (1, 1)
        assert difference(image, landscape()) < 4


REPOSITORY = Path(__file__).parents[2]


def opens_by_itself(file: Path) -> bool:
    """Whether a module calls Pillow's ``open``, under whatever name it imports it."""
    tree = ast.parse(file.read_text())
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("PIL", "PIL.Image"):
            if any(name.name == "open" for name in node.names):
                return True
            modules |= {name.asname or name.name for name in node.names if name.name == "Image"}
        if isinstance(node, ast.Import):
            modules |= {name.asname or name.name for name in node.names if name.name == "PIL.Image"}
    used = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "open")
    return any(ast.unparse(node.value) in modules for node in used)


def test_pictures_are_opened_in_one_place_which_names_the_formats():
    files = [
        file
        for house in ("model", "transforms", "pipelines", "benchmarks")
        for file in REPOSITORY.glob(f"{house}/**/*.py")
    ]
    assert [file.name for file in files if opens_by_itself(file)] == ["photographs.py"]


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n"])
@pytest.mark.parametrize("formats", [FORMATS, STORED_FORMATS])
def test_no_other_format_is_tried(content, formats):
    assert not {"EPS", "WMF", "FPX", "MIC"} & set(formats)
    with pytest.raises(UnidentifiedImageError):
        open_picture(content, formats)
