import os
import shutil
import tempfile
import time
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import gs, s3  # noqa: F401 - fixtures

from model.errors import InputError
from transforms.storage.arrivals import check_place, list_arrivals, pause_after, take_whole

NAMES = ("a.jsonl", "b.jsonl", "deep/c.jsonl")
STEPS = st.lists(
    st.tuples(st.sampled_from(("write", "append", "rename", "delete", "look")), st.sampled_from(NAMES)), max_size=30
)


def look(place, growing=None, known=(), suffixes=(".jsonl",), without=None):
    """Returns the paths, below the place, of the files that a look takes."""
    files = list_arrivals(str(place), suffixes, without)
    taken = take_whole(files, lambda file: file.url in known, {} if growing is None else growing)
    return sorted(file.url.removeprefix(f"{place}/") for file, _ in taken)


def settled(place, **how):
    """Returns what two looks in a row take."""
    growing = {}
    return look(place, growing, **how) + look(place, growing, **how)


def apply(step, path, number):
    path.parent.mkdir(exist_ok=True)
    if step == "write":
        path.write_text(f"{number} ")
    elif step == "append":
        with path.open("a") as file:
            file.write("more ")
    elif step == "rename":
        (path.parent / ".new").write_text(f"renamed {number} ")
        os.replace(path.parent / ".new", path)
    else:
        path.unlink(missing_ok=True)


@given(steps=STEPS)
def test_every_file_is_taken_once_as_it_was_at_two_looks(steps):
    folder = Path(tempfile.mkdtemp())
    growing, known, taken = {}, set(), {}
    before = {}

    def one_look():
        nonlocal before
        now = {name: (folder / name).read_text() for name in NAMES if (folder / name).exists()}
        for name in look(folder, growing, known):
            assert name not in taken
            assert before[name] == now[name]
            taken[name] = now[name]
            known.add(f"{folder}/{name}")
        before = now

    for number, (step, name) in enumerate(steps):
        if step == "look":
            one_look()
        else:
            apply(step, folder / name, number)
    one_look()
    one_look()
    assert set(taken) >= {name for name in NAMES if (folder / name).exists()}
    shutil.rmtree(folder)


def test_a_file_that_grows_waits(tmp_path):
    growing, file = {}, tmp_path / "a.jsonl"
    for size in range(1, 4):
        file.write_bytes(b"x" * size)
        assert look(tmp_path, growing) == []
    assert look(tmp_path, growing) == ["a.jsonl"]


def test_a_file_moved_into_place_is_seen_whatever_its_time(tmp_path):
    (tmp_path / "a.jsonl").write_text("new")
    assert settled(tmp_path) == ["a.jsonl"]
    (tmp_path / "old.jsonl").write_text("old")
    os.utime(tmp_path / "old.jsonl", (0, 0))
    (tmp_path / "later.jsonl").write_text("from a clock that is ahead")
    os.utime(tmp_path / "later.jsonl", (time.time() + 1e6,) * 2)
    assert settled(tmp_path, known={f"{tmp_path}/a.jsonl"}) == ["later.jsonl", "old.jsonl"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.jsonl.tmp",
            "a.jsonl._COPYING_",
            "a.jsonl.part",
            "a.jsonl.crdownload",
            ".a.jsonl",
            ".a.jsonl.Xy12",
            "a.jsonl~",
        ),
        *("_temporary/0/part-0.jsonl", ".staging/a.jsonl", "a.jsonl.tmp-0123456789ab-01234567", "a.json", "jsonl"),
    ],
)
def test_names_of_unfinished_and_other_files_are_left_alone(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("half")
    (tmp_path / "whole.JSONL").write_text("whole")
    assert settled(tmp_path) == ["whole.JSONL"]


def test_empty_files_pipes_folders_and_broken_links_are_left_alone(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert settled(tmp_path) == []
    (tmp_path / "empty.jsonl").write_text("now")
    assert settled(tmp_path) == ["empty.jsonl"]


def test_a_folder_that_does_not_exist_may_come(tmp_path):
    growing = {}
    assert look(tmp_path / "later", growing) == []
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.jsonl").write_text("x")
    assert look(tmp_path / "later", growing) + look(tmp_path / "later", growing) == ["a.jsonl"]


def test_the_left_out_folder_is_not_searched(tmp_path):
    for name in ("out/a.jsonl", "outside/b.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    assert settled(tmp_path, without=str(tmp_path / "out")) == ["outside/b.jsonl"]


def test_the_left_out_folder_does_not_match_a_pattern(tmp_path):
    for name in ("out/a.jsonl", "outside/b.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    assert settled(f"{tmp_path}/*/*", without=str(tmp_path / "out")) == [f"{tmp_path}/outside/b.jsonl"]


@pytest.mark.parametrize("inner", ["", "/**"])
def test_the_left_out_folder_is_found_through_a_link(tmp_path, inner):
    (tmp_path / "in" / "out").mkdir(parents=True)
    (tmp_path / "in" / "out" / "a.jsonl").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert settled(f"{tmp_path}/in{inner}", without=str(tmp_path / "link" / "out")) == []
    assert settled(f"{tmp_path}/link{inner}", without=str(tmp_path / "in" / "out")) == []


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("", "is empty"),
        ("{}/a.jsonl", "is a file"),
        ("{}/out", "the folder of --out"),
        ("{}/out/", "the folder of --out"),
        ("{}/link", "the folder of --out"),
        ("{}/out/*.jsonl", "the folder of --out"),
    ],
)
def test_places_where_nothing_can_arrive_are_refused(tmp_path, place, reason):
    (tmp_path / "a.jsonl").write_text("x")
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(InputError, match=reason):
        check_place(place.format(tmp_path), str(tmp_path / "out"))
    for right in ("later", "*/*.jsonl", "out/requests"):
        check_place(f"{tmp_path}/{right}", str(tmp_path / "out"))


def test_patterns_match_files(tmp_path):
    for name in ("day-1/a.jsonl", "day-2/b.jsonl", "night/c.jsonl", "day-2/.d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    pattern = f"{tmp_path}/day-*/*.jsonl"
    assert settled(pattern) == [f"{tmp_path}/day-1/a.jsonl", f"{tmp_path}/day-2/b.jsonl"]


@pytest.mark.parametrize("bucket", ["gs", "s3", "memory"])
def test_a_store_shows_whole_files_and_their_versions(bucket, request):
    place = (
        f"memory:///{time.time_ns()}" if bucket == "memory" else f"{request.getfixturevalue(bucket)}/{time.time_ns()}"
    )
    fs, path = fsspec.core.url_to_fs(place)

    def versions():
        return {file.url: file.version() for file in list_arrivals(place, (".jsonl",))}

    assert versions() == {}
    fs.pipe_file(f"{path}/day/a.jsonl", b"one")
    fs.pipe_file(f"{path}/.hidden.jsonl", b"one")
    assert look(place) == ["day/a.jsonl"]
    first = versions()
    assert versions() == first
    time.sleep(1.1)  # the resolution of the times of S3
    fs.pipe_file(f"{path}/day/a.jsonl", b"two")
    assert versions().keys() == first.keys()
    assert versions() != first
    assert [file.url for file in list_arrivals(f"{place}/*/a.jsonl", (".jsonl",))] == [f"{place}/day/a.jsonl"]
    assert look(f"{place}/day", without=place) == ["a.jsonl"]
    assert look(place, without=f"{place}/day") == []


def test_looks_take_a_small_part_of_the_time():
    assert pause_after(0.001) == pytest.approx(1)
    assert pause_after(3) == pytest.approx(27)
