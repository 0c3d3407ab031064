"""Jobs on real object stores on this machine, whose calls fail now and then, and jobs killed at any moment."""

import json
import random
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import forks
import fsspec
import pytest

import transforms.storage.retry
from pipelines.assemble import assemble
from pipelines.render import render
from transforms.panoramas.manifest import read_manifest
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.render.synthesize import PATCHES_DONE

REQUESTS = (
    RenderRequest(id="p", seed=7, width_px=300, height_px=150, formats=("png", "tif")),
    RenderRequest(id="q", seed=8, width_px=100, height_px=70, formats=("dzi", "jpg", "zarr")),
)
TILES = 24


def options_for(out, checkpoint, **others):
    return RenderOptions(REQUESTS, str(out), checkpoint, 64, 4, **others)


def words_for(folder, checkpoint):
    """Returns the command line of the job, writing to `out` in a folder."""
    requests = folder / "requests.jsonl"
    requests.write_text("".join(json.dumps(request.to_json()) + "\n" for request in REQUESTS))
    return ["render", f"--requests={requests}", f"--out={folder / 'out'}", f"--checkpoint={checkpoint}", "--tile=64"]


@pytest.fixture(scope="module")
def rendered(tiny_checkpoint, tmp_path_factory):
    """Renders a job to disk; tests must not change the result."""
    out = tmp_path_factory.mktemp("rendered")
    assert [row["state"] for row in render(options_for(out, tiny_checkpoint))] == ["done", "done"]
    return out


def contents_of(url):
    """Returns the bytes of all files below a URL, by relative path."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {name.removeprefix(f"{path}/"): fs.cat_file(name) for name in fs.find(path)}


def test_a_bucket_holds_what_a_folder_would(bucket, tiny_checkpoint, rendered, contents):
    out = f"{bucket}/whole"
    assert [row["state"] for row in render(options_for(out, tiny_checkpoint))] == ["done", "done"]
    assert contents_of(out) == contents(rendered)
    render(options_for(out, tiny_checkpoint))
    assert PATCHES_DONE.count == 0
    fs, path = fsspec.core.url_to_fs(out)
    shard = fs.glob(f"{path}/patches/p/*/00-03.tar")[0]
    fs.pipe_file(shard, fs.cat_file(shard)[:3000])
    render(options_for(out, tiny_checkpoint, repair=True))
    assert PATCHES_DONE.count == 4
    assert contents_of(out) == contents(rendered)
    assert [row["state"] for row in assemble(out, ["png"], ["q"])] == ["done"]
    assert f"{path}/panoramas/q.png" in fs.find(path)


def test_one_call_in_twenty_may_fail(bucket, tiny_checkpoint, rendered, contents, monkeypatch):
    """Calls are lost before they reach the store, or after the store has done the work."""
    draw, lost = random.Random(1), []
    fs, _ = fsspec.core.url_to_fs(bucket)
    monkeypatch.setattr(transforms.storage.retry, "WAITS_S", (0.0,) * 6)
    for name in ("_call",) if bucket.startswith("gs") else ("_call_s3",):
        original = getattr(type(fs), name)

        async def call(self, *arguments, original=original, **named):
            late = draw.random() < 0.5
            if draw.random() < 0.05:
                lost.append(arguments[:2])
                if late:
                    await original(self, *arguments, **named)
                raise TimeoutError("the store did not answer")
            return await original(self, *arguments, **named)

        monkeypatch.setattr(type(fs), name, call)
    out = f"{bucket}/failing"
    rows = render(options_for(out, tiny_checkpoint))
    monkeypatch.undo()
    assert len(lost) > 3
    assert [(row["state"], row["reason"]) for row in rows] == [("done", None)] * 2
    assert contents_of(out) == contents(rendered)


def test_two_copies_of_a_job_at_once_do_each_other_no_harm(bucket, tiny_checkpoint, rendered, contents):
    out = f"{bucket}/twice"
    with ThreadPoolExecutor(2) as pool:
        copies = [pool.submit(render, options_for(out, tiny_checkpoint)) for _ in range(2)]
    assert [[row["state"] for row in copy.result()] for copy in copies] == [["done", "done"]] * 2
    assert contents_of(out) == contents(rendered)


def test_whatever_the_moment_of_death_nothing_finished_is_lost(tiny_checkpoint, rendered, contents, tmp_path):
    """Killed at random moments and started again each time, the job ends with the same bytes."""
    words, out, draw = words_for(tmp_path, tiny_checkpoint), tmp_path / "out", random.Random(2)
    program = (
        "import sys, threading, os, signal, random\n"
        "from pipelines.cli import run\n"
        "import transforms.render.find_work as steps\n"
        "original = steps.write_manifest\n"
        "def killed(*arguments, **named):\n"
        "    threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
        "    original(*arguments, **named)\n"
        "steps.write_manifest = killed\n"
        "sys.exit(run(sys.argv[2:]))\n"
    )
    before, kept, kills = {}, 0, 0
    for _ in range(3):
        code, said = forks.run(program, draw.uniform(0.05, 1.2), *words, "--tiles-per-shard=1")
        assert code in (0, -signal.SIGKILL), said
        kills += code != 0
        now = {name: content for name, content in contents(out).items() if ".tmp-" not in name}
        lasting = {name: now.get(name) for name in before if name.endswith((".tar", ".png", ".tif", ".jpg", ".dzi"))}
        assert lasting == {name: before[name] for name in lasting}
        if (out / "manifest.parquet").exists() or lasting or any(name.endswith(".tar") for name in now):
            assert {row["id"] for row in read_manifest(str(out))} == {"p", "q"}
        before, kept = now, len(now)
    assert kills
    assert kept
    rows = render(RenderOptions(REQUESTS, str(out), tiny_checkpoint, 64, 1))
    assert [row["state"] for row in rows] == ["done", "done"]
    made = {name: content for name, content in contents(out).items() if not re.search(r"\.tmp-|manifest-", name)}
    expected = {name: content for name, content in contents(rendered).items() if not name.startswith("patches")}
    assert {name: made[name] for name in made if not name.startswith("patches")} == expected
    assert sum(name.endswith(".tar") for name in made) == TILES


def test_where_there_is_no_room_what_is_smaller_is_made_and_the_next_run_makes_the_rest(
    tiny_checkpoint, rendered, contents, tmp_path
):
    """The system enforces a limit: writing more to one file fails, as on a full disk."""
    expected = contents(rendered)
    largest_bytes = sorted(len(content) for name, content in expected.items() if name.endswith(".tar"))[2]

    program = (
        "import resource, sys\n"
        "from pipelines.cli import run\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_bytes}, resource.RLIM_INFINITY))\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    code, said = forks.run(program, *words_for(tmp_path, tiny_checkpoint), "--tiles-per-shard=4")
    assert code == 1, said
    made = contents(tmp_path / "out")
    assert not [name for name in made if ".tmp-" in name]
    told = ("manifest.parquet", "index.html")
    assert {name: made[name] for name in made if name not in told}.items() <= expected.items()
    kept = [name for name in made if name.endswith(".tar")]
    assert 0 < len(kept) < sum(name.endswith(".tar") for name in expected)
    failed = [row for row in read_manifest(str(tmp_path / "out")) if row["state"] == "failed"]
    assert failed
    assert all("patches are missing" in row["reason"] and "File too large" in row["reason"] for row in failed)
    assert [row["state"] for row in render(options_for(tmp_path / "out", tiny_checkpoint))] == ["done", "done"]
    assert contents(tmp_path / "out") == expected
    assert 0 < PATCHES_DONE.count < TILES
