import hashlib
import io
import itertools
import json
import tracemalloc
from collections import Counter
from contextlib import contextmanager

import fsspec
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from model.errors import InputError
from transforms.formats import FORMATS, check_format, pixel_sha256, write_panorama
from transforms.layout import TileLayout, scanline_strips

METADATA = {"seed": "7", "request": '{"id": "Málaga 日本"}'}

sides_px = st.lists(st.one_of(st.just(1), st.integers(1, 40), st.integers(250, 300)), min_size=1, max_size=4)


def layout_of(widths_px, heights_px):
    return TileLayout([0, *itertools.accumulate(widths_px)], [0, *itertools.accumulate(heights_px)])


def picture(width_px, height_px, seed=0):
    """Smooth colours with some noise: what filters and predictors wrap around on."""
    noise = np.random.default_rng(seed).integers(0, 90, (height_px, width_px, 3))
    slope = np.arange(width_px)[None, :, None] + 2 * np.arange(height_px)[:, None, None]
    return ((noise + slope) % 256).astype(np.uint8)


def tiles_of(pixels, layout, calls=None):
    def read_tile(row, column):
        if calls is not None:
            calls[row, column] += 1
        (top, bottom), (left, right) = layout.row_edges_px[row : row + 2], layout.column_edges_px[column : column + 2]
        return pixels[top:bottom, left:right]

    return read_tile


def read_back(path):
    if str(path).endswith(".tif"):
        return tifffile.imread(path)
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(autouse=True)
def _large_images(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None)
@given(widths_px=sides_px, heights_px=sides_px, strip_bytes=st.sampled_from([1, 9_999, 64 << 20]))
def test_any_layout_reads_back_exactly(name, widths_px, heights_px, strip_bytes, tmp_path_factory):
    layout = layout_of(widths_px, heights_px)
    pixels = picture(layout.width_px, layout.height_px)
    path = tmp_path_factory.mktemp("panorama") / f"p.{name}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.layout.STRIP_BYTES", strip_bytes)
        patch.setattr("transforms.tiff.CACHE_BYTES", strip_bytes)
        sha256 = write_panorama(name, str(path), layout, tiles_of(pixels, layout), METADATA)
    np.testing.assert_array_equal(read_back(path), pixels)
    assert sha256 in (None, hashlib.sha256(pixels.tobytes()).hexdigest())


@pytest.mark.parametrize("name", FORMATS)
def test_another_library_reads_the_same_pixels(name, tmp_path):
    layout = layout_of([37, 256, 256, 120], [200, 256, 5])
    pixels = picture(layout.width_px, layout.height_px)
    write_panorama(name, str(tmp_path / "p"), layout, tiles_of(pixels, layout), METADATA)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "p")), pixels)


@pytest.mark.parametrize("name", FORMATS)
def test_a_wide_panorama_reads_back(name, tmp_path):
    layout = layout_of([5_000] * 15, [2, 1])
    pixels = picture(layout.width_px, layout.height_px)
    write_panorama(name, str(tmp_path / f"p.{name}"), layout, tiles_of(pixels, layout), METADATA)
    np.testing.assert_array_equal(read_back(tmp_path / f"p.{name}"), pixels)


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_depend_on_pixels_and_metadata_only(name, tmp_path):
    pixels = picture(700, 300)
    for index, widths_px in enumerate(([700], [100, 256, 256, 88])):
        layout = layout_of(widths_px, [300])
        metadata = dict(sorted(METADATA.items(), reverse=bool(index)))
        write_panorama(name, str(tmp_path / f"{index}"), layout, tiles_of(pixels, layout), metadata)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_png_carries_its_metadata(tmp_path):
    layout = layout_of([3], [2])
    write_panorama("png", str(tmp_path / "p.png"), layout, tiles_of(picture(3, 2), layout), METADATA)
    with Image.open(tmp_path / "p.png") as image:
        assert image.text == METADATA


@pytest.mark.parametrize("metadata", [{"": "x"}, {"k" * 80: "x"}, {"k": "a\0b"}])
def test_png_refuses_metadata_that_readers_would_misread(metadata, tmp_path):
    layout = layout_of([3], [2])
    with pytest.raises(ValueError, match="1 to 79"):
        write_panorama("png", str(tmp_path / "p.png"), layout, tiles_of(picture(3, 2), layout), metadata)


def test_tiff_is_a_compressed_bigtiff_of_tiles_with_its_metadata(tmp_path):
    layout = layout_of([300, 300], [300])
    write_panorama("tif", str(tmp_path / "p.tif"), layout, tiles_of(picture(600, 300), layout), METADATA)
    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        page = file.pages[0]
        assert file.is_bigtiff
        assert page.tile == (256, 256)
        assert (page.compression.name, page.predictor.name) == ("ADOBE_DEFLATE", "HORIZONTAL")
        assert json.loads(page.description) == METADATA
        assert page.software == "infinitygan"
        assert "DateTime" not in page.tags


@pytest.mark.parametrize("name", FORMATS)
def test_the_software_in_the_metadata_is_what_readers_show_as_such(name, tmp_path):
    layout = layout_of([3], [2])
    metadata = {**METADATA, "Software": "infinitygan 1.2"}
    write_panorama(name, str(tmp_path / "p"), layout, tiles_of(picture(3, 2), layout), metadata)
    with Image.open(tmp_path / "p") as image:
        software = image.info["Software"] if name == "png" else image.tag_v2[ExifTags.Base.Software]
    assert software == "infinitygan 1.2"


@settings(max_examples=30, deadline=None)
@given(widths_px=sides_px, heights_px=sides_px)
def test_pixel_sha256_does_not_depend_on_the_tiles(widths_px, heights_px):
    layout = layout_of(widths_px, heights_px)
    pixels = picture(layout.width_px, layout.height_px)
    assert pixel_sha256(layout, tiles_of(pixels, layout)) == hashlib.sha256(pixels.tobytes()).hexdigest()


def test_pixel_sha256_has_not_changed():
    layout = layout_of([2], [2])
    expected = "fff3a9bcdd37363d703c1c4f9512533686157868f0d4f16a0f02d0f1da24f9a2"
    assert pixel_sha256(layout, lambda row, column: np.arange(12, dtype=np.uint8).reshape(2, 2, 3)) == expected


def test_png_reads_each_tile_once_even_if_a_row_of_them_is_not_held(monkeypatch, tmp_path):
    monkeypatch.setattr("transforms.layout.STRIP_BYTES", 10_000)
    layout = layout_of([37, 256, 256, 120], [16, 256, 31])
    calls = Counter()
    pixels = picture(layout.width_px, layout.height_px)
    write_panorama("png", str(tmp_path / "p"), layout, tiles_of(pixels, layout, calls), METADATA)
    assert calls == Counter(itertools.product(range(3), range(4)))


def test_tiff_on_the_same_grid_reads_each_tile_once(monkeypatch, tmp_path):
    monkeypatch.setattr("transforms.tiff.CACHE_BYTES", 0)
    layout = layout_of([256, 256, 120], [256, 31])
    calls = Counter()
    pixels = picture(layout.width_px, layout.height_px)
    write_panorama("tif", str(tmp_path / "p"), layout, tiles_of(pixels, layout, calls), METADATA)
    assert calls == Counter(itertools.product(range(2), range(3)))


def test_tiff_on_another_grid_reads_a_tile_at_most_once_a_row_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr("transforms.tiff.CACHE_BYTES", 0)
    layout = layout_of([37, 512, 512, 512, 512, 12], [37, 512, 300])
    calls = Counter()
    pixels = picture(layout.width_px, layout.height_px)
    write_panorama("tif", str(tmp_path / "p"), layout, tiles_of(pixels, layout, calls), METADATA)
    assert max(calls.values()) == 3


def test_strips_are_no_larger_than_allowed(monkeypatch):
    monkeypatch.setattr("transforms.layout.STRIP_BYTES", 3 * 100 * 7)
    layout = layout_of([60, 40], [20, 3])
    heights_px = [len(strip) for strip in scanline_strips(layout, tiles_of(picture(100, 23), layout))]
    assert heights_px == [7, 7, 6, 3]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("long_side", ["width", "height"])
def test_memory_does_not_grow_with_the_area(name, long_side, monkeypatch, tmp_path):
    monkeypatch.setattr("transforms.layout.STRIP_BYTES", 1 << 20)
    monkeypatch.setattr("transforms.tiff.CACHE_BYTES", 1 << 20)
    monkeypatch.setattr(tifffile.TIFF, "MAXWORKERS", 4)
    tile = picture(128, 128)
    peaks_bytes = []
    for count in (10, 80):
        sides_px = [[128] * 3, [128] * count]
        layout = layout_of(*(sides_px if long_side == "height" else reversed(sides_px)))
        tracemalloc.start()
        write_panorama(name, str(tmp_path / "p"), layout, lambda row, column: tile.copy(), METADATA)
        peaks_bytes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks_bytes[1] < max(1.2 * peaks_bytes[0], 5 << 20)


@pytest.mark.parametrize("name", FORMATS)
def test_an_error_of_a_tile_is_raised_and_leaves_no_file(name, tmp_path):
    layout = layout_of([256] * 3, [256] * 3)
    pixels = picture(768, 768)

    def read_tile(row, column):
        if (row, column) == (1, 2):
            raise OSError("store gone")
        return tiles_of(pixels, layout)(row, column)

    with pytest.raises(OSError, match="store gone"):
        write_panorama(name, str(tmp_path / "p"), layout, read_tile, METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "tile", [np.zeros((1, 1, 3), np.uint8), np.zeros((5, 4), np.uint8), np.zeros((5, 4, 3), np.float32)]
)
def test_a_tile_of_another_shape_is_refused(name, tile, tmp_path):
    with pytest.raises(ValueError, match=r"tile \(0, 0\) should be uint8 \[5, 4, 3\]"):
        write_panorama(name, str(tmp_path / "p"), layout_of([4], [5]), lambda row, column: tile, METADATA)


@pytest.mark.parametrize("name", FORMATS)
def test_writes_to_a_store(name, tmp_path):
    layout = layout_of([300], [20])
    pixels = picture(300, 20)
    write_panorama(name, "memory://panoramas/p", layout, tiles_of(pixels, layout), METADATA)
    (tmp_path / f"p.{name}").write_bytes(fsspec.filesystem("memory").cat_file("/panoramas/p"))
    np.testing.assert_array_equal(read_back(tmp_path / f"p.{name}"), pixels)


class Upload(io.BytesIO):
    """What an object store takes: bytes in their order."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation("seek")


@pytest.mark.parametrize("name", FORMATS)
def test_writes_to_a_store_that_takes_a_stream_only(name, monkeypatch, tmp_path):
    upload = Upload()

    @contextmanager
    def open_upload(url):
        yield upload

    layout = layout_of([300, 20], [20])
    pixels = picture(320, 20)
    monkeypatch.setattr("transforms.formats.open_atomic", open_upload)
    write_panorama(name, "gs://bucket/p", layout, tiles_of(pixels, layout), METADATA)
    (tmp_path / f"p.{name}").write_bytes(upload.getvalue())
    np.testing.assert_array_equal(read_back(tmp_path / f"p.{name}"), pixels)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiff", "format 'tiff' is unknown: did you mean tif? There are png, tif"),
        (".PNG", "format '.PNG' is unknown: did you mean png? There are png, tif"),
        ("exr", "format 'exr' is unknown: there are png, tif"),
    ],
)
def test_an_unknown_format_is_refused_with_the_nearest(name, message):
    with pytest.raises(InputError) as error:
        check_format(name, 10, 10)
    assert str(error.value) == message


def test_sizes_beyond_a_format_are_refused_with_one_that_holds_them():
    check_format("png", 10_000_000, 2**31 - 1)
    check_format("tif", 2**31 - 1, 2**31 - 1)
    with pytest.raises(InputError, match=r"png holds at most 10000000 x .* 10000001 x 5 px: ask for tif$"):
        check_format("png", 10_000_001, 5)
    with pytest.raises(InputError, match=r"tif holds at most .* 5 x 2147483648 px: ask for a smaller one$"):
        check_format("tif", 5, 2**31)
    with pytest.raises(InputError, match="png holds at most"):
        write_panorama("png", "memory://never", layout_of([10_000_001], [5]), lambda row, column: None, {})


@pytest.mark.parametrize("edges", [[], [0], [1, 5], [0, 5, 5], [0, 5, 4], [0, *range(10, 0, -1)]])
def test_edges_that_do_not_rise_from_zero_are_refused(edges):
    with pytest.raises(ValueError, match="column_edges_px must begin with 0 and rise"):
        TileLayout(edges, [0, 1])
    with pytest.raises(ValueError, match="row_edges_px must begin with 0 and rise"):
        TileLayout([0, 1], edges)


def test_a_layout_can_be_compared_and_hashed():
    assert TileLayout([0, 3], [0, 2]) == TileLayout((0, 3), np.array([0, 2]))
    assert len({TileLayout([0, 3], [0, 2]), TileLayout((0, 3), (0, 2))}) == 1
