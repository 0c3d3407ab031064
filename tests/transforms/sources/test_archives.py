import io
import json
import subprocess
import tarfile
from contextlib import suppress

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from transforms.sources.archives import read_archive
from transforms.storage.byte_ranges import read_pieces


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_pictures_of_a_tar_carry_what_their_metadata_say(tmp_path):
    said = {"url": "https://a.org/1.jpg", "license": "CC0-1.0", "author": "Å", "caption": "Lake", "width": 7}
    members = {
        "000.jpg": b"one",
        "000.json": json.dumps(said).encode(),
        "000.txt": b"Lake",
        "001.webp": b"three",
        "001.json": b"{broken",
        "deep/002.png": b"four",
    }
    write_tar(tmp_path / "a.tar", members)
    first, second, third = read_archive(str(tmp_path / "a.tar"))
    assert (first.source, first.licence, first.author, first.title) == ("https://a.org/1.jpg", "CC0-1.0", "Å", "Lake")
    assert second.source == f"{tmp_path}/a.tar#001.webp"
    assert third.source.endswith("a.tar#deep/002.png")
    assert list(read_pieces([first.piece, second.piece, third.piece])) == [b"one", b"three", b"four"]


def test_what_is_no_tar_is_refused_and_one_without_pictures_is_a_reject(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="cannot be read as a tar"):
        list(read_archive(str(tmp_path / "a.tar")))
    write_tar(tmp_path / "b.tar", {"a.txt": b"x"})
    rejects = list(read_archive(str(tmp_path / "b.tar")))
    assert [reject.source for reject in rejects] == [f"{tmp_path}/b.tar", f"{tmp_path}/b.tar#a.txt"]
    assert {reject.reason for reject in rejects} == {"not_a_picture"}
    write_tar(tmp_path / "c.tar", {f"{index}.jpg": b"x" * 2000 for index in range(9)})
    (tmp_path / "c.tar").write_bytes((tmp_path / "c.tar").read_bytes()[:3000])
    cut, picture = read_archive(str(tmp_path / "c.tar"))
    assert (cut.reason, picture.piece.size_bytes) == ("truncated", 2000)


def test_a_tar_that_ends_without_its_end_is_said_to_be_cut_and_its_pictures_are_taken(tmp_path):
    write_tar(tmp_path / "a.tar", {"x.jpg": b"x" * 512, "y.jpg": b"y" * 512})
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: 4 * 512])  # two headers and two blocks, and nothing after them
    assert rows(tmp_path / "a.tar") == {f"{tmp_path}/a.tar": "truncated", "x.jpg": "photograph", "y.jpg": "photograph"}


def test_metadata_of_more_than_a_megabyte_are_not_read(tmp_path):
    said = {"licence": "CC0-1.0", "more": "x" * (1 << 20)}
    write_tar(tmp_path / "a.tar", {"x.jpg": b"x", "x.json": json.dumps(said).encode()})
    (picture,) = read_archive(str(tmp_path / "a.tar"))
    assert picture.licence is None


def rows(path):
    """Returns the item for each member, by the end of its source."""
    return {item.source.rpartition("#")[2]: getattr(item, "reason", "photograph") for item in read_archive(str(path))}


def test_every_member_has_a_row_or_belongs_to_a_picture_that_has_one(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in {"a.jpg": tarfile.REGTYPE, "b.jpg": tarfile.LNKTYPE, "c.jpg": tarfile.SYMTYPE}.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            tar.addfile(member)
        for name, kind in {"d": tarfile.DIRTYPE, "e.jpg": tarfile.FIFOTYPE, "caf\udce9.jpg": tarfile.REGTYPE}.items():
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
        for name in ("a.txt", "notes.txt", "f.heic", "a.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    assert rows(tmp_path / "a.tar") == {
        "a.jpg": "photograph",
        "2.jpg": "photograph",
        "caf\ufffd.jpg": "photograph",
        "b.jpg": "link",
        "c.jpg": "link",
        "e.jpg": "not_a_picture",
        "notes.txt": "not_a_picture",
        "f.heic": "not_a_picture",
    }


def test_a_sparse_member_is_taken_if_only_its_end_is_a_hole(tmp_path):
    for name, begin in {"end.jpg": 0, "begin.jpg": 1 << 20}.items():
        with open(tmp_path / name, "wb") as file:
            file.seek(begin)
            file.write(b"x" * 4096)
            file.truncate(2 << 20)
    command = ["tar", "--sparse", "-cf", tmp_path / "s.tar", "-C", tmp_path, "end.jpg", "begin.jpg"]
    if subprocess.run(command, check=False).returncode or (tmp_path / "s.tar").stat().st_size > 1 << 20:
        pytest.skip("no tar that makes sparse members here")
    assert rows(tmp_path / "s.tar") == {"end.jpg": "photograph", "begin.jpg": "unreadable"}
    photograph = next(read_archive(str(tmp_path / "s.tar")))
    assert list(read_pieces([photograph.piece])) == [b"x" * 4096]


def test_what_a_key_with_dots_names_finds_its_metadata(tmp_path):
    said = json.dumps({"license": "CC0", "author": ["Ann", "Bob"]}).encode()
    names = ["./v1.0/0001", "0002", "lake.v2"]
    members = {f"{name}{'.image' * (name == '0002')}.jpg": b"x" for name in names}
    write_tar(tmp_path / "a.tar", members | {f"{name}.json": said for name in names})
    items = list(read_archive(str(tmp_path / "a.tar")))
    assert [(item.licence, item.author) for item in items] == [("CC0", "Ann, Bob")] * 3


def test_no_picture_is_lost_for_what_its_metadata_say(tmp_path):
    members = {}
    urls = ["https://a.org/album", "https://a.org/album", "unknown", "unknown", "ipfs://bafy/c.jpg", "x\ud83d", 7, None]
    for number, url in enumerate(urls):
        members |= {f"{number}.jpg": b"x", f"{number}.json": json.dumps({"url": url}).encode()}
    members |= {"8.jpg": b"x", "8.json": b"[" * 100_000}
    write_tar(tmp_path / "a.tar", members)
    sources = [item.source for item in read_archive(str(tmp_path / "a.tar"))]
    named = [f"{tmp_path}/a.tar#{number}.jpg" for number in range(9)]
    assert sources == [*named[:4], "ipfs://bafy/c.jpg", *named[5:]]


def test_joined_tars_are_read_one_after_the_other_and_what_is_no_tar_is_said(tmp_path):
    write_tar(tmp_path / "a.tar", {"x.jpg": b"1", "x.json": b'{"author": "A"}'})
    write_tar(tmp_path / "b.tar", {"x.jpg": b"2", "y.jpg": b"3"})
    one, two = (tmp_path / "a.tar").read_bytes(), (tmp_path / "b.tar").read_bytes()
    (tmp_path / "joined.tar").write_bytes(one + two + one)
    items = list(read_archive(str(tmp_path / "joined.tar")))
    assert list(read_pieces(item.piece for item in items)) == [b"1", b"2", b"3", b"1"]
    assert [item.author for item in items] == ["A", None, None, "A"]
    assert len({item.source for item in items}) == 4
    (tmp_path / "junk.tar").write_bytes(one + b"junk" * 1000)
    assert rows(tmp_path / "junk.tar") == {f"{tmp_path}/junk.tar": "truncated", "x.jpg": "photograph"}
    (tmp_path / "bad.tar").write_bytes(two[:1024] + b"\xff" * 512 + two[1536:])
    assert rows(tmp_path / "bad.tar") == {f"{tmp_path}/bad.tar": "truncated", "x.jpg": "photograph"}


@given(st.lists(st.tuples(st.integers(0, 5119), st.integers(0, 255)), max_size=20), st.integers(0, 10240))
def test_no_damage_to_a_tar_breaks_anything(changes, length):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.jpg", "a.json", "d/" * 60 + "ü.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    content = bytearray(buffer.getvalue())
    for place, value in changes:
        content[place] = value
    fsspec.filesystem("memory").pipe("/damaged/a.tar", bytes(content[:length]))
    with suppress(InputError):
        for item in read_archive("memory://damaged/a.tar"):
            repr(item).encode()


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [20 << 20, 2 << 30, 1 << 62])
def test_a_header_that_claims_any_size_is_not_read_and_the_pictures_before_it_are_taken(tmp_path, kind, size):
    path = tmp_path / "set.tar"
    write_tar(path, {"a.jpg": b"\xff\xd8"})
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    path.write_bytes(path.read_bytes()[:1024] + header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with open(path, "r+b") as file:
        file.truncate(64 << 20)  # there is something to be read
    assert sorted(rows(path).values()) == ["photograph", "truncated"]
