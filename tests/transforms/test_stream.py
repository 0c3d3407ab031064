"""The stream of training patches: every photograph once an epoch, in an order that can be taken up anywhere."""

import itertools

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.errors import InputError
from pipelines.ingest import IngestOptions, ingest
from transforms.stream import PatchStream
from transforms.training_shards import read_dataset

PHOTOGRAPHS = 30
FULL_PX, PATCH_PX = 197, 101


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A set of photographs, each of one blue, whose red tells the row and whose green tells the column."""
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(PHOTOGRAPHS):
        pixels = np.zeros((FULL_PX, FULL_PX + 40, 3), np.uint8)
        pixels[..., 0] = np.arange(FULL_PX)[:, None]
        pixels[..., 1] = np.arange(FULL_PX + 40)[None, :]
        pixels[..., 2] = 8 * index
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    out = str(tmp_path_factory.mktemp("set") / "shards")
    options = IngestOptions((str(folder),), out, FULL_PX, PATCH_PX, samples_per_shard=4)
    ingest(options, PipelineOptions(["--runner=FnApiRunner"]))
    return out


@pytest.fixture(scope="module")
def samples(data):
    return read_dataset(data)["samples"]["train"]


def stream(data, seed=0):
    return PatchStream(data, PATCH_PX, FULL_PX, seed)


def levels(pixels):
    return (pixels + 1) * 127.5


def photographs(data, count, seed=0):
    """Which photograph each of the first patches shows."""
    patches = itertools.islice(stream(data, seed).patches(), count)
    return [round(levels(pixels)[2].mean() / 8) for pixels, _ in patches]


def test_an_epoch_shows_each_photograph_once(data, samples):
    seen = photographs(data, 3 * samples)
    epochs = [seen[start : start + samples] for start in range(0, 3 * samples, samples)]
    assert all(len(set(epoch)) == samples for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_is_a_function_of_the_seed(data, samples):
    assert photographs(data, samples) == photographs(data, samples)
    assert photographs(data, samples) != photographs(data, samples, seed=1)


@settings(max_examples=8, deadline=None)
@given(after=st.integers(0, 80))
def test_a_stream_can_be_taken_up_after_any_patch(data, after):
    whole = itertools.islice(stream(data).patches(), after, after + 3)
    for (pixels, t), (expected, expected_t) in zip(
        itertools.islice(stream(data).patches(after), 3), whole, strict=True
    ):
        assert t == expected_t
        assert np.array_equal(pixels, expected)


def test_the_position_is_where_the_patch_lies(data, samples):
    tops, lefts, flipped = [], [], 0
    for pixels, t in itertools.islice(stream(data).patches(), 4 * samples):
        red, green, _ = levels(pixels)
        top = float(red[0].mean())
        assert t == pytest.approx(2 * top / (FULL_PX - PATCH_PX) - 1, abs=0.08)
        tops.append(top)
        lefts.append(float(green.mean(axis=0).min()))
        flipped += green[:, 0].mean() > green[:, -1].mean()
    assert min(tops) < 12
    assert max(tops) > FULL_PX - PATCH_PX - 12
    assert min(lefts) < 15
    assert max(lefts) > 40 + FULL_PX - PATCH_PX - 15
    assert 0.3 < flipped / (4 * samples) < 0.7


def test_batches_are_the_patches_in_order(data):
    batch = next(stream(data).batches(5, after=2))
    pixels, positions = zip(*itertools.islice(stream(data).patches(2), 5), strict=True)
    assert batch.pixels.shape == (5, 3, PATCH_PX, PATCH_PX)
    assert batch.pixels.dtype == batch.vertical_positions.dtype == np.float32
    assert np.array_equal(batch.pixels, np.stack(pixels))
    assert batch.vertical_positions.tolist() == pytest.approx(positions)


def test_photographs_of_another_height_are_refused(data):
    with pytest.raises(InputError, match="--full-size 230 --patch-size 101"):
        PatchStream(data, PATCH_PX, 230)
    PatchStream(data, PATCH_PX, 200)  # within a tenth


def test_no_training_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="infinitygan ingest"):
        PatchStream(str(tmp_path), PATCH_PX, FULL_PX)
