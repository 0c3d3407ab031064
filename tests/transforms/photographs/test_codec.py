import contextlib
import io
import struct
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from PIL.JpegImagePlugin import get_sampling

import transforms.photographs.codec
from transforms.photographs.codec import LONGEST_SIDE_PX, PIXEL_CAP, decode, decoding, encode, frame, store, to_srgb
from transforms.storage.memory import Budget
from transforms.training_set.records import Rejection


def landscape(width: int = 480, height: int = 240, seed: int = 0) -> Image.Image:
    """Draws blue above, green below and red at the left, which shows the orientation."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (60, 120, 220)
    pixels[height // 2 :] = (60, 160, 40)
    pixels[:, : width // 4, 0] = 230
    return Image.fromarray(pixels + rng.integers(0, 8, pixels.shape, np.uint8))


def encoded(image: Image.Image, format_: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **{"compress_level": 1, **options})  # PNGs take long otherwise
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
    # A profile of the sRGB primaries with red and blue swapped: stored red means blue.
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
    bomb = encoded(Image.new("1", (side, side)), compress_level=9)
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
        assert get_sampling(image) == 0  # 4:4:4
        assert difference(image, landscape()) < 4


def jpeg_scans(count: int) -> bytes:
    """Returns a progressive JPEG in which one of the scans is repeated `count` times."""
    content = encoded(landscape().convert("L"), "JPEG", progressive=True)
    starts = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    scan = content[starts[1] : starts[2]]
    return content[: starts[2]] + count * scan + content[starts[2] :]


def test_scans_are_counted_before_they_are_decoded():
    assert decode(jpeg_scans(50), 101).height_px == 240
    assert rejection(jpeg_scans(4000)).reason == "too_costly"


def tags_block(tags: int, size: int) -> bytes:
    """Returns an EXIF block, or a TIFF, whose tags all name the same bytes."""
    entries = b"".join(struct.pack("<HHLL", 1000 + tag, 7, size, 8) for tag in range(tags))
    return b"II*\0" + struct.pack("<LH", 8, tags) + entries + bytes(4 + size)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def with_chunks(*chunks: bytes) -> bytes:
    """Returns a PNG with these chunks after its header."""
    content = encoded(landscape())
    return content[:33] + b"".join(chunks) + content[33:]


@pytest.mark.parametrize("kind", ["tif", "exif", "chunks", "avif", "junk", "comments"])
def test_headers_that_ask_for_much_are_rejected_soon_and_take_little(kind):
    exif, harmless = tags_block(4000, 12_000), b"II*\0" + bytes(len(tags_block(5000, 1 << 20)) - 4)
    content = {
        "tif": lambda: tags_block(20_000, 4 << 20),
        "exif": lambda: encoded(landscape(), "JPEG", exif=b"Exif\0\0" + exif),
        "chunks": lambda: with_chunks(110_000 * chunk(b"aaAa", b"")),
        "avif": lambda: encoded(landscape(), "AVIF", exif=harmless).replace(harmless, tags_block(5000, 1 << 20)),
        "junk": lambda: b"\xff\xd8" + bytes(4 << 20),
        "comments": lambda: b"GIF89a\1\0\1\0\0\0\0!\xfe" + 200_000 * (b"\xff" + b"x" * 255) + b"\0;",
    }[kind]()
    tracemalloc.start()
    assert rejection(content).reason in ("too_costly", "unreadable", "truncated")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * len(content) + (64 << 20)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_overlapping_exif_does_not_turn_a_picture_nor_lose_it(format_):
    content = encoded(landscape(), format_, exif=tags_block(60_000, 1 << 20))
    assert decode(content, 197).height_px == 240


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keyword", ["Comment", "XML:com.adobe.xmp", "Raw profile type exif", "icc_profile"])
def test_a_long_text_does_not_lose_a_png(zipped, keyword):
    info = PngImagePlugin.PngInfo()
    for _ in range(3):
        info.add_text(keyword, "lake " * 400_000, zip=zipped)
        info.add_itxt(keyword, "lake " * 400_000, zip=zipped)
    assert difference(decode(encoded(landscape(), pnginfo=info), 197).image, landscape()) == 0


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG"])
def test_what_xmp_says_of_which_way_is_up_is_not_followed(format_):
    """Browsers ignore it too, so the picture looks as it was published."""
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    said = {"pnginfo": info} if format_ == "PNG" else {"xmp": xmp.encode()}
    assert Image.open(io.BytesIO(encoded(landscape(), format_, **said))).getexif()[0x0112] == 6  # as Pillow reads it
    assert difference(decode(encoded(landscape(), format_, **said), 197).image, landscape()) < 4


def test_a_text_that_says_which_way_is_up_is_heeded():
    info, exif = PngImagePlugin.PngInfo(), Image.Exif()
    exif[0x0112] = 6
    info.add_text("Raw profile type exif", "\nexif\n 99\n" + exif.tobytes().hex(), zip=True)
    assert decode(encoded(landscape(), pnginfo=info), 197).width_px == 240


@pytest.mark.parametrize(
    "profile", [b"x\0\0" + zlib.compress(bytes(40 << 20)), b"x\0\1what", b"", b"x\0\0" + zlib.compress(bytes(2 << 20))]
)
def test_a_profile_that_is_too_large_or_broken_does_not_lose_a_png(profile):
    assert difference(decode(with_chunks(chunk(b"iCCP", profile)), 197).image, landscape()) == 0


def named_profile(name: str, gamma: float) -> bytes:
    """Returns a profile of sRGB's primaries with another curve, under any name."""
    texts = name.encode() + b"\0"
    xyz = [(0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141), (0.9642, 1.0, 0.8249)]
    points = [b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in point)) for point in xyz]
    curve = b"curv\0\0\0\0" + struct.pack(">LHH", 1, round(gamma * 256), 0)
    about = b"desc\0\0\0\0" + struct.pack(">L", len(texts)) + texts + bytes(78)
    names = (b"desc", b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt", b"rTRC", b"gTRC", b"bTRC")
    table, body = b"", b""
    for tag, data in zip(names, [about, *points, curve, curve, curve], strict=True):
        table += tag + struct.pack(">LL", 132 + 12 * len(names) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">L4sL", 132 + len(table) + len(body), b"lcms", 0x02400000) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + points[3][8:]
    return head.ljust(128, b"\0") + struct.pack(">L", len(names)) + table + body


def test_a_profile_is_known_by_what_it_does_not_by_its_name():
    grey = Image.new("RGB", (9, 9), (128, 128, 128))
    for name in ("GIMP built-in Linear sRGB", "sRGB-elle-V2-g10.icc", "Linear RGB"):
        pixel = decode(encoded(grey, icc_profile=named_profile(name, 1.0)), 4).image.getpixel((4, 4))
        assert min(pixel) > 180, name
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, srgb.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))):
        image = decode(encoded(landscape(), icc_profile=profile), 197).image
        assert difference(image, landscape()) == 0


def test_lab_without_a_profile_becomes_rgb():
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    content = encoded(ImageCms.applyTransform(landscape(), lab), "TIFF")
    assert difference(decode(content, 197).image, landscape()) < 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "L", "1"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_bands_do_not_show(mode, orientation, monkeypatch):
    """A large picture is converted in bands, with the same result as in one piece."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    alpha = Image.linear_gradient("L").resize((480, 240))
    picture = landscape()
    picture.putalpha(alpha)
    content = encoded(picture.convert(mode), "TIFF", exif=exif)
    whole = decode(content, 197).image
    monkeypatch.setattr(transforms.photographs.codec, "BAND_PX", 5000)
    assert difference(decode(content, 197).image, whole) == 0


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF", "JPEG2000", "TIFF", "GIF", "BMP", "PPM"])
def test_a_photograph_that_needs_more_than_the_budget_is_a_reject_that_says_so(format_):
    content = encoded(Image.new("RGB", (2000, 1500)), format_)
    with (
        pytest.raises(
            Rejection, match=r"2000×1500 px needs \d+ MB of memory; at most 30 MB: give more --memory"
        ) as caught,
        decoding(content, 197, Budget(30_000_000)),
    ):
        pass
    assert caught.value.reason == "too_large"


def test_a_tile_larger_than_its_picture_is_counted():
    tags = {256: 480, 257: 240, 258: 8, 259: 5, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(200)
    assert rejection(content).reason == "too_large"


@pytest.mark.parametrize("content", [b"P3 5000 5000 255 " + b"1 " * 99, b"P6 5000 5000 254 " + bytes(99)])
def test_large_pictures_whose_decoder_is_slow_are_rejected(content):
    assert rejection(content).reason == "too_costly"


def test_what_is_decoded_at_the_same_time_shares_the_budget():
    budget, content, at_once, most = Budget(80_000_000), encoded(Image.new("RGB", (2000, 1500))), [], []

    def work(number: int) -> None:
        with decoding(content, 197, budget):
            at_once.append(number)
            most.append(len(at_once))
            time.sleep(0.02)
            at_once.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert max(most) == 1  # each needs about 50 MB
    with budget.hold(80_000_000, "all of it"):
        pass
