import dataclasses
import hashlib
import os
import socket
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_samples import make_sample

from model.errors import InputError
from transforms import staging
from transforms.sources import Reject
from transforms.training_shards import (
    StagedSample,
    TrainingShard,
    assign_shards,
    choose_samples_per_shard,
    iterate_shard,
    read_dataset,
    read_index,
    read_rejects,
    write_shard,
    write_tables,
)

CONFIGURATION = {"full_size_px": 197, "patch_size_px": 101}
NEVER = Reject("z.jpg", "decode", "truncated", "image file is truncated")


def staged(count, folder="/staging"):
    items = []
    for index in range(count):
        sha256 = hashlib.sha256(str(index).encode()).hexdigest()
        items.append(StagedSample(make_sample(sha256, f"{index}.jpg"), f"{folder}/{sha256}.jpg"))
    return items


@pytest.fixture
def on_disk(tmp_path):
    items = staged(40, str(tmp_path))
    for item in items:
        with open(item.image_url, "wb") as file:
            file.write(item.sample.sha256.encode() * (1 + int(item.sample.key[0], 16)))
    return items


@settings(deadline=None)
@given(count=st.integers(1, 120), size=st.integers(1, 30), random=st.randoms(use_true_random=False))
def test_shards_are_full_dense_and_in_key_order_whatever_comes_first(count, size, random):
    items = staged(count)
    shards = assign_shards(items, size)
    shuffled = list(items)
    random.shuffle(shuffled)
    assert assign_shards(shuffled, size) == shards
    for split in ("train", "val", "test"):
        mine = [shard for shard in shards if shard.name.startswith(split)]
        assert [shard.name for shard in mine] == [f"{split}-{index:06d}.tar" for index in range(len(mine))]
        assert all(len(shard.samples) == size for shard in mine[:-1])
        keys = [item.sample.key for shard in mine for item in shard.samples]
        assert keys == sorted(item.sample.key for item in items if item.sample.split == split)


@settings(deadline=None)
@given(st.integers(0, 10_000_000))
def test_the_chosen_size_gives_16_train_shards_where_it_can(count):
    size = choose_samples_per_shard(count)
    assert 1 <= size <= 1000
    assert -(-count // size) >= min(16, count)


def test_a_shard_is_the_same_bytes_each_time_and_its_rows_point_at_the_images(on_disk, tmp_path):
    shard = TrainingShard("train-000000.tar", tuple(on_disk))
    written = write_shard(str(tmp_path), shard)
    content = (tmp_path / "train-000000.tar").read_bytes()
    assert write_shard(str(tmp_path), shard) == written
    assert (tmp_path / "train-000000.tar").read_bytes() == content
    assert (written.sha256, written.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    for row, item in zip(written.rows, on_disk, strict=True):
        with open(item.image_url, "rb") as file:
            assert content[row["offset"] : row["offset"] + row["size"]] == file.read()
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_webdataset_reads_a_shard_and_would_have_written_the_same(on_disk, tmp_path):
    import webdataset

    write_shard(str(tmp_path), TrainingShard("val-000000.tar", tuple(on_disk)))
    dataset = webdataset.WebDataset([str(tmp_path / "val-000000.tar")], shardshuffle=False)
    read = {sample["__key__"]: sample["jpg"] for sample in dataset}
    ours = list(iterate_shard(str(tmp_path / "val-000000.tar")))
    assert read == {sample.key: image for sample, image in ours}
    assert [sample for sample, _ in ours] == [item.sample for item in on_disk]
    samples = list(webdataset.WebDataset([str(tmp_path / "val-000000.tar")], shardshuffle=False))
    with open(tmp_path / "theirs.tar", "wb") as file, webdataset.TarWriter(file, mtime=0, user="", group="") as writer:
        for sample in samples:
            writer.write({name: sample[name] for name in ("__key__", "jpg", "json")})
    assert (tmp_path / "theirs.tar").read_bytes() == (tmp_path / "val-000000.tar").read_bytes()


def test_a_shard_that_cannot_be_finished_does_not_appear(on_disk, tmp_path):
    os.remove(on_disk[-1].image_url)
    with pytest.raises(FileNotFoundError):
        write_shard(str(tmp_path), TrainingShard("test-000000.tar", tuple(on_disk)))
    assert not [name for name in os.listdir(tmp_path) if name.startswith("test-")]


def test_tables_say_what_is_there_in_an_order_of_their_own(on_disk, tmp_path):
    written = [write_shard(str(tmp_path), shard) for shard in assign_shards(on_disk, 7)]
    rejects = [NEVER, dataclasses.replace(NEVER, source="a.jpg", reason="empty")]
    dataset = write_tables(str(tmp_path), written, rejects, CONFIGURATION)
    before = [(tmp_path / name).read_bytes() for name in ("index.parquet", "rejects.parquet", "dataset.json")]
    write_tables(str(tmp_path), reversed(written), reversed(rejects), CONFIGURATION)
    assert before == [(tmp_path / name).read_bytes() for name in ("index.parquet", "rejects.parquet", "dataset.json")]
    assert read_dataset(str(tmp_path)) == dataset
    assert dataset["rejects"] == {"empty": 1, "truncated": 1}
    assert sum(dataset["samples"].values()) == 40
    assert dataset["shards"]["train-000000.tar"]["sha256"] == written[0].sha256
    assert [row["source"] for row in read_rejects(str(tmp_path))] == ["a.jpg", "z.jpg"]
    index = read_index(str(tmp_path))
    assert len(index) == 40
    assert {name: value for name, value in index[0].items() if name not in ("shard", "offset", "size")} == next(
        item.sample.to_json() for item in on_disk if item.sample.key == index[0]["key"]
    )


def test_a_folder_that_is_no_training_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no training set"):
        read_dataset(str(tmp_path))
    (tmp_path / "dataset.json").write_text('{"format_version": 99}')
    with pytest.raises(InputError, match="format_version 99"):
        read_dataset(str(tmp_path))


def test_what_a_killed_run_left_is_cleared_away_and_nothing_else(tmp_path):
    gone = ["train-000000.tar", "val-000001.tar.tmp-0123456789ab-01234567", "index.parquet", ".staging/a.jpg"]
    kept = ["mine.tar", "train-1.tar", "photo.jpg", "index.parquet.bak"]
    (tmp_path / ".staging").mkdir()
    for name in gone + kept:
        (tmp_path / name).write_bytes(b"x")
    staging.check_out(str(tmp_path))
    staging.begin(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted([".staging", *kept])
    assert os.listdir(tmp_path / ".staging") == ["run.json"]
    staging.finish(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    staging.begin(str(tmp_path))
    staging.check_out(str(tmp_path))
    sleeper = subprocess.Popen(["sleep", "60"])
    run = f'{{"host": "{socket.gethostname()}", "process": {sleeper.pid}}}'
    (tmp_path / ".staging" / "run.json").write_text(run)
    try:
        with pytest.raises(InputError, match=f"is being written by process {sleeper.pid}"):
            staging.check_out(str(tmp_path))
    finally:
        sleeper.kill()
        sleeper.wait()
    staging.check_out(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"), [("dataset.json", "already holds a data set"), ("train-000000.tar", "shards without")]
)
def test_a_folder_with_what_is_not_ours_to_remove_is_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        staging.check_out(str(tmp_path))
    with pytest.raises(InputError, match="is a file"):
        staging.check_out(str(tmp_path / name))
