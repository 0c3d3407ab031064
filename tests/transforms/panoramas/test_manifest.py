"""The manifest: whatever the moments at which runs write it, no row is lost, and a forged one does no harm."""

import errno
import threading
import time
from functools import partial
from random import Random

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import transforms.panoramas.manifest as manifest
from model.errors import InputError
from transforms.panoramas.manifest import DONE, MANIFEST_SCHEMA, read_manifest, refused_row, write_manifest
from transforms.storage import retry
from transforms.storage.files import list_files, write_bytes
from transforms.storage.tables import write_rows

STEPS = ("write_bytes", "write_parts", "read_parts", "list_files", "exists", "remove")


def row(name, **others):
    values = {"id": name, "state": DONE, "plan": "0" * 12, "seed": 2**64 - 1, "width_px": 5, "height_px": 4}
    return {**dict.fromkeys(MANIFEST_SCHEMA.names), **values, "files": [f"panoramas/{name}.png"], **others}


def states(out):
    return {row["id"]: row["state"] for row in read_manifest(out)}


class Killed(BaseException):
    """Raised where a process is killed: none of its cleanup touches storage any more."""


class Stage:
    """A scheduler that lets threads take one step on storage at a time, in a random order, and kills some."""

    def __init__(self, seed, kills):
        self.draw, self.kills, self.turn = Random(seed), kills, threading.Condition()
        self.waiting, self.allowed, self.dead = set(), None, set()

    def step(self):
        me = threading.current_thread()
        with self.turn:
            self.waiting.add(me)
            self.turn.notify_all()
            while self.allowed is not me:
                self.turn.wait(10)
            self.allowed = None
            self.waiting.discard(me)
            if me in self.dead or (self.kills and self.draw.random() < 0.03):
                self.dead.add(me)
                raise Killed

    def run(self, *functions):
        """Runs the functions to their ends; returns those that were not killed."""
        ended = []

        def one(function):
            try:
                function()
                ended.append(function)
            except Killed:
                pass
            finally:
                with self.turn:
                    alive.discard(threading.current_thread())
                    self.turn.notify_all()

        threads = [threading.Thread(target=one, args=(function,)) for function in functions]
        alive = set(threads)
        for thread in threads:
            thread.start()
        while True:
            with self.turn:
                self.turn.wait_for(lambda: not alive or (self.allowed is None and alive <= self.waiting), 10)
                if not alive:
                    break
                self.allowed = self.draw.choice(sorted(self.waiting, key=threads.index))
                self.waiting.discard(self.allowed)
                self.turn.notify_all()
        for thread in threads:
            thread.join()
        return ended


@pytest.fixture
def stage(monkeypatch):
    """Makes stages on which each call of storage is a step."""
    monkeypatch.setattr(manifest, "ATTEMPT_AFTER_S", 0.0)
    current = []

    def staged(original):
        def call(*arguments, **named):
            if threading.current_thread() is not threading.main_thread():
                current[-1].step()
            return original(*arguments, **named)

        return call

    for name in STEPS:
        monkeypatch.setattr(manifest, name, staged(getattr(manifest, name)))

    def stage(seed, kills=False):
        current.append(Stage(seed, kills))
        return current[-1]

    return stage


@pytest.fixture
def out():
    store = fsspec.filesystem("memory")
    if store.exists("/manifests"):
        store.rm("/manifests", recursive=True)
    return "memory://manifests/out"


@pytest.mark.parametrize("kills", [False, True])
def test_whatever_the_moments_no_row_is_lost(kills, stage, monkeypatch):
    for seed in range(25):
        out = f"memory://manifests-{kills}/{seed}"
        write_manifest(out, [row("first"), refused_row("r.jsonl, request 1", "old")])
        rows = {name: row(name) for name in "abc"}
        rows["d"] = refused_row("r.jsonl, request 2", "new")
        replaces = {"d": "r.jsonl, "}
        runs = {name: partial(write_manifest, out, [rows[name]], replaces.get(name)) for name in rows}
        ended = stage(seed, kills).run(*runs.values())
        ids = {rows[name]["id"] for name, run in runs.items() if run in ended}
        assert ids | {"first"} <= set(states(out)), seed
        if runs["d"] in ended:
            assert "r.jsonl, request 1" not in states(out), seed
        if not kills:
            assert list_files(out) == ["manifest.parquet"], seed
        # An hour later nothing of the killed runs remains except their rows.
        with monkeypatch.context() as later:
            now = time.time_ns()
            later.setattr(manifest.time, "time_ns", lambda now=now: now + 2 * 3600 * 10**9)
            write_manifest(out, [row("last")])
            assert list_files(out) == ["manifest.parquet"], seed
        assert ids | {"first", "last"} <= set(states(out)), seed


def test_a_row_written_between_anothers_reading_and_writing_stays(out, monkeypatch):
    write, left = manifest.write_parts, []

    def late(path, parts, schema):
        if path.endswith(manifest.MANIFEST) and not left:
            left.append(path)
            write_manifest(out, [row("a")])
        write(path, parts, schema)

    monkeypatch.setattr(manifest, "write_parts", late)
    write_manifest(out, [row("b")])
    assert states(out) == {"a": DONE, "b": DONE}


def test_a_part_that_went_into_the_manifest_during_reading_is_found_there(out, monkeypatch):
    write_manifest(out, [row("a")])
    part = f"{out}/manifest-{time.time_ns():020d}-01234567.part"
    read, ended = manifest.read_parts, []
    write_rows(part, [row("b")], MANIFEST_SCHEMA)

    def late(path, *arguments):
        found = list(read(path, *arguments))
        if not ended:
            ended.append(path)
            write_manifest(out, [row("c")])
        return iter(found)

    monkeypatch.setattr(manifest, "read_parts", late)
    assert states(out) == {"a": DONE, "b": DONE, "c": DONE}
    assert list_files(out) == ["manifest.parquet"]


def test_a_manifest_that_is_replaced_while_a_store_is_read_is_read_again(out, monkeypatch):
    """Then what was read may be parts of two versions."""
    write_manifest(out, [row("a")])
    original, mixed = manifest.read_parts, iter([True, True, True])

    def read_parts(url, *arguments, **named):
        if next(mixed, False):
            raise InputError(f"{url} is damaged")
        return original(url, *arguments, **named)

    monkeypatch.setattr(manifest, "read_parts", read_parts)
    assert states(out) == {"a": DONE}


def test_the_last_word_counts_whatever_the_clocks_say(out, monkeypatch):
    write_bytes(f"{out}/manifest-{time.time_ns():020d}-01234567.writing", b"another run")
    write_manifest(out, [row("a", state="failed", reason="not finished", files=[])])
    monkeypatch.setattr(manifest.time, "time_ns", lambda: 10**18)
    write_manifest(out, [row("a")])
    assert states(out) == {"a": DONE}


PARTS = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["done", "failed", "refused", "gone"])), max_size=9
    ),
    max_size=5,
)


@given(PARTS, st.booleans())
@settings(max_examples=60)
def test_the_last_row_of_each_id_counts(tmp_path_factory, parts, some_are_read):
    """Parts are what runs of this version have written, sorted by id, or those of earlier versions, in any order."""
    out, expected = str(tmp_path_factory.mktemp("out")), {}
    for number, part in enumerate(parts):
        rows = {name: row(name, state=state, reason=str(number)) for name, state in part}
        path = f"{out}/manifest-{number:020d}-01234567.part"
        write_rows(
            path, rows.values() if number % 2 else sorted(rows.values(), key=lambda each: each["id"]), MANIFEST_SCHEMA
        )
        expected |= rows
        if some_are_read and number == 1:
            write_manifest(out, [])
    write_manifest(out, [])
    expected = {name: each for name, each in expected.items() if each["state"] != "gone"}
    found = read_manifest(out)
    assert [each["id"] for each in found] == sorted(expected)
    assert {each["id"]: (each["state"], each["reason"]) for each in found} == {
        name: (each["state"], each["reason"]) for name, each in expected.items()
    }
    assert list_files(out) == ["manifest.parquet"]


FORGED = (
    row("x", files=["panoramas/x.<script>alert(1)</script>"]),
    row("x", files=["panoramas/../../x.png"], state="failed", id="../x"),
    row("x", files=[]),
    row("x", files=[None]),
    row("x", id=None),
    row("x", id=""),
    row("x", state="<b>"),
    row("x", plan=None),
    row("x", plan="../../0123456789ab"),
)


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_row_is_passed_over_and_named(forged, out, capsys):
    manifest.say_once.cache_clear()
    write_manifest(out, [row("a")])
    table = pa.Table.from_pylist([row("a"), forged], schema=MANIFEST_SCHEMA)
    with fsspec.open(f"{out}/manifest.parquet", "wb") as file:
        pq.write_table(table, file)
    assert read_manifest(out) == [row("a")]
    assert f"{out}/manifest.parquet: 1 of its 2 rows are damaged and are ignored\n" in capsys.readouterr().err
    write_manifest(out, [row("b")])
    assert states(out) == {"a": DONE, "b": DONE}


def test_files_are_named_by_the_id_and_their_format(out):
    write_manifest(out, [row("a", files=["panoramas/b.png", "/etc/passwd.tif", "panoramas/a.gif"])])
    assert read_manifest(out) == [row("a", files=["panoramas/a.png", "panoramas/a.tif"])]


def test_a_damaged_part_is_passed_over(out):
    write_manifest(out, [row("a")])
    write_bytes(f"{out}/manifest-{time.time_ns():020d}-01234567.part", b"once upon a time")
    assert states(out) == {"a": DONE}
    write_manifest(out, [row("b")])
    assert states(out) == {"a": DONE, "b": DONE}
    assert list_files(out) == ["manifest.parquet"]


def test_a_part_that_storage_does_not_open_at_first_is_kept(tmp_path, monkeypatch):
    out, opened, tries = str(tmp_path), pa.OSFile, []

    def failing(path, *arguments):
        if path.endswith(".part") and len(tries) < 3:
            tries.append(path)
            raise OSError(errno.EMFILE, "Too many open files", path)
        return opened(path, *arguments)

    write_manifest(out, [row("a")])
    manifest._write_part(out, [row("b")], None, ())
    monkeypatch.setattr(retry, "WAITS_S", (0, 0, 0, 0))
    monkeypatch.setattr(pa, "OSFile", failing)
    write_manifest(out, [row("c")])
    assert states(out) == {"a": DONE, "b": DONE, "c": DONE}
    assert len(tries) == 3
