import hashlib
import json
import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.training_set.conftest import staged
from transforms.storage.byte_ranges import read_pieces
from transforms.training_set.samples import Sample
from transforms.training_set.shards import TrainingShard, assign_shards, choose_samples_per_shard, write_shard


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
        assert [content[row["offset"] : row["offset"] + row["size"]]] == list(read_pieces([item.image]))
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_webdataset_reads_a_shard_and_would_have_written_the_same(on_disk, tmp_path):
    import webdataset

    write_shard(str(tmp_path), TrainingShard("val-000000.tar", tuple(on_disk)))
    samples = list(webdataset.WebDataset([str(tmp_path / "val-000000.tar")], shardshuffle=False))
    assert [Sample.from_json(json.loads(sample["json"])) for sample in samples] == [item.sample for item in on_disk]
    for sample, item in zip(samples, on_disk, strict=True):
        assert sample["__key__"] == item.sample.key
        assert [sample["jpg"]] == list(read_pieces([item.image]))
    with open(tmp_path / "theirs.tar", "wb") as file, webdataset.TarWriter(file, mtime=0, user="", group="") as writer:
        for sample in samples:
            writer.write({name: sample[name] for name in ("__key__", "jpg", "json")})
    assert (tmp_path / "theirs.tar").read_bytes() == (tmp_path / "val-000000.tar").read_bytes()


def test_a_shard_that_cannot_be_finished_does_not_appear(on_disk, tmp_path):
    os.remove(on_disk[-1].image.url)
    with pytest.raises(FileNotFoundError):
        write_shard(str(tmp_path), TrainingShard("test-000000.tar", tuple(on_disk)))
    assert not [name for name in os.listdir(tmp_path) if name.startswith("test-")]
