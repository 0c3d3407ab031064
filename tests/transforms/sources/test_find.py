import io
import json
import os
import re
import socket
import tarfile

import fsspec
import pytest
from finding import find_again, search

from model.errors import InputError
from pipelines.ingest import planned
from transforms.ingest import find_steps
from transforms.ingest.options import IngestOptions
from transforms.ingest.plan import planned_rejects, read_share
from transforms.ingest.runs import merge_runs
from transforms.sources import find as sources_module
from transforms.sources.find import expand
from transforms.training_set.dataset import reject_order
from transforms.training_set.records import Reject


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def names(found, folder):
    return [os.path.relpath(photograph.source, folder) for photograph in found.photographs]


@pytest.fixture
def photos(tmp_path):
    return make(tmp_path / "photos", "b.JPG", "a b ü.png", "deep/er/c.webp", "notes.txt")


def find(*sources, out="/nowhere/out"):
    places = [place.url for number, source in enumerate(sources) for place in expand(number, str(source))]
    found = search(places, str(out))
    if not found.photographs:
        with planned(IngestOptions(tuple(map(str, sources)), str(out))):
            pass
    return found


@pytest.mark.parametrize("buckets", [3, 512])
def test_a_job_finds_what_is_found_in_memory(photos, tmp_path, monkeypatch, buckets):
    """Folders, links, globs, lists, tars and what is wrong with them, of several workers, each thing once."""
    monkeypatch.setattr(find_steps, "BUCKETS", buckets)
    make(photos, "deep/notes.csv", "deep/er/c.jpg", "out/.staging/x.jpg", "out/train-000000.tar")
    make(tmp_path / "elsewhere", "d.jpg", "in/e.jpg")
    (photos / "a-link").symlink_to(tmp_path / "elsewhere")
    (photos / "deep" / "b-link").symlink_to(tmp_path / "elsewhere")
    (photos / "deep" / "up").symlink_to(photos)
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    said = b'{"url": "https://a.org/1.jpg", "license": "CC0"}'
    for name in ("a.tar", "deep/b.tar"):
        write_tar(photos / name, ("1.jpg", name.encode()), ("1.json", said), ("x.doc", b"x"))
    (photos / "inventory.tsv").write_text("file\tlicense\nb.JPG\tCC0-1.0\ndeep/er/c.webp\tX\n")
    (tmp_path / "l.txt").write_text("https://a.org/1.jpg\nphotos/b.JPG\nftp://h/x.jpg\nhttp://[/a.jpg\n")
    sources = [photos, tmp_path / "l.txt", photos / "deep", photos / "*.JPG", photos / "deep" / "b.tar"]
    expected = find(*sources, out=photos / "out")
    assert len(expected.photographs) == 19
    with planned(IngestOptions(tuple(map(str, sources)), str(photos / "out"))) as (where, plan):
        found = [photograph for share in range(plan.shares) for photograph in read_share(where, share)]
        rejects = list(merge_runs(where, planned_rejects(where)))
    assert sorted(found, key=lambda photograph: photograph.source) == expected.photographs
    assert rejects == sorted(expected.rejects, key=reject_order)
    assert (plan.photographs, plan.rejects, plan.shares) == (len(found), len(rejects), 2)


def test_folders_are_listed_with_all_below_them_and_in_order(photos):
    found = find(photos)
    assert names(found, photos) == ["a b ü.png", "b.JPG", "deep/er/c.webp"]
    assert [(os.path.basename(reject.source), reject.stage, reject.reason) for reject in found.rejects] == [
        ("notes.txt", "find", "not_a_picture")
    ]


def test_files_and_globs_are_taken_at_their_word(photos):
    make(photos, "picture")
    assert names(find(photos / "picture"), photos) == ["picture"]
    assert names(find(photos / "*.[pJ]*"), photos) == ["a b ü.png", "b.JPG"]
    assert names(find(photos / "**/*.webp"), photos) == ["deep/er/c.webp"]


def test_a_name_with_brackets_is_a_file_first(photos):
    make(photos, "d[1].jpg")
    assert names(find(photos / "d[1].jpg"), photos) == ["d[1].jpg"]


def test_a_file_that_several_sources_name_is_found_once(photos):
    found = find(photos, photos / "b.JPG", photos / "deep", photos, f"file://{photos}/b.JPG")
    assert names(found, photos) == ["a b ü.png", "b.JPG", "deep/er/c.webp"]
    assert len(found.rejects) == 1


def test_relative_paths_stay_relative(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    assert find("photos/").photographs[0].source == "photos/a b ü.png"
    assert find("photos/*.JPG").photographs[0].source == "photos/b.JPG"


def test_what_is_in_the_target_is_no_source(photos):
    make(photos, "out/.staging/x.jpg", "out-takes/y.jpg")
    assert names(find(photos, out=photos / "out"), photos)[-1] == "out-takes/y.jpg"
    assert len(find(photos, out=photos / "out").photographs) == 4


def test_linked_folders_are_followed_once(photos, tmp_path):
    make(tmp_path / "elsewhere", "d.jpg")
    (photos / "a-link").symlink_to(tmp_path / "elsewhere")
    (photos / "b-link").symlink_to(tmp_path / "elsewhere")
    (photos / "deep" / "up").symlink_to(photos)
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    found = find(photos)
    assert names(found, photos) == ["a b ü.png", "a-link/d.jpg", "b.JPG", "deep/er/c.webp"]
    loops = [os.path.relpath(r.source, photos) for r in found.rejects if r.reason == "symlink_loop"]
    assert loops == ["a-link/self", "b-link", "deep/up"]


def test_what_cannot_be_opened_is_a_reject(photos):
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    (photos / "gone.jpg").symlink_to(photos / "missing.jpg")
    os.mkfifo(photos / "pipe.jpg")
    found = find(photos)
    messages = {os.path.basename(r.source): r.message for r in found.rejects if r.reason == "unreadable"}
    assert messages == {
        "loop.jpg": "a link to no file",
        "gone.jpg": "a link to no file",
        "pipe.jpg": "not a regular file",
    }


@pytest.mark.parametrize("name", ["pipe.csv", "pipe.tar", "pipe.parquet"])
def test_a_pipe_by_the_name_of_a_list_or_tar_is_a_reject_at_once(photos, name):
    os.mkfifo(photos / name)
    found = find(photos / "b.JPG", photos / name)
    assert names(found, photos) == ["b.JPG"]
    assert [(reject.reason, reject.message) for reject in found.rejects] == [
        ("unreadable", "it is a device, pipe or socket; give a regular file")
    ]


@pytest.mark.parametrize("suffix", [b".jpg", b".txt"])
def test_a_name_that_is_not_utf8_is_a_reject(photos, suffix):
    with open(os.fsencode(photos) + b"/bad\xff" + suffix, "wb"):
        pass
    reject = find(photos).rejects[0]
    assert reject.source.endswith("bad\\xff" + suffix.decode())
    reject.source.encode()


def test_a_folder_that_cannot_be_listed_is_a_reject(photos, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(sources_module.os, "scandir", scandir)
    reject = find(photos).rejects[0]
    assert (os.path.basename(reject.source), reject.reason) == ("deep", "unreadable")
    assert "Permission denied" in reject.message


@pytest.mark.parametrize("name", ["inventory.tsv", "ATTRIBUTION.tsv", "inventory.csv"])
@pytest.mark.parametrize("licence", ["license", "licence"])
def test_licence_and_author_come_from_the_inventory(photos, name, licence):
    mark = "\t" if name.endswith("tsv") else ","
    rows = [["file", "extra", licence, "author"], ["b.JPG", "7", "CC0-1.0", "Å. B"], ["deep/er/c.webp", "", "X", ""]]
    (photos / name).write_text("\n".join(mark.join(row) for row in rows) + "\n")
    credits_ = {os.path.basename(p.source): (p.licence, p.author) for p in find(photos).photographs}
    assert credits_ == {"b.JPG": ("CC0-1.0", "Å. B"), "c.webp": ("X", None), "a b ü.png": (None, None)}
    assert name not in {os.path.basename(reject.source) for reject in find(photos).rejects}
    assert find(photos / "b.JPG").photographs[0].licence == "CC0-1.0"


def test_an_inventory_without_a_file_column_is_refused(photos):
    (photos / "inventory.tsv").write_text("name\tlicense\n")
    with pytest.raises(InputError, match=r"inventory.tsv has no 'file' column"):
        find(photos)
    (photos / "inventory.tsv").write_bytes(b"file\tauthor\nb.JPG\t\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        find(photos)


def test_object_stores_are_listed_too():
    fs = fsspec.filesystem("memory")
    for name in ("a.jpg", "sub/b.png", "readme.md", "inventory.tsv"):
        fs.pipe(f"/store-of-photos/{name}", b"file\tlicense\na.jpg\tCC0-1.0\n")
    found = find("memory://store-of-photos/", out="memory://out")
    assert [p.source for p in found.photographs] == [
        "memory://store-of-photos/a.jpg",
        "memory://store-of-photos/sub/b.png",
    ]
    assert found.photographs[0].licence == "CC0-1.0"
    assert [r.reason for r in found.rejects] == ["not_a_picture"]
    assert len(find("memory://store-of-photos/*.jpg").photographs) == 1


@pytest.mark.parametrize("source", ["/no/such/folder", "/no/such/*.jpg", "no-such://bucket/x", ""])
def test_a_source_that_does_not_exist_is_named(source, photos, monkeypatch):
    monkeypatch.chdir(photos / "deep" / "er")
    if source == "":
        with pytest.raises(InputError):
            IngestOptions((), "out")
        return
    with pytest.raises(InputError, match=r"no.such") as caught:
        find(source)
    assert "\n" not in str(caught.value)


def test_a_folder_without_photographs_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    make(tmp_path / "texts", "a.txt")
    with pytest.raises(InputError, match=r"empty: no photographs; give files ending in \.jpg"):
        find(tmp_path / "empty")
    with pytest.raises(InputError, match=r"texts: no photographs \(rejected: 1\); give files ending in"):
        find(tmp_path / "texts")
    make(tmp_path / "photos", "a.jpg")
    with pytest.raises(InputError, match="choose a folder for the training set that is not"):
        find(tmp_path / "photos", out=tmp_path / "photos")
    (tmp_path / "empty.csv").write_text("url\n")
    with pytest.raises(InputError, match="the list has no rows"):
        find(tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("IMG_1.HEIC", "unsupported", "are not read: convert it"),
        ("photo.nef", "unsupported", "are not read: convert it"),
        ("part-0.parquet", "not_a_picture", "give it as a source of its own"),
        ("photos.zip", "not_a_picture", "unpack it first"),
        ("readme", "not_a_picture", r"does not end in \.jpg"),
    ],
)
def test_why_a_file_of_a_folder_is_not_taken_is_said_with_the_cure(tmp_path, name, reason, message):
    make(tmp_path, "a.jpg", name)
    (reject,) = find(tmp_path).rejects
    assert reject.reason == reason
    assert re.search(message, reject.message)


def test_rows_of_lists_that_lead_nowhere_are_rejects_and_the_rest_is_taken(photos):
    (photos / "list.txt").write_text("b.JPG\nno-such://bucket/a.jpg\nb.JPG\nhttp://[/a.jpg\n")
    found = find(photos / "list.txt")
    assert "b.JPG" in names(found, photos)
    assert [(reject.source, reject.reason) for reject in found.rejects] == [("no-such://bucket/a.jpg", "not_allowed")]


@pytest.mark.parametrize("source", ["ftp://127.0.0.1:{}/a.jpg", "webhdfs://127.0.0.1:{}/a.jpg", "sftp://127.0.0.1:{}/"])
def test_finding_connects_to_no_file_system_of_another_kind(tmp_path, source):
    """Neither a list's rows, nor a tar's metadata, nor a table in the output folder can cause it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        url = source.format(listener.getsockname()[1])
        (tmp_path / "list.txt").write_text(f"{url}\n{tmp_path}/b.jpg\n")
        with tarfile.open(tmp_path / "set.tar", "w") as tar:
            for name, content in {"a.jpg": b"x", "a.json": json.dumps({"url": url}).encode()}.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        found = find(tmp_path / "list.txt", tmp_path / "set.tar")
        assert len(found.photographs) == 2
        with pytest.raises(InputError, match="not allowed"):
            find(url)
        for reason in ("bad_url", "unreadable", "not_allowed"):
            assert not find_again([Reject(url, "find", reason, "x")], "/nowhere/out").photographs
        with pytest.raises(TimeoutError):
            listener.accept()


def test_what_a_list_from_the_web_must_not_name_is_not_taken_when_rejects_are_tried_again(photos):
    refused = [Reject(f"file://{photos}/b.JPG", "find", "not_allowed", "x")]
    assert find_again(refused, "/nowhere/out").photographs == []


def write_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_broken_tar_or_list_is_a_reject_and_the_others_go_on(photos):
    (photos / "bad.tar").write_bytes(b"\x1f\x8b" + b"x" * 5000)
    (photos / "packed.tar.gz").write_bytes(b"x")
    write_tar(photos / "GOOD.TAR", ("x.jpg", b"x"))
    (photos.parent / "l.csv").write_text("name\nx\n")
    found = find(photos, photos.parent / "l.csv")
    assert "GOOD.TAR#x.jpg" in names(found, photos)
    reasons = {os.path.basename(reject.source): reject.reason for reject in found.rejects}
    assert reasons == {
        "bad.tar": "unreadable",
        "l.csv": "unreadable",
        "packed.tar.gz": "not_a_picture",
        "notes.txt": "not_a_picture",
    }


def test_two_colons_in_a_name_are_letters_like_others(tmp_path):
    assert names(find(make(tmp_path / "a::b", "c::d.jpg")), tmp_path) == ["a::b/c::d.jpg"]


def test_comparing_names_opens_nothing(photos, monkeypatch):
    said = b'{"url": "ftp://127.0.0.1:1/a.jpg"}'
    write_tar(photos / "a.tar", ("a.jpg", b"x"), ("a.json", said))
    (photos / "l.txt").write_text("gs://bucket/a.jpg\nhttp://127.0.0.1:1/a.jpg\nftp://127.0.0.1:1/b.jpg\n")
    opened = []
    real = fsspec.core.url_to_fs
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url, **options: opened.append(url) or real(url, **options))
    monkeypatch.setattr("socket.socket.connect", lambda *arguments: pytest.fail("a connection"))
    found = find(photos / "a.tar", photos / "l.txt")
    wanted = ["ftp://127.0.0.1:1/a.jpg", "gs://bucket/a.jpg", "http://127.0.0.1:1/a.jpg"]
    assert [photograph.source for photograph in found.photographs] == wanted
    assert [(reject.source, reject.reason) for reject in found.rejects] == [("ftp://127.0.0.1:1/b.jpg", "not_allowed")]
    assert not opened


def test_pictures_of_tars_are_told_apart_whatever_they_say_of_themselves(photos):
    said = b'{"url": "https://a.org/1.jpg"}'
    for name in ("a.tar", "b.tar"):
        write_tar(photos / name, ("1.jpg", name.encode()), ("1.json", said))
    (photos / "l.txt").write_text("https://a.org/1.jpg\n")
    found = find(photos / "a.tar", photos / "l.txt", photos / "b.tar", photos / "a.tar")
    assert len({photograph.source for photograph in found.photographs}) == 3
    assert len(found.photographs) == 3


def test_a_fault_of_ours_is_the_reject_of_the_list_or_tar_that_it_befell(photos, monkeypatch):
    def fail(url):
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(sources_module, "read_archive", fail)
    write_tar(photos / "a.tar", ("1.jpg", b"x"))
    found = find(photos)
    assert len(found.photographs) == 3
    assert [(r.reason, r.source) for r in found.rejects if "notes" not in r.source] == [("internal", f"{photos}/a.tar")]


def test_a_row_of_an_inventory_that_names_no_file_is_refused_and_a_blank_one_is_passed_over(photos):
    (photos / "inventory.csv").write_text("author,file\n\n,\nB,b.JPG\n")
    assert {found.author for found in search([photos], "/elsewhere").photographs} == {"B", None}
    for row in ("C", "C,"):
        (photos / "inventory.csv").write_text(f"author,file\nB,b.JPG\n{row}\n")
        with pytest.raises(InputError, match=r"inventory\.csv: row 2 names no file"):
            search([photos], "/elsewhere")


def test_an_inventory_may_have_long_fields_and_old_line_ends(photos):
    (photos / "inventory.csv").write_bytes(b'file,author\rb.JPG,"' + b"x" * 140_000 + b'"\rdeep/er/c.webp,C\r')
    authors = {os.path.basename(p.source): p.author for p in find(photos).photographs}
    assert (len(authors["b.JPG"]), authors["c.webp"]) == (10_001, "C")
    (photos / "inventory.csv").write_text('file,author\n"b.JPG,B\n')
    with pytest.raises(InputError, match="a quotation mark in row 1 is not closed"):
        find(photos)


@pytest.mark.parametrize("name", ["photos.csv.gz", "photos.json", "photos.tsv000"])
def test_a_list_of_an_unknown_kind_is_not_taken_for_a_picture(photos, name):
    make(photos, name)
    with pytest.raises(InputError, match="no photographs") as caught:
        find(photos / name)
    assert name in str(caught.value)
