"""The stream of training patches: every photograph once per epoch, in an order that can be resumed anywhere."""

import hashlib
import io
import itertools
import json
import shutil
import tarfile
import threading
from random import Random

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.errors import InputError
from pipelines.ingest import ingest
from transforms.ingest.options import IngestOptions
from transforms.photographs.prepare import Preparation
from transforms.storage.files import read_bytes
from transforms.training.shard_reader import Shards
from transforms.training.stream import PatchStream, crop_frame, cut, deal
from transforms.training_set.dataset import check_fits, read_dataset

PHOTOGRAPHS = 30
FULL_PX, PATCH_PX = 197, 101
PREPARATION = Preparation(full_height_px=FULL_PX, patch_size_px=PATCH_PX)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns a set of photographs, each of one blue, whose red gives the row and whose green the column."""
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(PHOTOGRAPHS):
        pixels = np.zeros((FULL_PX, FULL_PX + 40, 3), np.uint8)
        pixels[..., 0] = np.arange(FULL_PX)[:, None]
        pixels[..., 1] = np.arange(FULL_PX + 40)[None, :]
        pixels[..., 2] = 8 * index
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    out = str(tmp_path_factory.mktemp("set") / "shards")
    options = IngestOptions((str(folder),), out, preparation=PREPARATION, samples_per_shard=4)
    ingest(options, PipelineOptions(["--runner=FnApiRunner"]))
    return out


@pytest.fixture(scope="module")
def samples(data):
    return read_dataset(data)["samples"]["train"]


def stream(data, seed=0, full_px=FULL_PX, **options):
    return PatchStream(Shards(str(data), read_dataset(str(data))["shards"]), PATCH_PX, full_px, seed, **options)


def levels(pixels):
    return (pixels + 1) * 127.5


def photographs(data, count, seed=0):
    """Returns the number of the photograph that each of the first patches shows."""
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


@settings(max_examples=8)
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


def test_whole_frames_are_as_high_as_the_photographs_and_anywhere_along_them(data, samples):
    """Each photograph comes once per epoch, in an order that can be resumed anywhere."""
    frames = stream(data)
    seen, lefts = [], []
    for pixels, t in itertools.islice(frames.frames(), 3 * samples):
        red, green, blue = levels(pixels)
        assert pixels.shape == (3, FULL_PX, FULL_PX)
        assert t == 0
        assert np.abs(red.mean(axis=1) - np.arange(FULL_PX)).max() < 4
        seen.append(round(blue.mean() / 8))
        lefts.append(float(green.mean(axis=0).min()))
    assert len(set(seen[:samples])) == len(set(seen[samples : 2 * samples])) == samples
    assert min(lefts) < 10
    assert max(lefts) > 30
    later = next(stream(data).frames(samples + 2))[0]
    assert np.array_equal(later, next(itertools.islice(frames.frames(), samples + 2, None))[0])
    batch = next(frames.frame_batches(2, after=samples + 2))
    assert np.array_equal(batch.pixels[0], later)


def test_a_photograph_that_is_higher_than_wide_is_continued_by_reflection():
    pixels = np.zeros((FULL_PX, 120, 3), np.uint8)
    pixels[..., 1] = np.arange(120)[None, :]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    metadata = {"full_rows_px": [0, FULL_PX], "stored_width_px": 120, "stored_height_px": FULL_PX}
    raw = {"__url__": "a.tar", "__key__": "b", "png": buffer.getvalue(), "json": json.dumps(metadata).encode()}
    frame, t = crop_frame(raw, FULL_PX, Random(0))
    green = frame[0, :, 1] if frame[0, 0, 1] == 0 else frame[0, ::-1, 1]
    assert (frame.shape, t) == ((FULL_PX, FULL_PX, 3), 0)
    assert green.tolist() == [*range(120), *range(119, 119 - 77, -1)]


def test_batches_are_the_patches_in_order(data):
    batch = next(stream(data).batches(5, after=2))
    pixels, positions = zip(*itertools.islice(stream(data).patches(2), 5), strict=True)
    assert batch.pixels.shape == (5, 3, PATCH_PX, PATCH_PX)
    assert batch.pixels.dtype == batch.vertical_positions.dtype == np.float32
    assert np.array_equal(batch.pixels, np.stack(pixels))
    assert batch.vertical_positions.tolist() == pytest.approx(positions)


def test_photographs_of_another_height_are_refused(data):
    with pytest.raises(InputError, match="--full-size 230 --patch-size 101"):
        check_fits(data, read_dataset(data), PATCH_PX, 230)
    check_fits(data, read_dataset(data), PATCH_PX, 200)  # within a tenth


def test_a_patch_of_the_whole_height_has_position_0(tmp_path):
    (tmp_path / "photographs").mkdir()
    for index in range(6):
        Image.new("RGB", (200, 120), (9 * index, 0, 0)).save(tmp_path / "photographs" / f"{index}.png")
    sources = (str(tmp_path / "photographs"),)
    preparation = Preparation(full_height_px=PATCH_PX, patch_size_px=PATCH_PX, content_filters=False)
    ingest(IngestOptions(sources, str(tmp_path / "set"), preparation=preparation, dedup="off"))
    patches = stream(tmp_path / "set", full_px=PATCH_PX).patches()
    assert {t for _, t in itertools.islice(patches, 8)} == {0.0}


@pytest.fixture
def copy(data, tmp_path):
    """Returns a copy of the set, to be damaged."""
    return shutil.copytree(data, tmp_path / "copy")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Removes the pauses between attempts."""
    monkeypatch.setattr("transforms.training.shard_reader.RETRY_AFTER_S", (0.0, 0.0, 0.0))


def jpeg_of(size):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "JPEG")
    return buffer.getvalue()


def rewrite(copy, name, change):
    """Changes the files of a shard's second sample, and stores the new shard's checksum as if it were right."""
    shard = copy / name
    with tarfile.open(shard) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    key = members[2][0].split(".")[0]
    with tarfile.open(shard, "w") as tar:
        for member_name, content in members:
            changed = change(member_name.split(".")[1], content) if member_name.startswith(key) else content
            if changed is not None:
                member = tarfile.TarInfo(member_name)
                member.size = len(changed)
                tar.addfile(member, io.BytesIO(changed))
    dataset = json.loads((copy / "dataset.json").read_text())
    dataset["shards"][name]["sha256"] = hashlib.sha256(shard.read_bytes()).hexdigest()
    (copy / "dataset.json").write_text(json.dumps(dataset))
    return key


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        ("jpg", lambda content: content[: len(content) // 2]),
        ("jpg", lambda content: b""),
        ("jpg", lambda content: b"once upon a time"),
        ("jpg", lambda content: jpeg_of((150, 150))),
        ("jpg", lambda content: None),
        ("json", lambda content: content[:-9]),
        ("json", lambda content: b"\xff\xff"),
        ("json", lambda content: b"[1]"),
        ("json", lambda content: json.dumps({**json.loads(content), "stored_width_px": 0}).encode()),
        ("json", lambda content: json.dumps({**json.loads(content), "full_rows_px": 7}).encode()),
        ("json", lambda content: json.dumps({**json.loads(content), "full_rows_px": [0, 50]}).encode()),
        ("json", lambda content: None),
    ],
)
def test_a_sample_that_was_damaged_before_its_shard_was_written_is_named(copy, suffix, change):
    key = rewrite(copy, "train-000001.tar", lambda name, content: change(content) if name == suffix else content)
    with pytest.raises(InputError, match="copy the shard again, or ingest the photographs again") as caught:
        for _ in itertools.islice(stream(str(copy)).patches(), PHOTOGRAPHS):
            pass
    assert str(caught.value).startswith(f"{copy}/train-000001.tar, sample {key}, is damaged (")
    assert "\n" not in str(caught.value)


def test_a_share_of_the_windows_is_cropped_at_the_edges_from_a_patch_on(data):
    edges = stream(data, beyond_share=0.5)
    t = np.array([position for _, position in itertools.islice(edges.patches(beyond_after=100), 400)])
    assert np.mean(np.abs(t[:100]) == 1) < 0.1
    assert 0.35 < np.mean(np.abs(t[100:]) == 1) < 0.65
    later = itertools.islice(edges.patches(after=90, beyond_after=100), 20)
    assert [position for _, position in later] == t[90:110].tolist()


def test_windows_at_the_edges_lie_away_from_the_horizon(tmp_path):
    """Blue is above each photograph's horizon and red below it."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for index in range(PHOTOGRAPHS):
        pixels = np.zeros((FULL_PX, FULL_PX + 40, 3), np.uint8)
        horizon_px = (70, 130)[index % 2]
        pixels[:horizon_px, :, 2], pixels[horizon_px:, :, 0] = 200 + index, 100 + index
        pixels[..., 1] = np.random.default_rng(index).integers(0, 40, pixels.shape[:2])
        Image.fromarray(pixels).save(photographs / f"{index:02d}.png")
    options = IngestOptions((str(photographs),), str(tmp_path / "set"), preparation=PREPARATION)
    ingest(options, PipelineOptions(["--runner=FnApiRunner"]))
    edges = stream(tmp_path / "set", beyond_share=0.99)
    seen = [(pixels, t) for pixels, t in itertools.islice(edges.patches(), 200) if abs(t) == 1]
    assert 0.3 < np.mean([t > 0 for _, t in seen]) < 0.7
    assert all((levels(pixels)[2 if t > 0 else 0] < 30).all() for pixels, t in seen)


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_each_epoch_out_among_them(data, ranks):
    """Each photograph comes once per epoch, in one process, whatever the processes' speeds."""
    names = sorted(name for name in read_dataset(data)["shards"] if name.startswith("train-"))
    counts = {name: read_dataset(data)["shards"][name]["samples"] for name in names}
    seen = []
    for rank in range(ranks):
        share = stream(data, rank=rank, ranks=ranks)
        samples = sum(counts[name] for name in deal(names, "0 0", rank, ranks))
        seen += [round(levels(pixels)[2].mean() / 8) for pixels, _ in itertools.islice(share.patches(), samples)]
    assert sorted(seen) == sorted(set(photographs(data, sum(counts.values()))))


@given(shards=st.integers(1, 40), ranks=st.integers(1, 40), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_over_all_processes_each_shard_comes_once_an_epoch(shards, ranks, seed, epoch):
    names = [f"train-{index:06d}.tar" for index in range(shards)]
    dealt = [deal(names, f"{seed} {epoch}", rank, ranks) for rank in range(ranks)]
    assert sorted(name for share in dealt for name in share) == names
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert dealt == [deal(names, f"{seed} {epoch}", rank, ranks) for rank in range(ranks)]


@settings(max_examples=8)
@given(after=st.integers(0, 80), rank=st.integers(0, 1))
def test_a_share_of_the_stream_can_be_taken_up_after_any_patch(data, after, rank):
    share = stream(data, rank=rank, ranks=2)
    whole = itertools.islice(share.patches(), after, after + 3)
    for (pixels, t), (expected, expected_t) in zip(itertools.islice(share.patches(after), 3), whole, strict=True):
        assert t == expected_t
        assert np.array_equal(pixels, expected)


def test_more_processes_than_shards_are_refused_with_the_numbers_and_the_cure(data, samples):
    shards = sum(name.startswith("train-") for name in read_dataset(data)["shards"])
    check_fits(data, read_dataset(data), PATCH_PX, FULL_PX, shards)
    cure = f"start at most {shards} processes, or ingest with --samples-per-shard 2"
    with pytest.raises(InputError, match=cure):
        check_fits(data, read_dataset(data), PATCH_PX, FULL_PX, 12)
    assert samples // 12 == 2


def first(data, count, after=0):
    """Returns the first patches, and t."""
    return [(pixels.tobytes(), t) for pixels, t in itertools.islice(stream(data).patches(after), count)]


def test_the_number_of_threads_changes_nothing(data, monkeypatch):
    expected = first(data, 60)
    monkeypatch.setattr("transforms.training.stream.DECODERS", 7)
    monkeypatch.setattr("transforms.training.stream.PART", 3)
    assert first(data, 60) == expected


def test_a_stream_that_is_taken_up_reads_no_shard_that_it_has_done_with(data, samples, monkeypatch):
    monkeypatch.setattr("transforms.training.stream.SHUFFLED_SAMPLES", 8)
    expected = first(data, samples)[16:]
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(2)  # it may still be reading ahead
    read = []
    monkeypatch.setattr(
        "transforms.training.shard_reader.read_bytes", lambda url, most: read.append(url) or read_bytes(url, most)
    )
    assert first(data, samples - 16, after=16) == expected
    order = deal(sorted(name for name in read_dataset(data)["shards"] if name.startswith("train-")), "0 0", 0, 1)
    shards = Shards(data, read_dataset(data)["shards"], strict=True)
    blocks = list(cut(order, shards))
    ends = itertools.accumulate(map(shards.samples, blocks))
    left = {name for block, end in zip(blocks, ends, strict=True) if end > 16 for name in block}
    assert len(left) < len(order)
    assert {url.rpartition("/")[2] for url in read[: len(left)]} == left


def test_a_shard_that_cannot_be_read_leaves_every_other_sample_in_its_place(data, samples, copy):
    """Its photographs are missing; those of another shard come twice."""
    expected = first(data, 2 * samples)
    (copy / "train-000002.tar").unlink()
    damaged = stream(copy)
    patches = [(pixels.tobytes(), t) for pixels, t in itertools.islice(damaged.patches(), 2 * samples)]
    other = sum(a != b for a, b in zip(patches, expected, strict=True))
    assert other == 2 * read_dataset(data)["shards"]["train-000002.tar"]["samples"]
    assert damaged.shards.skipped == {"train-000002.tar": "it is missing"}
    taken_up = stream(copy).patches(after=7)
    assert [(pixels.tobytes(), t) for pixels, t in itertools.islice(taken_up, 30)] == patches[7:37]
