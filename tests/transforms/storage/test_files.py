import errno
import multiprocessing
import os
import time

import fsspec
import pytest

from model.errors import InputError
from transforms.storage.byte_ranges import Piece, read_pieces
from transforms.storage.files import (
    exists,
    filesystem,
    join,
    list_files,
    move,
    named_errors,
    open_atomic,
    read_bytes,
    read_json,
    remove,
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
    """Returns the names of all files in a folder, including temporary ones."""
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


def test_a_folder_by_the_name_of_a_json_file_is_said_to_be_one(tmp_path):
    (tmp_path / "dataset.json").mkdir()
    with pytest.raises(InputError, match=r"dataset\.json is a folder: remove it"):
        read_json(str(tmp_path / "dataset.json"))


@pytest.mark.parametrize("prefix", ["", "file://", "local://"])
@pytest.mark.parametrize("read", [read_bytes, read_json, lambda url: list(read_pieces([Piece(url, 0, 1)]))])
def test_nothing_but_regular_files_is_opened(tmp_path, prefix, read):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", "/dev/zero"):
        with pytest.raises(InputError, match="it is a device, pipe or socket"):
            read(f"{prefix}{path}")
    write_bytes(f"{prefix}{tmp_path}/file", b"1")
    assert read(f"{prefix}{tmp_path}/file") in (b"1", 1, [b"1"])


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


def test_leftovers_are_found_at_any_depth_of_the_folders_named_and_nowhere_else(folder):
    places = ("patches/p/0", "panoramas/p.zarr/c/0", "panoramas/p_files/9")
    for place in (*places, "photographs/2026"):
        for name in (f"a.tmp-{run_id()}-01234567", f"b.tmp-{FOREIGN}-01234567", "c"):
            write_bytes(join(folder, place, name), b"x")
    remove_leftovers(folder, "patches", "panoramas", "none")
    fs, path = filesystem(folder)
    there = {name.removeprefix(path).lstrip("/") for name in fs.find(path)}
    # A recent file of another run may be one that it is writing at the moment.
    assert there == {f"{place}/{name}" for place in places for name in (f"b.tmp-{FOREIGN}-01234567", "c")} | {
        f"photographs/2026/{name}" for name in (f"a.tmp-{run_id()}-01234567", f"b.tmp-{FOREIGN}-01234567", "c")
    }


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


@pytest.mark.parametrize("name", ["run[12]", "run?", "run*", "run**", "r::1"])
def test_a_name_with_the_signs_of_a_pattern_means_itself(name, folder):
    if "::" in name and "://" in folder:
        with pytest.raises(InputError, match="::"):  # in a URL it would chain file systems
            write_bytes(join(folder, name, "file"), b"x")
        return
    for place in ("run1", "run2", name):
        write_bytes(join(folder, place, "deep", "file"), place.encode())
        write_bytes(join(folder, f"{place}.tar"), place.encode())
    assert list_files(join(folder, name, "deep")) == ["file"]
    move(join(folder, name, "deep", "file"), join(folder, name, "moved"))
    assert read_bytes(join(folder, name, "moved")) == name.encode()
    remove_leftovers(folder, name)
    remove(join(folder, name))
    remove(join(folder, f"{name}.tar"))
    remove(join(folder, name))
    assert not exists(join(folder, name))
    assert list_files(folder) == ["run1.tar", "run2.tar"]
    for place in ("run1", "run2"):
        assert read_bytes(join(folder, place, "deep", "file")) == place.encode()


def test_a_link_is_removed_but_not_what_it_leads_to(tmp_path):
    for kind in ("file", "folder/file"):
        (tmp_path / kind).parent.mkdir(exist_ok=True)
        (tmp_path / kind).write_bytes(b"x")
        (tmp_path / "link").symlink_to(tmp_path / kind.split("/")[0])
        remove(str(tmp_path / "link"))
        assert not (tmp_path / "link").is_symlink()
        assert (tmp_path / kind).read_bytes() == b"x"


@pytest.mark.parametrize("url", ["gs:/bucket/x", "s3:bucket/x", "http:/host/x", "memory:/x"])
def test_a_url_that_lacks_a_slash_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scheme, _, rest = url.partition(":")
    with pytest.raises(InputError, match=f"{scheme}://{rest.lstrip('/')}"):
        write_bytes(join(url, "file"), b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_local_path_may_have_colons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("a:b", "a::b", "./gs:/bucket", f"file://{tmp_path}/c:d", f"file:{tmp_path}/e"):
        write_bytes(join(url, "file"), url.encode())
        assert read_bytes(join(url, "file")) == url.encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a:b", "a::b", "c:d", "e", "gs:"])


def test_an_error_shows_no_password():
    with pytest.raises(InputError) as caught:
        exists("foo://alice:S3CRET@host/x?token=T0KEN")
    assert "S3CRET" not in str(caught.value)
    assert "T0KEN" not in str(caught.value)


def test_a_full_disk_is_named(tmp_path):
    def fill(path):
        with open_atomic(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fill(str(tmp_path / "file"))
    assert caught.value.filename == str(tmp_path / "file")
    # The file on the disk is the one named first, not the one made from it.
    full = pytest.raises(OSError, match="No space left")
    with full as caught, open_atomic(str(tmp_path / "file")), named_errors("/elsewhere"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == "/elsewhere"
