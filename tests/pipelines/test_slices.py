"""`render --slice`: machines without a common runner share the requests of one file, each by the same command."""

import json
import signal

import forks
import pytest

from pipelines.cli import run
from transforms.panoramas.manifest import read_manifest

COUNT = 16
MAIN = "from pipelines.cli import main; main(['render', *sys.argv[1:]])"
KILLED_HALF_WAY = f"""
import os, transforms.panoramas.patch_shards as shards
original, seen = shards.wds.TarWriter.write, []
def write(tar, sample):
    seen.append(1)
    if len(seen) == 6:
        os.kill(os.getpid(), {signal.SIGKILL:d})
    return original(tar, sample)
shards.wds.TarWriter.write = write
{MAIN}
"""
SIZES = ((64, 64), (96, 64), (64, 128))
REFUSED = (
    {"id": "too-small", "seed": 1, "width_px": 0, "height_px": 64},
    {"seed": 1, "width_px": 64, "height_px": 64},
    {"id": "p-01", "seed": 9, "width_px": 64, "height_px": 64},
    ["not an object"],
)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def good():
    sizes = (SIZES[number % len(SIZES)] for number in range(12))
    return [{"id": f"p-{i:02}", "seed": i, "width_px": w, "height_px": h} for i, (w, h) in enumerate(sizes)]


@pytest.fixture(scope="module")
def words(good, tiny_checkpoint, tmp_path_factory):
    """Returns a command's words; of its 16 requests four are refused: two lack an id, one has another's."""
    requests = write(tmp_path_factory.mktemp("requests") / "requests.jsonl", [*good, *REFUSED])
    return lambda out, *more: (f"--requests={requests}", f"--checkpoint={tiny_checkpoint}", f"--out={out}", *more)


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory, contents):
    """The contents of a folder that one command has made."""
    out = tmp_path_factory.mktemp("whole")
    assert run(["render", *words(out)]) == 1
    return contents(out)


def test_sixteen_slices_at_once_make_what_one_command_makes(words, whole, contents, tmp_path):
    slices = [forks.Fork(MAIN, *words(tmp_path, f"--slice={number}/{COUNT}")) for number in range(COUNT)]
    ends = [each.end() for each in slices]
    assert {code for code, _ in ends} == {0, 1}, ends
    assert sum(code for code, _ in ends) <= len(REFUSED)
    assert contents(tmp_path) == whole


def test_a_slice_that_was_killed_beside_the_others_is_run_again(words, whole, contents, tmp_path):
    killed = forks.Fork(KILLED_HALF_WAY, *words(tmp_path, "--slice=1/2"))
    other = forks.Fork(MAIN, *words(tmp_path, "--slice=2/2"))
    assert killed.end()[0] == -signal.SIGKILL
    assert other.end()[0] in (0, 1)
    assert contents(tmp_path)["manifest.parquet"] != whole["manifest.parquet"]
    run(["render", *words(tmp_path, "--slice=1/2")])
    assert {name: content for name, content in contents(tmp_path).items() if ".tmp-" not in name} == whole


def test_more_slices_than_requests(good, tiny_checkpoint, contents, tmp_path, capsys):
    few = write(tmp_path / "few.jsonl", good[:2])
    words = [f"--requests={few}", f"--checkpoint={tiny_checkpoint}"]
    assert run(["render", *words, f"--out={tmp_path / 'whole'}"]) == 0
    capsys.readouterr()
    assert [run(["render", *words, f"--out={tmp_path / 'out'}", f"--slice={n}/5"]) for n in range(5)] == [0] * 5
    assert capsys.readouterr().err.count("No request belongs to slice ") >= 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_row_that_was_corrected_leaves_no_refusal_whatever_its_slice(good, tiny_checkpoint, tmp_path):
    for slices in (["1/1"], ["0/3", "1/3", "2/3"]):
        out = tmp_path / str(len(slices))
        for rows in ([good[0], *REFUSED], [good[0], good[1], REFUSED[1]]):
            words = [f"--requests={write(tmp_path / 'requests.jsonl', rows)}", f"--checkpoint={tiny_checkpoint}"]
            for each in slices:
                assert run(["render", *words, f"--out={out}", "--replace", f"--slice={each}"]) in (0, 1)
    by_one, by_three = (read_manifest(str(tmp_path / name)) for name in "13")
    assert by_three == by_one
    assert [row["id"] for row in by_one] == ["p-00", "p-01", "requests.jsonl, request 3", "too-small"]


@pytest.mark.parametrize("text", ["17/16", "third", "1/0"])
def test_a_bad_value_is_one_line_and_exit_code_2(text, words, tmp_path, capsys):
    assert run(["render", *words(tmp_path / "out", f"--slice={text}")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"infinitygan: --slice {text}: give ")
    assert not (tmp_path / "out").exists()


def test_a_task_of_an_array_says_what_it_renders(words, tmp_path, capsys, monkeypatch):
    """Without --slice it renders all: tasks may have requests of their own."""
    for name, value in {"ID": 5, "MIN": 4, "MAX": 6, "STEP": 1, "COUNT": 3}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    run(["render", *words(tmp_path, "--slice=auto", "--dry-run")])
    assert "Renders slice 1/3 of the requests (SLURM_ARRAY_TASK_ID=5)" in capsys.readouterr().err.splitlines()
    run(["render", *words(tmp_path, "--dry-run")])
    said = capsys.readouterr().err
    assert "SLURM_ARRAY_TASK_ID=5: renders all requests; with --slice auto the tasks share them" in said.splitlines()
