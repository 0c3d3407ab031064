"""Requests and photographs that arrive while jobs on a cluster are killed and started again."""

import itertools
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.ingest import ingest, repack
from pipelines.remote import status
from pipelines.render import render
from tests.cluster.test_orphans import wait_until
from transforms.ingest.options import IngestOptions
from transforms.panoramas.manifest import MANIFEST, read_manifest
from transforms.panoramas.requests import list_requests
from transforms.render.options import RenderOptions
from transforms.training_set.dataset import read_dataset_if_any


def write(folder, name, content):
    """Writes a file under another name and renames it."""
    (folder / f".{name}").write_bytes(content)
    (folder / f".{name}").rename(folder / name)


def requests(*rows):
    fixed = {"width_px": 96, "height_px": 64}
    return "".join(json.dumps({"id": name, "seed": seed, **fixed}) + "\n" for name, seed in rows).encode()


def states(out):
    return {row["id"]: row["state"] for row in read_manifest(str(out))} if (out / MANIFEST).exists() else {}


def noted(out):
    return {line.split("/")[-1] for path in (out / "watched").glob("*.txt") for line in path.read_text().splitlines()}


@pytest.mark.timeout(400)
def test_requests_are_rendered_once_whatever_is_killed(cluster, tiny_checkpoint, tmp_path, contents):
    inside, out = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    words = ("render", "--watch", inside, "--out", out, "--checkpoint", tiny_checkpoint, "--tiles-per-shard=1")
    numbers = itertools.count()

    def more(files=3):
        names = [f"{number}.jsonl" for number in itertools.islice(numbers, files)]
        for name in names:
            write(inside, name, requests((f"{name[:-6]}-a", 1), (f"{name[:-6]}-b", 2), ("shared", len(name))))
        return names

    for kill in ("submitter", "workers"):
        watch = cluster.start(*words)
        names = more()
        wait_until(lambda names=names: noted(out) & set(names), "a file is handled")
        more()
        if kill == "submitter":
            watch.send(signal.SIGKILL)
            watch.end(30)
            assert cluster.states()[0] == "RUNNING", "the job goes on alone"
        else:
            for worker in cluster.workers():
                os.kill(worker, signal.SIGKILL)
            late = time.monotonic() + 20
            while not watch.ended and time.monotonic() < late:
                time.sleep(0.1)
            if not watch.ended:  # Prism does not always see that a worker is gone
                watch.send(signal.SIGINT)
            code, said = watch.end(60)
            assert code in (0, 1)
            assert "Traceback" not in said
    watch = cluster.start(*words)
    last = more()
    wait_until(lambda: noted(out) >= {f"{number}.jsonl" for number in range(15)}, f"{noted(out)}, {last}")
    watch.send(signal.SIGINT)
    code, said = watch.end(60)
    assert (code, "Traceback" in said) == (0, False)
    wait_until(lambda: "RUNNING" not in cluster.states(), "the jobs that were left are ended")

    there = states(out)
    panoramas = {f"{number}-{letter}" for number in range(15) for letter in "ab"} | {"shared"}
    assert {name for name, state in there.items() if state == "done"} == panoramas
    assert all(state == "refused" for name, state in there.items() if name not in panoramas)
    rows = [row for file in sorted(inside.glob("*.jsonl")) for row in list_requests(str(file)) if row.id != "shared"]
    shared = {row.id: row for row in list_requests(str(inside / "0.jsonl"))}["shared"]
    expected = tmp_path / "expected"
    render(RenderOptions((*rows, shared), str(expected), tiny_checkpoint, tiles_per_shard=1))
    written = {name: content for name, content in contents(out / "panoramas").items() if ".tmp-" not in name}
    mine, theirs = (
        {name: content for name, content in some.items() if not name.startswith("shared")}
        for some in (written, contents(expected / "panoramas"))
    )
    assert mine == theirs


def test_a_panorama_is_finished_soon_after_its_request_arrives(cluster, tiny_checkpoint, tmp_path):
    inside, out = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    watch = cluster.start("render", "--watch", inside, "--out", out, "--checkpoint", tiny_checkpoint)
    write(inside, "first.jsonl", requests(("first", 1)))
    wait_until(lambda: "first.jsonl" in noted(out), "the job is at work")
    write(inside, "second.jsonl", requests(("second", 2)))
    start = time.monotonic()
    wait_until((out / "panoramas" / "second.json").exists, "the panorama is finished")
    assert time.monotonic() - start < 10
    line, failed = status(str(out))
    assert not failed
    assert "RUNNING; " in line
    assert "request files 1" in line
    watch.send(signal.SIGTERM)
    assert watch.end(60)[0] == 0


def test_photographs_are_taken_once_whatever_is_killed(cluster, tmp_path):
    inside, out, expected = tmp_path / "in", tmp_path / "set", tmp_path / "expected"
    inside.mkdir()
    words = ("ingest", "--watch", inside, "--out", out, "--shard-minutes=0.01", "--dedup=off")

    def photograph(seed):
        noise = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8)
        path = Path(inside / f".{seed}.png")
        Image.fromarray(noise).resize((300, 200), Image.Resampling.BICUBIC).save(path)
        path.rename(inside / f"{seed}.png")

    def size():
        dataset = read_dataset_if_any(str(out))
        return sum(dataset["samples"].values()) if dataset else 0

    for seed in range(4):
        photograph(seed)
    watch = cluster.start(*words)
    wait_until(lambda: size() == 4, "the first photographs are taken")
    photograph(4)
    wait_until((out / ".staging").exists, "the next job begins")
    watch.send(signal.SIGKILL)
    watch.end(30)
    photograph(5)
    watch = cluster.start(*words)
    wait_until(lambda: size() == 6, "the rest is taken")
    watch.send(signal.SIGINT)
    code, said = watch.end(90)
    assert (code, "Traceback" in said) == (0, False)
    assert not (out / ".staging").exists()
    ingest(IngestOptions((str(inside),), str(expected), dedup="off", samples_per_shard=1000))
    repack(str(out), 1000)
    for shard in expected.glob("*.tar"):
        assert (out / shard.name).read_bytes() == shard.read_bytes()
