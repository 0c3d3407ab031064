import io
import itertools

import numpy as np
import pytest
from PIL import Image

from transforms.formats.jpeg import encode_jpeg
from transforms.formats.layout import TileLayout, cut_strips
from transforms.formats.thumbnail import HEIGHT_PX, Thumbnail, with_thumbnail
from transforms.render.index_page import page


@pytest.mark.parametrize("size", [(1, 1), (700, 500), (300, 97), (5000, 20), (3, 2000), (1000, 96)])
def test_a_thumbnail_is_the_means_of_squares_of_the_left_end(size):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    thumbnail = Thumbnail(width, height)
    for _ in with_thumbnail(cut_strips(TileLayout([0, width], [0, height]), [pixels]), thumbnail):
        pass
    side = thumbnail.side_px
    shown = pixels[:, : 8 * height]
    expected = np.zeros((-(-height // side), -(-shown.shape[1] // side), 3), np.uint8)
    for y, x in itertools.product(range(expected.shape[0]), range(expected.shape[1])):
        expected[y, x] = shown[y * side : (y + 1) * side, x * side : (x + 1) * side].mean(axis=(0, 1)).astype(np.uint8)
    assert expected.shape[0] <= HEIGHT_PX
    assert thumbnail.to_jpeg() == encode_jpeg(expected)
    with Image.open(io.BytesIO(thumbnail.to_jpeg())) as image:
        assert image.size == expected.shape[1::-1]


def test_the_page_shows_what_is_done_and_says_what_is_not():
    row = {"width_px": 10, "height_px": 5, "seed": 3, "scale": 1, "plan": "0123456789ab"}
    done = {**row, "id": "a", "state": "done", "reason": None, "files": ["panoramas/a.dzi", "panoramas/a.tif"]}
    failed = {**row, "id": "b", "state": "failed", "reason": "<b>& so on", "files": []}
    said = page([done, failed])
    assert "1 of 2 panoramas are done" in said
    assert 'src="thumbnails/a.jpg"' in said
    assert '<a href="panoramas/a.html">dzi</a> <a href="panoramas/a.tif">tif</a>' in said
    assert "&lt;b&gt;&amp; so on" in said
    assert "thumbnails/b.jpg" not in said
