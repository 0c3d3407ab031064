"""The stream of training patches: every photograph once an epoch, in an order that can be taken up anywhere."""

import io
import itertools
import json
import shutil
import tarfile

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


def test_a_patch_of_the_whole_height_has_position_0(tmp_path):
    (tmp_path / "photographs").mkdir()
    for index in range(6):
        Image.new("RGB", (200, 120), (9 * index, 0, 0)).save(tmp_path / "photographs" / f"{index}.png")
    sources = (str(tmp_path / "photographs"),)
    ingest(IngestOptions(sources, str(tmp_path / "set"), PATCH_PX, PATCH_PX, dedup="off", content_filters=False))
    patches = PatchStream(str(tmp_path / "set"), PATCH_PX, PATCH_PX).patches()
    assert {t for _, t in itertools.islice(patches, 8)} == {0.0}


@pytest.fixture
def copy(data, tmp_path):
    """A copy of the set, to be damaged."""
    return shutil.copytree(data, tmp_path / "copy")


def read_all(copy):
    """Reads more than an epoch; returns what the stream says of the damage."""
    with pytest.raises(InputError, match="copy the shard again, or ingest the photographs again") as caught:
        for _ in itertools.islice(stream(str(copy)).patches(), PHOTOGRAPHS):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("step", [1, 512], ids=["anywhere", "between blocks"])
def test_a_shard_that_is_cut_short_is_named(copy, share, step):
    shard = copy / "train-000002.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(share * len(content)) // step * step])
    assert read_all(copy).startswith(f"{copy}/train-000002.tar")


def test_a_shard_that_ends_after_a_file_is_named_and_none_of_it_is_passed_over(copy):
    shard = copy / "train-000001.tar"
    content = shard.read_bytes()
    with tarfile.open(shard) as tar:
        ends = [member.offset for member in tar][1:]
    for end in ends:
        shard.write_bytes(content[:end])
        assert read_all(copy).startswith(f"{copy}/train-000001.tar")


def test_a_shard_with_a_broken_header_or_of_something_else_is_named(copy):
    shard = copy / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        offset = tar.getmembers()[2].offset
    content[offset : offset + 100] = b"y" * 100
    for damaged in (bytes(content), b"x" * 5000, b"\x1f\x8b\x08" + bytes(content)):
        shard.write_bytes(damaged)
        assert read_all(copy).startswith(f"{copy}/train-000000.tar is damaged")


def test_a_shard_that_is_missing_is_named(copy):
    (copy / "train-000001.tar").unlink()
    assert read_all(copy).startswith(f"{copy}/train-000001.tar is damaged (it is missing)")


def jpeg_of(size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        ("jpg", lambda content: content[: len(content) // 2]),
        ("jpg", lambda content: b""),
        ("jpg", lambda content: b"once upon a time"),
        ("jpg", lambda content: jpeg_of((150, 150))),
        ("jpg", None),
        ("json", lambda content: content[:-9]),
        ("json", lambda content: b"\xff\xff"),
        ("json", lambda content: b"[1]"),
        ("json", lambda content: json.dumps({**json.loads(content), "stored_width_px": 0}).encode()),
        ("json", lambda content: json.dumps({**json.loads(content), "full_rows_px": 7}).encode()),
        ("json", lambda content: json.dumps({**json.loads(content), "full_rows_px": [0, 50]}).encode()),
        ("json", None),
    ],
)
def test_a_damaged_sample_is_named_by_its_shard_and_key(copy, suffix, change):
    shard = copy / "train-000001.tar"
    with tarfile.open(shard) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    key = members[2][0].split(".")[0]
    with tarfile.open(shard, "w") as tar:
        for name, content in members:
            if name != f"{key}.{suffix}" or change:
                content = change(content) if name == f"{key}.{suffix}" else content
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert read_all(copy).startswith(f"{copy}/train-000001.tar, sample {key}, is damaged (")


def test_a_store_that_fails_is_no_damage(copy, monkeypatch):
    def fail(self, path, *arguments, **options):
        raise OSError(5, "Input/output error", path)

    patches = stream(str(copy)).patches()
    next(patches)
    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem._open", fail)
    with pytest.raises(OSError, match="Input/output error"):
        list(itertools.islice(patches, PHOTOGRAPHS))


def test_a_share_of_the_windows_is_cropped_at_the_edges_from_a_patch_on(data):
    whole = PatchStream(data, PATCH_PX, FULL_PX, edge_share=0.5, edge_after=100)
    t = np.array([position for _, position in itertools.islice(whole.patches(), 400)])
    assert np.mean(np.abs(t[:100]) == 1) < 0.1
    assert 0.35 < np.mean(np.abs(t[100:]) == 1) < 0.65
    assert 0.3 < np.mean(t[100:][np.abs(t[100:]) == 1] == 1) < 0.7
    later = itertools.islice(whole.patches(after=90), 20)
    assert [position for _, position in later] == t[90:110].tolist()
