import hashlib
import json
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.training_set.samples import Sample
from transforms.training_set.shards import choose_samples_per_shard, write_shard


@given(st.integers(0, 10_000_000))
def test_the_chosen_size_gives_16_train_shards_where_it_can(count):
    size = choose_samples_per_shard(count)
    assert 1 <= size <= 1000
    assert -(-count // size) >= min(16, count)


def contents(items):
    return ((item.image, item.sample.to_json()) for item in items)


def test_a_shard_is_the_same_bytes_each_time_and_its_rows_point_at_the_images(items, tmp_path):
    written, rows = write_shard(str(tmp_path), "train-000000.tar", contents(items))
    content = (tmp_path / "train-000000.tar").read_bytes()
    assert write_shard(str(tmp_path), "train-000000.tar", contents(items)) == (written, rows)
    assert (tmp_path / "train-000000.tar").read_bytes() == content
    assert (written.sha256, written.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    for row, item in zip(rows.to_pylist(), items, strict=True):
        assert content[row["offset"] : row["offset"] + row["size"]] == item.image
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_webdataset_reads_a_shard_and_would_have_written_the_same(items, tmp_path):
    import webdataset

    write_shard(str(tmp_path), "val-000000.tar", contents(items))
    samples = list(webdataset.WebDataset([str(tmp_path / "val-000000.tar")], shardshuffle=False))
    assert [Sample.from_json(json.loads(sample["json"])) for sample in samples] == [item.sample for item in items]
    for sample, item in zip(samples, items, strict=True):
        assert sample["__key__"] == item.sample.key
        assert sample["jpg"] == item.image
    with open(tmp_path / "theirs.tar", "wb") as file, webdataset.TarWriter(file, mtime=0, user="", group="") as writer:
        for sample in samples:
            writer.write({name: sample[name] for name in ("__key__", "jpg", "json")})
    assert (tmp_path / "theirs.tar").read_bytes() == (tmp_path / "val-000000.tar").read_bytes()


def test_a_shard_that_cannot_be_finished_does_not_appear(items, tmp_path):
    def cut_off():
        yield from contents(items)
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        write_shard(str(tmp_path), "test-000000.tar", cut_off())
    assert not [name for name in os.listdir(tmp_path) if name.startswith("test-")]
