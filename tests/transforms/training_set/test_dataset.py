import dataclasses
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sets import read_index

import transforms.training_set.dataset as dataset_module
from model.errors import InputError
from tests.transforms.training_set.conftest import write_set
from transforms.storage import tables
from transforms.storage.tables import read_rows, write_rows
from transforms.training_set.dataset import (
    INDEX_SCHEMA,
    REJECTS_SCHEMA,
    IndexRows,
    read_dataset,
    read_index_parts,
    read_rejects,
)
from transforms.training_set.records import Reject

PROVENANCE = {"configuration": {"full_height_px": 197, "patch_size_px": 101}}
NEVER = Reject("z.jpg", "decode", "truncated", "image file is truncated")


def test_tables_say_what_is_there_in_an_order_of_their_own(items, tmp_path):
    rejects = [dataclasses.replace(NEVER, source="a.jpg", reason="empty"), NEVER]
    shards, dataset = write_set(tmp_path, items, 7, rejects, PROVENANCE)
    assert read_dataset(str(tmp_path)) == dataset
    assert dataset["rejects"] == {"empty": 1, "truncated": 1}
    assert sum(dataset["samples"].values()) == 40
    assert dataset["shards"]["train-000000.tar"]["sha256"] == shards[0].sha256
    rows = read_rows(str(tmp_path / "rejects.parquet"), "table of rejects", REJECTS_SCHEMA)
    assert [row["source"] for row in rows] == ["a.jpg", "z.jpg"]
    index = read_index(str(tmp_path))
    assert len(index) == 40
    assert {name: value for name, value in index[0].items() if name not in ("shard", "offset", "size")} == next(
        item.sample.to_json() for item in items if item.sample.key == index[0]["key"]
    )


@pytest.mark.parametrize("rows", [1, 5, 40, 1000])
def test_tables_written_in_parts_have_the_rows_of_those_written_at_once(items, tmp_path, monkeypatch, rows):
    rejects = [dataclasses.replace(NEVER, source=f"{index:02d}.jpg") for index in range(23)]
    write_set(tmp_path / "whole", items, 7, rejects, PROVENANCE)
    for module in (tables, dataset_module):
        monkeypatch.setattr(module, "ROWS_IN_A_GROUP", rows)
    write_set(tmp_path / "parts", items, 7, rejects, PROVENANCE)
    for name in ("index.parquet", "rejects.parquet"):
        assert pq.read_table(tmp_path / "parts" / name) == pq.read_table(tmp_path / "whole" / name)
        assert pq.ParquetFile(tmp_path / "parts" / name).metadata.row_group(0).num_rows <= rows
    assert list(read_rejects(str(tmp_path / "parts"))) == rejects
    names = read_dataset(str(tmp_path / "parts"))["shards"]
    parts = list(read_index_parts(str(tmp_path / "parts"), names))
    assert pa.concat_tables(parts).to_pylist() == read_index(str(tmp_path / "whole"))
    assert max(map(len, parts)) <= rows


@pytest.mark.parametrize("rows", [3, 1000])
@pytest.mark.parametrize("splits", [("train",), ("val", "test"), ("train", "val", "test")])
@pytest.mark.parametrize("most", [None, 1, 2, 7, 100])
def test_rows_are_evenly_spaced_and_read_as_they_are_needed(items, tmp_path, monkeypatch, rows, splits, most):
    for module in (tables, dataset_module):
        monkeypatch.setattr(module, "ROWS_IN_A_GROUP", rows)
    write_set(tmp_path, items, 7, [], PROVENANCE)
    index = pq.read_table(tmp_path / "index.parquet").to_pylist()
    all_rows = [row for row in index if row["split"] in splits]
    step = -(-len(all_rows) // (most or len(all_rows)))
    chosen = IndexRows(str(tmp_path), read_dataset(str(tmp_path)), splits, most)
    assert list(chosen) == all_rows[::step]
    assert len(chosen) == len(all_rows[::step])
    read = []
    real = dataset_module.read_parts
    monkeypatch.setattr(dataset_module, "read_parts", lambda *a: (read.append(len(part)) or part for part in real(*a)))
    assert next(iter(chosen)) == all_rows[0]
    assert sum(read) <= index.index(all_rows[0]) + rows


def test_licences_are_counted_without_a_thread_and_without_the_rest_of_the_index(items, tmp_path, monkeypatch):
    write_set(tmp_path, items, 7, [], PROVENANCE)
    rows = [row for row in read_index(str(tmp_path)) if row["split"] == "train"]
    read = []
    real = dataset_module.read_parts
    monkeypatch.setattr(dataset_module, "read_parts", lambda *a: read.append(a[2].names) or real(*a))
    before = len(os.listdir("/proc/self/task"))
    counts = dataset_module.count_licences(str(tmp_path), read_dataset(str(tmp_path)))
    assert len(os.listdir("/proc/self/task")) == before
    assert counts == {"CC0-1.0": len(rows)}
    assert read == [["shard", "split", "licence"]]


def test_rows_of_shards_that_are_not_in_the_set_are_passed_over(made):
    names = [name for name in read_dataset(str(made))["shards"] if name.startswith("train")]
    rows = pa.concat_tables(read_index_parts(str(made), names, ["shard", "key"])).to_pylist()
    assert {row["shard"] for row in rows} == set(names)


def test_a_folder_that_is_no_training_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a training set"):
        read_dataset(str(tmp_path))
    (tmp_path / "dataset.json").write_text('{"format_version": 99}')
    with pytest.raises(InputError, match="format_version 99"):
        read_dataset(str(tmp_path))


@pytest.fixture
def made(items, tmp_path):
    """Returns a whole training set."""
    write_set(tmp_path, items, 7, [], PROVENANCE)
    return tmp_path


def write_as_version_1(folder):
    """Rewrites the dataset.json of a set as version 1 of the format had it."""
    path = folder / "dataset.json"
    document = path.read_text().replace('"full_height_px"', '"full_size_px"')
    path.write_text(document.replace('"format_version": 2', '"format_version": 1'))
    assert "full_size_px" in document
    assert json.loads(path.read_text())["format_version"] == 1


def test_a_set_of_version_1_is_read_as_one_of_version_2(made):
    document = json.loads((made / "dataset.json").read_text())
    document["later_configurations"] = [document["configuration"]]
    (made / "dataset.json").write_text(json.dumps(document))
    dataset = read_dataset(str(made))
    write_as_version_1(made)
    assert read_dataset(str(made)) == dataset
    assert dataset["full_height_px"] == dataset["later_configurations"][0]["full_height_px"] == 197


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"full_height_px": None}, "full_height_px"),
        ({"full_height_px": "197"}, "full_height_px"),
        ({"patch_size_px": True}, "patch_size_px"),
        ({"patch_size_px": 101.5}, "patch_size_px"),
        ({"samples": None}, "samples"),
        ({"samples": {"train": 40}}, "samples"),
        ({"samples": {"train": "40", "val": 0, "test": 0}}, "samples"),
        ({"samples": {"train": -1, "val": 0, "test": 0}}, "samples"),
        ({"samples": {"train": 40, "val": 40, "test": 40}}, "samples, which differ from those of the shards"),
        ({"rejects": []}, "rejects"),
        ({"rejects": {"empty": None}}, "rejects"),
        ({"shards": None}, "shards"),
        ({"shards": ["train-000000.tar"]}, "shards"),
        ({"shards": {"train-000000.tar": 7}}, "shards"),
        ({"shards": {"train-000000.tar": {}}}, "shards"),
        ({"shards": {"train-000000.tar": {"samples": 0}}}, "shards"),
        ({"shards": {"train-../../x.tar": {"samples": 0, "size_bytes": 1}}}, "shards"),
        ({"shards": {"/etc/x.tar": {"samples": 0, "size_bytes": 1}}}, "shards"),
        ({"shards": {"train-000000.tar": {"samples": 2**40, "size_bytes": 1}}}, "shards"),
        ({"configuration": None}, "configuration"),
        ({"configuration": {"full_height_px": 197}}, "configuration"),
        ({"shards": {}}, "samples, which differ from those of the shards"),
        ({"rejects": 1, "shards": 1}, "rejects, shards"),
    ],
)
def test_a_damaged_dataset_is_refused_in_one_line_that_names_the_field(made, change, named):
    document = json.loads((made / "dataset.json").read_text())
    for damaged in ({**document, **change}, {key: document[key] for key in document if key not in change}):
        (made / "dataset.json").write_text(json.dumps(damaged))
        with pytest.raises(
            InputError, match=rf"dataset\.json is damaged \({named if damaged.keys() == document.keys() else ''}"
        ) as caught:
            read_dataset(str(made))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 1 << 40},
        {"size": 0},
        {"offset": -1},
        {"offset": None},
        {"stored_width_px": 0},
        {"original_height_px": None},
        {"key": None},
        {"perceptual_hash": "á" * 16},
        {"perceptual_hash": None},
        {"detail_hash": "0"},
        {"crop_box_px": [0, 0]},
        {"full_rows_px": []},
        {"patches": None},
        {"patches": [None]},
    ],
)
def test_a_row_of_the_index_that_no_sample_can_have_is_refused_in_one_line(made, change):
    rows = read_index(str(made))
    write_rows(str(made / "index.parquet"), [rows[0], {**rows[1], **change}, *rows[2:]], INDEX_SCHEMA)
    with pytest.raises(InputError, match=r"index\.parquet is damaged at row 1, or is not the index of a training set"):
        read_index(str(made))


@pytest.mark.parametrize("change", [{"shard": "/etc/passwd"}, {"shard": None}, {"split": "none"}, {"split": None}])
def test_a_row_of_no_shard_or_split_of_the_set_is_passed_over(made, change):
    rows = read_index(str(made))
    write_rows(str(made / "index.parquet"), [rows[0], {**rows[1], **change}, *rows[2:]], INDEX_SCHEMA)
    assert read_index(str(made)) == [rows[0], *rows[2:]]


@pytest.mark.parametrize("change", [{"source": None}, {"message": None}, {"reason": None}, {"attempts": None}])
def test_a_reject_without_what_each_has_is_refused_in_one_line(made, change):
    row = dict.fromkeys(REJECTS_SCHEMA.names)
    row |= {"source": "a.jpg", "stage": "read", "reason": "unreadable", "message": "x", "attempts": 1}
    write_rows(str(made / "rejects.parquet"), [row], REJECTS_SCHEMA)
    assert len(list(read_rejects(str(made)))) == 1
    write_rows(str(made / "rejects.parquet"), [row | change], REJECTS_SCHEMA)
    with pytest.raises(InputError, match=r"rejects\.parquet is damaged"):
        list(read_rejects(str(made)))


def test_a_damaged_index_is_refused_in_one_line(made):
    whole = (made / "index.parquet").read_bytes()
    shortened = [whole[:size] for size in (0, 3, 4, len(whole) // 2, len(whole) - 1)]
    for content in [*shortened, b"x" * 5000, whole[:4] + bytes(500) + whole[504:]]:
        (made / "index.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"index\.parquet is damaged, or is not the index") as caught:
            read_index(str(made))
        assert "\n" not in str(caught.value)


def test_no_index_or_another_table_is_refused(made):
    write_rows(str(made / "index.parquet"), [{"key": "a"}], pa.schema([("key", pa.string())]))
    with pytest.raises(InputError, match=r"index\.parquet is damaged, or is not the index"):
        read_index(str(made))
    os.remove(made / "index.parquet")
    with pytest.raises(InputError, match=r"index\.parquet is missing"):
        read_index(str(made))


def test_further_columns_of_an_index_are_passed_over(made):
    rows = [{**row, "note": "later"} for row in read_index(str(made))]
    write_rows(str(made / "index.parquet"), rows, INDEX_SCHEMA.append(pa.field("note", pa.string())))
    assert [{**row, "note": "later"} for row in read_index(str(made))] == rows
