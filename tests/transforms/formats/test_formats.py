import hashlib
import io
import itertools
import json
import re
import shutil
import subprocess
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import fsspec
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from model.errors import InputError
from transforms.formats.dzi import viewer
from transforms.formats.layout import TileLayout, cut_strips, with_digest
from transforms.formats.registry import FORMATS, caution, check_format, is_written, remove_panorama, write_panorama
from transforms.storage.fence import RUN, Fenced, RunFence, StaleRunError
from transforms.storage.files import write_json

METADATA = {"seed": "7", "request": '{"id": "Málaga 日本"}'}

sides_px = st.lists(st.one_of(st.just(1), st.integers(1, 40), st.integers(250, 300)), min_size=1, max_size=4)


def layout_of(widths_px, heights_px):
    return TileLayout([0, *itertools.accumulate(widths_px)], [0, *itertools.accumulate(heights_px)])


def picture(width_px, height_px, seed=0):
    """Returns smooth colours with some noise, on which filters and predictors wrap around."""
    noise = np.random.default_rng(seed).integers(0, 90, (height_px, width_px, 3))
    slope = np.arange(width_px)[None, :, None] + 2 * np.arange(height_px)[:, None, None]
    return ((noise + slope) % 256).astype(np.uint8)


def tiles_of(pixels, layout):
    """Yields the tiles of a picture, row by row."""
    for top, bottom in itertools.pairwise(layout.row_edges_px):
        for left, right in itertools.pairwise(layout.column_edges_px):
            yield pixels[top:bottom, left:right]


def strips_of(pixels, layout):
    return cut_strips(layout, tiles_of(pixels, layout))


def read_back(path):
    """Reads the pixels of a panorama with a library that knows its format."""
    path = Path(path)
    if path.suffix == ".tif":
        return tifffile.imread(path)
    if path.suffix == ".zarr":
        return pytest.importorskip("zarr").open_array(path, mode="r")[:]
    if path.suffix == ".dzi":
        return read_pyramid(path)[-1]
    with Image.open(path) as image:
        return np.asarray(image)


def read_pyramid(path):
    """Reads the levels of a .dzi, each joined from its tiles; the last is the panorama."""
    about = ElementTree.parse(path).getroot()
    size = about.find("{*}Size").attrib
    largest = max(int(size["Width"]), int(size["Height"]))
    assert (about.attrib["Format"], about.attrib["Overlap"], about.attrib["TileSize"]) == ("jpg", "0", "256")
    levels = []
    for level in range((largest - 1).bit_length() + 1):
        folder = path.with_name(path.stem + "_files") / str(level)
        places = sorted(tuple(map(int, tile.stem.split("_")))[::-1] for tile in folder.iterdir())
        rows, columns = (range(max(place[axis] for place in places) + 1) for axis in (0, 1))
        assert places == list(itertools.product(rows, columns))
        levels.append(np.vstack([np.hstack([read_back(folder / f"{x}_{y}.jpg") for x in columns]) for y in rows]))
    assert levels[-1].shape == (int(size["Height"]), int(size["Width"]), 3)
    return levels


def by_pillow(pixels, kind, **settings):
    """Returns a whole picture after encoding by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=90, **settings)
    with Image.open(buffer) as image:
        return np.asarray(image)


def expected(name, pixels):
    """Returns the pixels that should be read back for a picture."""
    if name == "jpg":
        return by_pillow(pixels, "JPEG", subsampling="4:2:0")
    if name == "webp":
        return by_pillow(pixels, "WEBP", method=2)
    if name == "dzi":
        strips = np.split(pixels, range(256, len(pixels), 256))
        squares = [np.split(strip, range(256, strip.shape[1], 256), axis=1) for strip in strips]
        return np.vstack([np.hstack([expected("jpg", square) for square in row]) for row in squares])
    return pixels


STREAMED = [name for name in FORMATS if name not in ("dzi", "zarr")]
"""Formats that consist of one file."""


@pytest.fixture(autouse=True)
def _large_images(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=20)
@given(widths_px=sides_px, heights_px=sides_px, most_bytes=st.sampled_from([1, 9_999, 64 << 20]))
def test_any_layout_reads_back_exactly(name, widths_px, heights_px, most_bytes, tmp_path_factory):
    layout = layout_of(widths_px, heights_px)
    pixels = picture(layout.width_px, layout.height_px)
    path = tmp_path_factory.mktemp("panorama") / f"p.{name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.formats.layout.MEMORY_BYTES", most_bytes)
        patch.setattr("transforms.formats.layout.BLOCK_BYTES", most_bytes)
        write_panorama(name, str(path), layout, strips_of(pixels, layout), METADATA)
    np.testing.assert_array_equal(read_back(path), expected(name, pixels))


@pytest.mark.parametrize("name", STREAMED)
def test_another_library_reads_the_same_pixels(name, tmp_path):
    layout = layout_of([37, 256, 256, 120], [200, 256, 5])
    pixels = picture(layout.width_px, layout.height_px)
    write_panorama(name, str(tmp_path / "p"), layout, strips_of(pixels, layout), METADATA)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p")), expected(name, pixels))


@pytest.mark.parametrize("name", FORMATS)
def test_a_wide_panorama_reads_back(name, tmp_path):
    layout = layout_of([5_000] * {"jpg": 13, "webp": 3}.get(name, 15), [2, 1])
    pixels = picture(layout.width_px, layout.height_px)
    write_panorama(name, str(tmp_path / f"p.{name}"), layout, strips_of(pixels, layout), METADATA)
    np.testing.assert_array_equal(read_back(tmp_path / f"p.{name}"), expected(name, pixels))


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_depend_on_pixels_and_metadata_only(name, contents, tmp_path):
    pixels = picture(700, 300)
    for index, widths_px in enumerate(([700], [100, 256, 256, 88])):
        layout = layout_of(widths_px, [300])
        metadata = dict(sorted(METADATA.items(), reverse=bool(index)))
        (tmp_path / f"{index}").mkdir()
        write_panorama(name, str(tmp_path / f"{index}" / "p"), layout, strips_of(pixels, layout), metadata)
    assert contents(tmp_path / "0") == contents(tmp_path / "1")


def test_png_carries_its_metadata(tmp_path):
    layout = layout_of([3], [2])
    write_panorama("png", str(tmp_path / "p.png"), layout, strips_of(picture(3, 2), layout), METADATA)
    with Image.open(tmp_path / "p.png") as image:
        assert image.info == METADATA


@pytest.mark.parametrize("metadata", [{"": "x"}, {"k" * 80: "x"}, {"k": "a\0b"}])
def test_png_refuses_metadata_that_readers_would_misread(metadata, tmp_path):
    layout = layout_of([3], [2])
    with pytest.raises(ValueError, match="1 to 79"):
        write_panorama("png", str(tmp_path / "p.png"), layout, strips_of(picture(3, 2), layout), metadata)


def test_tiff_is_a_compressed_bigtiff_of_tiles_with_its_metadata(tmp_path):
    layout = layout_of([300, 300], [300])
    write_panorama("tif", str(tmp_path / "p.tif"), layout, strips_of(picture(600, 300), layout), METADATA)
    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        page = file.pages[0]
        assert file.is_bigtiff
        assert page.tile == (256, 256)
        assert (page.compression.name, page.predictor.name) == ("ADOBE_DEFLATE", "HORIZONTAL")
        assert json.loads(page.description) == METADATA
        assert page.software == "infinitygan"
        assert "DateTime" not in page.tags


@pytest.mark.parametrize("name", ["png", "tif"])
def test_the_software_in_the_metadata_is_what_readers_show_as_such(name, tmp_path):
    layout = layout_of([3], [2])
    metadata = {**METADATA, "Software": "infinitygan 1.2"}
    write_panorama(name, str(tmp_path / "p"), layout, strips_of(picture(3, 2), layout), metadata)
    with Image.open(tmp_path / "p") as image:
        software = image.info["Software"] if name == "png" else image.getexif()[ExifTags.Base.Software]
    assert software == "infinitygan 1.2"


def checksum(layout, tiles):
    digest = hashlib.sha256()
    for _ in with_digest(cut_strips(layout, tiles), digest):
        pass
    return digest.hexdigest()


@settings(max_examples=30)
@given(widths_px=sides_px, heights_px=sides_px)
def test_the_checksum_does_not_depend_on_the_tiles(widths_px, heights_px):
    layout = layout_of(widths_px, heights_px)
    pixels = picture(layout.width_px, layout.height_px)
    assert checksum(layout, tiles_of(pixels, layout)) == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_the_checksum_has_not_changed():
    expected = "fff3a9bcdd37363d703c1c4f9512533686157868f0d4f16a0f02d0f1da24f9a2"
    assert checksum(layout_of([2], [2]), [np.arange(12, dtype=np.uint8).reshape(2, 2, 3)]) == expected


@settings(max_examples=30)
@given(widths_px=sides_px, heights_px=sides_px)
def test_strips_are_taken_as_soon_as_their_tiles_are_there(widths_px, heights_px):
    layout, taken = layout_of(widths_px, heights_px), Counter()

    def counted():
        for tile in tiles_of(picture(layout.width_px, layout.height_px), layout):
            taken["tiles"] += 1
            yield tile

    for strip in cut_strips(layout, counted()):
        needed = sum(top < strip.top + strip.height_px for top in layout.row_edges_px[:-1])
        assert taken["tiles"] == needed * len(widths_px)
    assert (strip.top + strip.height_px, strip.height_px) == (layout.height_px, (layout.height_px - 1) % 256 + 1)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "webp"])
@pytest.mark.parametrize("long_side", ["width", "height"])
def test_memory_does_not_grow_with_the_area(name, long_side, monkeypatch, tmp_path):
    monkeypatch.setattr("transforms.formats.layout.MEMORY_BYTES", 1 << 20)
    tile = picture(128, 128)
    peaks_bytes = []
    for count in (24, 96):
        sides_px = [[128] * 3, [128] * count]
        layout = layout_of(*(sides_px if long_side == "height" else reversed(sides_px)))
        tracemalloc.start()
        tiles = (tile.copy() for _ in range(3 * count))
        write_panorama(name, str(tmp_path / "p"), layout, cut_strips(layout, tiles), METADATA)
        peaks_bytes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # JPEG, whose width is limited, takes several rows at once.
    rows_bytes = 1000 * layout.width_px if name == "jpg" else 0
    # Content that waits for its upload is bounded too, but the amount depends on the threads.
    most_bytes = 10 << 20 if name in ("dzi", "zarr") else 5 << 20
    assert peaks_bytes[1] < max(1.2 * peaks_bytes[0], most_bytes + rows_bytes)


@pytest.mark.parametrize("name", FORMATS)
def test_an_error_of_a_tile_is_raised_and_leaves_no_file(name, tmp_path):
    layout = layout_of([256] * 3, [256] * 3)
    pixels = picture(768, 768)

    def tiles():
        yield from itertools.islice(tiles_of(pixels, layout), 5)
        raise OSError("store gone")

    with pytest.raises(OSError, match="store gone"):
        write_panorama(name, str(tmp_path / "p"), layout, cut_strips(layout, tiles()), METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "tile", [np.zeros((1, 1, 3), np.uint8), np.zeros((5, 4), np.uint8), np.zeros((5, 4, 3), np.float32)]
)
def test_a_tile_of_another_shape_is_refused(name, tile, tmp_path):
    with pytest.raises(ValueError, match=r"tile \(0, 0\) should be uint8 \[5, 4, 3\]"):
        write_panorama(
            name, str(tmp_path / "p"), layout_of([4], [5]), cut_strips(layout_of([4], [5]), [tile]), METADATA
        )


@pytest.mark.parametrize("name", FORMATS)
def test_writes_to_a_store(name, tmp_path):
    layout = layout_of([300], [20])
    pixels = picture(300, 20)
    write_panorama(name, f"memory://panoramas/p.{name}", layout, strips_of(pixels, layout), METADATA)
    fsspec.filesystem("memory").get("/panoramas/", str(tmp_path), recursive=True)
    np.testing.assert_array_equal(read_back(tmp_path / f"p.{name}"), expected(name, pixels))


class Upload(io.BytesIO):
    """A file that takes bytes in order, like an object store."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation("seek")


@pytest.mark.parametrize("name", STREAMED)
def test_writes_to_a_store_that_takes_a_stream_only(name, monkeypatch, tmp_path):
    upload = Upload()

    @contextmanager
    def open_upload(url):
        yield upload

    layout = layout_of([300, 20], [20])
    pixels = picture(320, 20)
    monkeypatch.setattr("transforms.formats.registry.open_atomic", open_upload)
    write_panorama(name, "gs://bucket/p", layout, strips_of(pixels, layout), METADATA)
    (tmp_path / f"p.{name}").write_bytes(upload.getvalue())
    np.testing.assert_array_equal(read_back(tmp_path / f"p.{name}"), expected(name, pixels))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiff", "format 'tiff' is unknown: did you mean tif? There are png, tif, dzi, zarr, jpg, webp"),
        (".PNG", "format '.PNG' is unknown: did you mean png? There are png, tif, dzi, zarr, jpg, webp"),
        ("exr", "format 'exr' is unknown: there are png, tif, dzi, zarr, jpg, webp"),
    ],
)
def test_an_unknown_format_is_refused_with_the_nearest(name, message):
    with pytest.raises(InputError) as error:
        check_format(name, 10, 10)
    assert str(error.value) == message


def test_sizes_beyond_a_format_are_refused_with_one_that_holds_them():
    check_format("png", 10_000_000, 2**31 - 1)
    check_format("tif", 2**31 - 1, 2**31 - 1)
    with pytest.raises(
        InputError, match=r"png holds at most 10000000 x .* 10000001 x 5 px: ask for tif or dzi or zarr$"
    ):
        check_format("png", 10_000_001, 5)
    with pytest.raises(InputError, match=r"tif holds at most .* 5 x 2147483648 px: ask for a smaller one$"):
        check_format("tif", 5, 2**31)
    with pytest.raises(InputError, match="png holds at most"):
        write_panorama("png", "memory://never", layout_of([10_000_001], [5]), [], {})


@pytest.mark.parametrize(("name", "most_px"), [("jpg", 65_500), ("webp", 16_383)])
def test_the_limits_of_jpeg_and_webp_are_said_and_kept(name, most_px, tmp_path):
    check_format(name, most_px, most_px)
    for size in ((most_px + 1, 1), (1, most_px + 1)):
        with pytest.raises(InputError, match=f"{name} holds at most {most_px} x {most_px} px, .* ask for png or tif"):
            check_format(name, *size)
    for widths_px, heights_px in (([most_px], [1]), ([1], [most_px])):
        layout = layout_of(widths_px, heights_px)
        pixels = picture(layout.width_px, layout.height_px)
        write_panorama(name, str(tmp_path / "p"), layout, strips_of(pixels, layout), METADATA)
        np.testing.assert_array_equal(read_back(tmp_path / "p"), expected(name, pixels))


def mean_halved(pixels):
    """Halves the size, pixel by pixel."""
    height, width, _ = pixels.shape
    half = np.empty((-(-height // 2), -(-width // 2), 3), np.uint8)
    for y, x in itertools.product(range(half.shape[0]), range(half.shape[1])):
        four = [
            pixels[min(2 * y + i, height - 1), min(2 * x + j, width - 1)].astype(int) for i in (0, 1) for j in (0, 1)
        ]
        half[y, x] = (sum(four) + 2) // 4
    return half


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (257, 513), (600, 3), (2, 700)])
def test_the_overviews_of_tiff_and_the_levels_of_a_pyramid_are_means(size, tmp_path):
    layout = layout_of([size[0]], [size[1]])
    level = picture(*size)
    for name in ("tif", "dzi"):
        write_panorama(name, str(tmp_path / f"p.{name}"), layout, strips_of(level, layout), METADATA)
    pyramid = read_pyramid(tmp_path / "p.dzi")
    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        pages = [page.asarray() for page in file.pages]
        assert [bool(page.is_reduced) for page in file.pages] == [number > 0 for number in range(len(pages))]
        assert max(pages[-1].shape) <= 256
    for number, of_pyramid in enumerate(reversed(pyramid)):
        if number < len(pages):
            np.testing.assert_array_equal(pages[number], level)
        np.testing.assert_array_equal(of_pyramid, expected("dzi", level))
        level = mean_halved(level)
    assert pyramid[0].shape == (1, 1, 3)


def test_provenance_is_in_the_file(tmp_path):
    layout, pixels = layout_of([30], [20]), picture(30, 20)
    metadata = {"InfinityGAN": '{"request": {"id": "a<b>"}}', "Software": "infinitygan 1"}
    for name in ("jpg", "webp", "zarr", "dzi"):
        write_panorama(name, str(tmp_path / f"p.{name}"), layout, strips_of(pixels, layout), metadata)
    with Image.open(tmp_path / "p.jpg") as image:
        assert json.loads(image.info["comment"]) == metadata
    with Image.open(tmp_path / "p.webp") as image:
        text = ElementTree.fromstring(image.info["xmp"]).findtext(".//{*}li")
        assert json.loads(text) == metadata
    attributes = json.loads((tmp_path / "p.zarr" / "zarr.json").read_text())["attributes"]
    assert attributes == {"InfinityGAN": {"request": {"id": "a<b>"}}, "Software": "infinitygan 1"}
    page = (tmp_path / "p.html").read_text()
    assert "a&lt;b&gt;" in page
    assert '{"height": 20, "tileSize": 256, "tiles": "p_files", "width": 30}' in page
    assert "$" not in page.split("<script>")[0]


def test_metadata_too_long_for_jpegs_comment_is_left_out(tmp_path):
    layout = layout_of([30], [20])
    metadata = {"InfinityGAN": "x" * 70_000, "Software": "infinitygan 1"}
    write_panorama("jpg", str(tmp_path / "p.jpg"), layout, strips_of(picture(30, 20), layout), metadata)
    with Image.open(tmp_path / "p.jpg") as image:
        assert json.loads(image.info["comment"]) == {"Software": "infinitygan 1"}


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_can_be_removed_as_a_whole(name, tmp_path):
    layout, url = layout_of([300], [20]), str(tmp_path / f"p.{name}")
    assert not is_written(name, url)
    write_panorama(name, url, layout, strips_of(picture(300, 20), layout), METADATA)
    assert is_written(name, url)
    remove_panorama(name, url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_that_was_replaced_changes_no_part(name, contents, tmp_path):
    layout, mark = layout_of([300], [20]), str(tmp_path / "mark.json")
    write_json(mark, {RUN: "new"})
    new, old = (Fenced(str(tmp_path / f"p.{name}"), RunFence(str(tmp_path), mark, run)) for run in ("new", "old"))
    write_panorama(name, new, layout, strips_of(picture(300, 20), layout), METADATA)
    there = contents(tmp_path)
    with pytest.raises(StaleRunError):
        write_panorama(name, old, layout, strips_of(picture(300, 20, seed=1), layout), METADATA)
    with pytest.raises(StaleRunError):
        remove_panorama(name, old)
    assert contents(tmp_path) == there


@pytest.mark.parametrize("edges", [[], [0], [1, 5], [0, 5, 5], [0, 5, 4], [0, *range(10, 0, -1)]])
def test_edges_that_do_not_rise_from_zero_are_refused(edges):
    with pytest.raises(ValueError, match="column_edges_px must begin with 0 and rise"):
        TileLayout(edges, [0, 1])
    with pytest.raises(ValueError, match="row_edges_px must begin with 0 and rise"):
        TileLayout([0, 1], edges)


def test_a_layout_can_be_compared_and_hashed():
    assert TileLayout([0, 3], [0, 2]) == TileLayout((0, 3), np.array([0, 2]))
    assert len({TileLayout([0, 3], [0, 2]), TileLayout((0, 3), (0, 2))}) == 1


def test_a_png_that_libpng_does_not_open_is_warned_of():
    for size in ((1_000_001, 4), (4, 1_000_001)):
        assert "libpng" in caution("png", *size)
        assert caution("tif", *size) is None
    assert caution("png", 1_000_000, 1_000_000) is None


DRAW = """
const calls = {}, element = {clientWidth: 900, clientHeight: 700, addEventListener() {}};
element.getContext = () => new Proxy({}, {
  get: (_, name) => (...values) => (calls[name] ||= []).push(values), set: () => true
});
globalThis.document = {querySelector: () => element};
globalThis.devicePixelRatio = 1;
globalThis.addEventListener = () => {};
globalThis.requestAnimationFrame = function_ => function_();
globalThis.Image = class { complete = true; naturalWidth = 256; naturalHeight = 256 };
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="the page's own program needs node to run here")
def test_a_pyramids_page_shows_no_more_than_the_picture():
    """Pixels of a coarse level extend beyond the picture if its size is not a multiple of theirs."""
    script = re.search("<script>(.*)</script>", viewer("p_files", 511, 129, {}), re.DOTALL)[1]
    say = "console.log(JSON.stringify([calls.rect, calls.clip.length, calls.drawImage.length]))"
    done = subprocess.run(["node", "-"], input=DRAW + script + say, capture_output=True, text=True, check=True)
    rects, clips, drawn = json.loads(done.stdout)
    assert len(rects) == clips > 0
    assert drawn
    x, y, width, height = rects[-1]
    assert (x, width, height) == (0, 900, 227)
    assert abs(y - (700 - 227) / 2) <= 1
