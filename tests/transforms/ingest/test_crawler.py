"""The outcomes of single photographs: wherever they are and whatever happens, each has one."""

import asyncio
import io
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from finding import write_plan
from PIL import Image

from model.errors import InputError
from transforms.ingest import crawler
from transforms.ingest.batches import read_rows, read_staged
from transforms.ingest.crawler import crawl
from transforms.photographs.prepare import Preparation
from transforms.sources import fetch
from transforms.sources.manners import Manners
from transforms.training_set.records import Photograph, Reject
from transforms.workers.sight import look

MANNERS = Manners(host_rate=1e4, deadline_s=2, attempts=2, allow_private=True)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_PAUSE_S", 0.01)


def jpeg(seed=0):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((320, 200), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def outcomes(tmp_path, *sources, manners=MANNERS):
    """Returns the reason of each source's reject, or "kept"."""
    found = crawled(tmp_path, [Photograph(source) for source in sources], manners)
    return [getattr(item, "reason", "kept") for item in found]


def crawled(tmp_path, photographs, manners=MANNERS, sight=None):
    """Returns for each photograph its row or its reject."""
    out = str(tmp_path / "out")
    plan = write_plan(out, photographs)
    crawl(range(plan.shares), plan.shares_of_files, out, Preparation(content_filters=False), manners, sight=sight)
    found = {}
    for staged in (staged for share in range(plan.shares) for staged in read_staged(out, share)):
        rows = {row.sample["source"]: row for row in read_rows(out, staged.records)}
        assert rows.keys() | {reject.source for reject in staged.rejects} == staged.sources
        found |= rows | {reject.source: reject for reject in staged.rejects}
    assert found.keys() == {photograph.source for photograph in photographs}
    return [found[photograph.source] for photograph in photographs]


PAGES = {
    "same name": (b'<img src="/logo.png"><a href="/images/Lake.jpg"><img src="/t/120px-Lake.jpg"></a>', "kept"),
    "only one": (b'<p>x<img src="/images/Lake.jpg?w=1">', "kept"),
    "none": (b"<p>Please log in", "not_a_picture"),
    "which": (b'<img src="/a.jpg"><img src="/b.jpg">', "not_a_picture"),
    "opt-out": (b'<meta name="robots" content="noai"><img src="/images/Lake.jpg">', "opt_out"),
    "itself": (b'<img src="/wiki/File:Lake.jpg"><img src="/a.jpg">', "not_a_picture"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_by_a_pictures_name_leads_to_the_picture_that_it_is_about(web_server, tmp_path, name):
    page, outcome = PAGES[name]
    web_server.routes |= {"/wiki/File:Lake.jpg": page, "/images/Lake.jpg": jpeg()}
    assert outcomes(tmp_path, f"{web_server.url}/wiki/File:Lake.jpg") == [outcome]
    assert web_server.asked("/images/Lake.jpg") == (outcome == "kept")


def test_a_picture_that_is_called_a_page_is_a_picture(web_server, tmp_path):
    web_server.routes["/a.jpg"] = (200, {"Content-Type": "text/html; charset=utf-8"}, jpeg())
    assert outcomes(tmp_path, f"{web_server.url}/a.jpg") == ["kept"]


def test_a_fault_of_ours_is_the_reject_of_the_item_it_befell(web_server, tmp_path, monkeypatch):
    def prepare(photograph, *rest):
        if photograph.source.endswith("b.jpg"):
            raise KeyError("nobody foresaw this")
        return real(photograph, *rest)

    real = crawler.prepare_photograph
    monkeypatch.setattr(crawler, "prepare_photograph", prepare)
    web_server.routes |= {f"/{name}.jpg": jpeg(number) for number, name in enumerate("abc")}
    (tmp_path / "b.jpg").write_bytes(jpeg(7))
    urls = [f"{web_server.url}/{name}.jpg" for name in "abc"]
    assert outcomes(tmp_path, *urls, str(tmp_path / "b.jpg")) == ["kept", "internal", "kept", "internal"]
    faults = [path.read_text() for path in (tmp_path / "out" / "faults").iterdir()]
    assert faults
    assert all("nobody foresaw this" in fault for fault in faults)


@pytest.mark.parametrize("scheme", ["webhdfs", "ftp", "sftp", "smb", "simplecache::http", "jupyter"])
def test_what_a_list_must_not_name_is_not_connected_to(tmp_path, scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        assert outcomes(tmp_path, f"{scheme}://u:S3CRET@127.0.0.1:{port}/x.jpg") == ["not_allowed"]
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("user", ["[a:b]", "[::1%25x]", "[1:]", "a[:]"])
def test_a_url_that_cannot_be_read_is_not_read_in_another_way(web_server, tmp_path, user):
    web_server.routes["/x.jpg"] = jpeg()
    url = f"http://{user}@127.0.0.1:{web_server.port}/x.jpg"
    assert outcomes(tmp_path, url, manners=Manners(allow_private=False)) == ["bad_url"]
    assert web_server.log == []


@pytest.mark.parametrize("place", ["[a:b]", "[::1", "[]", "127.0.0.1:99999", "127.0.0.1:x"])
def test_a_web_url_that_cannot_be_asked_for_is_left_to_no_other_file_system(tmp_path, place, monkeypatch):
    monkeypatch.setattr(crawler, "read_photograph", lambda *_: pytest.fail("it is read from a file system"))
    assert outcomes(tmp_path, f"http://{place}/x.jpg") == ["bad_url"]


def test_a_folder_that_is_missing_costs_its_own_photographs_alone(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    photographs = [Photograph(str(tmp_path / name)) for name in ("gone/b.jpg", "a.jpg", "\0/c.jpg")]
    for sight in (None, look([photographs[1].url])):
        found = crawled(tmp_path, photographs, sight=sight)
        assert [getattr(item, "reason", "kept") for item in found] == ["unreadable", "kept", "unreadable"]
        shutil.rmtree(tmp_path / "out")


def test_a_folder_that_a_worker_no_longer_sees_costs_no_photograph(tmp_path):
    (tmp_path / "mounted").mkdir()
    photograph = Photograph(str(tmp_path / "mounted" / "a.jpg"))
    Path(photograph.url).write_bytes(jpeg())
    sight = look([photograph.url])
    shutil.rmtree(tmp_path / "mounted")
    with pytest.raises(InputError, match=f"does not see {photograph.url}"):
        crawled(tmp_path, [photograph], sight=sight)


def test_devices_pipes_and_sockets_are_rejects_at_once(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        (tmp_path / "link.jpg").symlink_to("/dev/zero")
        places = [str(tmp_path / name) for name in ("a.jpg", "pipe.jpg", "socket.jpg", "link.jpg")]
        photographs = [Photograph(place) for place in (*places, "/dev/zero", f"file://{places[1]}")]
        kept, *rejects = crawled(tmp_path, photographs)
    assert not isinstance(kept, Reject)
    assert {(reject.reason, reject.attempts) for reject in rejects} == {("unreadable", 1)}
    assert all("it is a device, pipe or socket" in reject.message for reject in rejects)


def test_passwords_and_tokens_are_sent_and_not_stored(web_server, tmp_path):
    async def guarded(request):
        known = "Authorization" in request.headers and request.query.get("token") == "T0KEN"
        return jpeg() if known else (403, {}, b"")

    web_server.routes |= {"/a.jpg": guarded, "/robots.txt": b"User-agent: *\nDisallow: /no\n"}
    base = web_server.url.replace("//", "//alice:S3CRET@")
    paths = ("a.jpg?token=T0KEN", "no.jpg?token=T0KEN", "gone.jpg?token=T0KEN", "b[.jpg?token=T0KEN")
    found = crawled(tmp_path, [Photograph(f"{base}/{path}", title="x") for path in paths])
    shutil.rmtree(tmp_path / "out" / ".staging" / "plan")
    assert [getattr(item, "reason", "kept") for item in found] == ["kept", "robots", "not_found", "not_found"]
    stored = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert stored
    assert not any(secret in content for content in stored for secret in (b"S3CRET", b"T0KEN", b"alice"))


def test_a_photograph_keeps_what_it_takes_to_ask_for_it_again(tmp_path):
    photograph = Photograph("http://alice:S3CRET@h/a.jpg?w=1", author="caf\udce9")
    assert (photograph.source, photograph.url) == ("http://h/a.jpg?w=1", "http://alice:S3CRET@h/a.jpg?w=1")
    assert Photograph.from_json(json.loads(json.dumps(photograph.to_json()))) == photograph
    photograph.author.encode()
    reject = photograph.reject("fetch", "robots", "http://alice:S3CRET@h/robots.txt forbids it")
    assert "S3CRET" not in repr(reject)
    assert Photograph("/photos/a.jpg?token=x").url == Photograph("/photos/a.jpg?token=x").source


def test_no_photograph_is_lost_if_the_crawl_ends_while_a_batch_waits_for_the_writer(tmp_path, monkeypatch):
    real = crawler._Crawl._in

    async def late(self, pool, function, *arguments):
        if function is crawler.stage:
            await asyncio.sleep(0.05)
        return await real(self, pool, function, *arguments)

    monkeypatch.setattr(crawler._Crawl, "_in", late)
    monkeypatch.setattr(crawler, "STAGE_EVERY_S", 0.001)
    monkeypatch.setattr(crawler, "prepare_photograph", lambda photograph, *rest: photograph.reject("read", "x", "x"))
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert len(crawled(tmp_path, [Photograph(f"{tmp_path}/{'./' * number}a.jpg") for number in range(1, 30)])) == 29
