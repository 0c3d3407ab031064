import multiprocessing
import os
import time

import fsspec
import pytest

from model.errors import InputError
from transforms.storage import (
    exists,
    filesystem,
    join,
    list_files,
    open_atomic,
    read_bytes,
    read_json,
    remove_leftovers,
    run_id,
    write_bytes,
    write_json,
)

FOREIGN = "0123456789ab"


@pytest.fixture(params=["local", "with spaces", "memory"])
def folder(request, tmp_path):
    if request.param != "memory":
        return str(tmp_path / request.param)
    store = fsspec.filesystem("memory")
    if store.exists("/storage"):
        store.rm("/storage", recursive=True)
    return "memory://storage"


def everything(folder):
    """The names of all files in a folder, temporary ones too."""
    fs, path = filesystem(folder)
    return sorted(os.path.basename(name) for name in fs.find(path))


def test_what_was_written_is_read(folder):
    url = join(folder, "a", "b.json")
    assert not exists(url)
    write_json(url, {"b": "Málaga 日本", "a": [1, None]})
    assert exists(url)
    assert read_bytes(url).decode() == '{\n  "a": [\n    1,\n    null\n  ],\n  "b": "Málaga 日本"\n}\n'
    assert read_json(url) == {"b": "Málaga 日本", "a": [1, None]}
    write_bytes(url, b"other")
    assert read_bytes(url) == b"other"
    assert everything(folder) == ["b.json"]


def test_a_file_is_not_there_until_it_is_whole(folder):
    with open_atomic(join(folder, "file")) as file:
        file.write(b"half ")
        file.flush()
        assert not exists(join(folder, "file"))
        assert list_files(folder) == []
        file.write(b"whole")
    assert read_bytes(join(folder, "file")) == b"half whole"
    assert list_files(folder) == everything(folder) == ["file"]


@pytest.mark.parametrize("earlier", [None, b"earlier"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_in_the_middle_changes_nothing(earlier, error, folder):
    if earlier:
        write_bytes(join(folder, "file"), earlier)

    def fail():
        with open_atomic(join(folder, "file")) as file:
            file.write(b"half ")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert everything(folder) == (["file"] if earlier else [])
    if earlier:
        assert read_bytes(join(folder, "file")) == earlier


def test_two_writers_of_one_file_leave_one_of_the_two(folder):
    with open_atomic(join(folder, "file")) as one, open_atomic(join(folder, "file")) as other:
        one.write(b"one" * 100)
        other.write(b"other" * 100)
    assert read_bytes(join(folder, "file")) == b"one" * 100
    assert everything(folder) == ["file"]


def test_only_finished_files_are_listed(folder):
    for name in ("b.tar", "a.tar", f"c.tar.tmp-{FOREIGN}-01234567", "sub/d.tar"):
        write_bytes(join(folder, name), b"x")
    assert list_files(folder) == ["a.tar", "b.tar"]
    assert list_files(join(folder, "none")) == []


def test_leftovers_go_and_all_else_stays(tmp_path):
    hours_ago = time.time() - 2 * 3600
    finished = ("a.tar", "a.tmp", "b.tmp-1234", "c.tmp-xyz.tar", "old.tar")
    young_foreign = (f"a.tar.tmp-{FOREIGN}-01234567", f"b.tar.tmp-{FOREIGN}")
    own = (f"a.tar.tmp-{run_id()}-01234567", f"b.tar.tmp-{run_id()}")
    old_foreign = (f"o.tar.tmp-{FOREIGN}-01234567", f"o.tar.tmp-{FOREIGN}")
    for name in (*finished, *young_foreign, *own, *old_foreign):
        (tmp_path / name).write_bytes(b"x")
    for name in ("old.tar", *old_foreign):
        os.utime(tmp_path / name, (hours_ago, hours_ago))
    remove_leftovers(str(tmp_path))
    assert everything(str(tmp_path)) == sorted((*finished, *young_foreign))
    remove_leftovers(str(tmp_path / "none"))


def test_a_leftover_that_another_run_removes_first_is_no_error(tmp_path, monkeypatch):
    name = f"a.tar.tmp-{run_id()}-01234567"
    (tmp_path / name).write_bytes(b"x")
    original = fsspec.implementations.local.LocalFileSystem.rm_file

    def removed_twice(self, path):
        original(self, path)
        original(self, path)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "rm_file", removed_twice)
    remove_leftovers(str(tmp_path))
    assert everything(str(tmp_path)) == []


def test_a_process_leaves_what_the_one_that_it_was_forked_from_is_writing(tmp_path):
    with open_atomic(str(tmp_path / "a.tar")):
        child = multiprocessing.get_context("fork").Process(target=remove_leftovers, args=(str(tmp_path),))
        child.start()
        child.join()
    assert child.exitcode == 0
    assert everything(str(tmp_path)) == ["a.tar"]


def test_what_is_wrong_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="foo://x: Protocol not known: foo"):
        exists("foo://x")
    for content in (b"{", b"\xff", b""):
        write_bytes(join(folder, "file.json"), content)
        with pytest.raises(InputError, match=r"file\.json is not JSON"):
            read_json(join(folder, "file.json"))
    with pytest.raises(FileNotFoundError):
        read_bytes(join(folder, "none"))
