import io
import json
import tarfile

import pytest

from model.errors import InputError
from transforms.archives import read_archive
from transforms.pieces import read_pieces


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
