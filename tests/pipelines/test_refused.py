"""Requests that cannot be rendered become rows of the manifest with their reasons, while the others are rendered."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from pipelines.cli import run
from pipelines.render import render
from transforms.panoramas.manifest import read_manifest
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.render.synthesize import PATCHES_DONE

GOOD = (
    {"id": "a", "seed": 7, "width_px": 100, "height_px": 70},
    {"id": "b", "seed": 8, "width_px": 64, "height_px": 64, "formats": ["tif", "png"]},
)
SIZE = {"seed": 7, "width_px": 40, "height_px": 30}
BAD = (
    ({"id": "narrow", **SIZE, "width_px": 0}, "narrow", "width_px is 0; it must be at least 1"),
    ({"id": "text", **SIZE, "height_px": "tall"}, "text", "height_px is 'tall'; it must be a whole number"),
    ({"id": "red", **SIZE, "colour": "red"}, "red", "unknown field 'colour'"),
    ({"id": "no-seed", "width_px": 1, "height_px": 1}, "no-seed", "seed is missing"),
    ({"id": "lost", **SIZE, "checkpoint": "none.safetensors"}, "lost", "none.safetensors: there is no such file"),
    ({"id": "foreign", **SIZE, "checkpoint": __file__}, "foreign", "is not an InfinityGAN checkpoint"),
    ({"id": "wide", **SIZE, "width_px": 70_000, "formats": ["jpg"]}, "wide", "format jpg holds at most 65500"),
    ({"id": "odd", **SIZE, "formats": ["gif"]}, "odd", "format 'gif' is unknown"),
    ({"id": "far", **SIZE, "origin_x_px": 2**40}, "far", "leaves the world"),
    ({"id": "laid", **SIZE, "overlays": ["none.overlay"]}, "laid", "none.overlay"),
    ({"id": "port", **SIZE, "overlays": ["http://a:99999/o"]}, "port", "overlay http://a:99999/o cannot be read"),
    ({"id": "round", **SIZE, "cyclic": True}, "round", "request round: "),
    ({"id": "a", **SIZE}, None, "request id a occurs twice; each panorama needs its own"),
    ({"id": "b", **SIZE, "width_px": -1}, None, "width_px is -1"),
    ({"id": "up/../there", **SIZE}, None, "request id 'up/../there': use 1 to 200 of the characters"),
    (SIZE, None, "id is missing"),
    ("not an object", None, "it is not an object with fields"),
)


@pytest.fixture
def job(tiny_checkpoint, tmp_path):
    """Runs a job on the rows of requests.jsonl; returns its exit code."""

    def job(rows, *flags, name="requests.jsonl"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (tmp_path / name).write_bytes(b"\n".join(lines))
        words = [f"--requests={tmp_path / name}", f"--out={tmp_path / 'out'}", f"--checkpoint={tiny_checkpoint}"]
        return run(["render", *words, "--tile=64", *flags])

    return job


def reasons(folder):
    """Returns the state and reason of each row of the manifest."""
    return {row["id"]: (row["state"], row["reason"]) for row in read_manifest(str(folder))}


def test_the_others_are_rendered_and_each_refusal_is_a_row(job, tiny_checkpoint, contents, tmp_path, capsys):
    rows = [GOOD[0], *(row for row, _, _ in BAD), b'{"id": "cut', GOOD[1]]
    assert job(rows) == 1
    said = " ".join(capsys.readouterr().err.split())
    found = reasons(tmp_path / "out")
    expected = [(name or f"requests.jsonl, request {place}", part) for place, (_, name, part) in enumerate(BAD, 2)]
    expected.append((f"requests.jsonl, request {len(BAD) + 2}", f"line {len(BAD) + 2} is not JSON"))
    assert set(found) == {"a", "b", *(name for name, _ in expected)}
    assert found["a"] == found["b"] == ("done", None)
    for name, part in expected:
        state, reason = found[name]
        assert state == "refused"
        assert part in reason
        assert f"{name}: {reason}" in said
    alone = tmp_path / "alone"
    render(RenderOptions(tuple(map(RenderRequest.from_json, GOOD)), str(alone), tiny_checkpoint, 64))
    unlike = ("manifest.parquet", "index.html")
    made, wanted = ({n: c for n, c in contents(out).items() if n not in unlike} for out in (tmp_path / "out", alone))
    assert made == wanted
    page = (tmp_path / "out" / "index.html").read_text()
    assert f"2 of {len(BAD) + 3} panoramas are done" in page
    assert "occurs twice" in page


def test_a_corrected_row_is_rendered_by_the_same_command_and_nothing_else_is(job, tmp_path):
    assert job([GOOD[0], {"id": "c", **SIZE, "width_px": 0}, SIZE, {"id": "a", **SIZE}]) == 1
    names = ["requests.jsonl, request 3", "requests.jsonl, request 4"]
    assert set(reasons(tmp_path / "out")) == {"a", "c", *names}
    assert job([GOOD[0], {"id": "c", **SIZE}, SIZE, {"id": "d", **SIZE}]) == 1
    found = reasons(tmp_path / "out")
    assert found.pop(names[0])[0] == "refused"
    assert found == dict.fromkeys("acd", ("done", None))
    assert PATCHES_DONE.count == 4
    assert job([GOOD[0], {"id": "c", **SIZE}, {"id": "e", **SIZE}, {"id": "d", **SIZE}]) == 0
    assert reasons(tmp_path / "out") == dict.fromkeys("acde", ("done", None))


def test_a_refusal_takes_no_row_from_a_panorama_or_another_file(job, tmp_path, contents):
    assert job([GOOD[0], SIZE], name="first.jsonl") == 1
    before, (row, _) = contents(tmp_path / "out"), read_manifest(str(tmp_path / "out"))
    assert job([{**GOOD[0], "seed": 8}, {"id": "a", "seed": 7}, GOOD[1]], name="second.jsonl") == 1
    found = reasons(tmp_path / "out")
    assert read_manifest(str(tmp_path / "out"))[0] == row
    assert {name for name, (state, _) in found.items() if state == "refused"} == {
        "first.jsonl, request 2",
        "second.jsonl, request 1",
        "second.jsonl, request 2",
    }
    assert "already holds panorama a with another plan" in found["second.jsonl, request 1"][1]
    assert found["b"] == ("done", None)
    unlike = ("manifest.parquet", "index.html")
    assert {n: c for n, c in before.items() if n not in unlike}.items() <= contents(tmp_path / "out").items()
    assert job([{**GOOD[0], "seed": 8}, GOOD[1]], "--replace", name="second.jsonl") == 0
    assert set(reasons(tmp_path / "out")) == {"a", "b", "first.jsonl, request 2"}


def test_a_dry_run_lists_every_refusal_and_writes_nothing(job, tmp_path, capsys):
    bad = [{"id": f"bad-{number}", **SIZE, "width_px": 0} for number in range(30)]
    assert job([GOOD[0], *bad, {"id": "lost", **SIZE, "checkpoint": "none"}, GOOD[1]], "--dry-run") == 2
    said = " ".join(capsys.readouterr().err.split())
    for number in range(30):
        assert f"bad-{number}: request bad-{number}: width_px is 0" in said
    assert re.search(r"lost: checkpoint \S*/none: there is no such file", said)
    assert "panoramas │ 2, of which 0 are done" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_where_no_request_can_be_rendered_nothing_is_written(flags, job, tmp_path, capsys):
    assert job([SIZE, b"{", {"id": "c", **SIZE, "checkpoint": "none"}], *flags) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "infinitygan: requests.jsonl: none of its 3 requests can be rendered; "
        "requests.jsonl, request 1: request without an id: id is missing"
    )
    assert len(said) == (4 if flags else 1)
    assert job([GOOD[0], GOOD[1]], "--tile=100", *flags) == 2
    assert "none of its 2 requests can be rendered; a: --tile 100: give a multiple of 16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_spreadsheets_bad_rows_stop_no_other(job, tiny_checkpoint, tmp_path):
    with open(tmp_path / "r.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["id", "seed", "width_px", "height_px", "formats"],
                ["a", 7, 100, 70, "png"],
                ["b", "", 100, 70, "png"],
                ["", 7, 100, 70, "png"],
                ["c", 7, "1OO", 70, "png"],
                ["d", 8, 64, 64, "png"],
                ["d", 9, 64, 64, "png"],
            ]
        )
    words = [f"--requests={tmp_path / 'r.csv'}", f"--out={tmp_path / 'out'}", f"--checkpoint={tiny_checkpoint}"]
    assert run(["render", *words, "--tile=64"]) == 1
    states = {name: state for name, (state, _) in reasons(tmp_path / "out").items()}
    refused = dict.fromkeys(("b", "c", "r.csv, request 3", "r.csv, request 6"), "refused")
    assert states == {"a": "done", "d": "done", **refused}
    with Image.open(tmp_path / "out" / "panoramas" / "d.png") as image:
        assert np.asarray(image).shape == (64, 64, 3)


def test_other_formats_are_made_of_what_was_rendered(job, tmp_path, capsys):
    assert job([GOOD[0], {"id": "c", **SIZE, "width_px": 0}]) == 1
    assert run(["assemble", str(tmp_path / "out"), "--format=jpg"]) == 0
    assert reasons(tmp_path / "out")["c"][0] == "refused"
    assert (tmp_path / "out" / "panoramas" / "a.jpg").exists()
    capsys.readouterr()
    assert run(["assemble", str(tmp_path / "out"), "--format=jpg", "--id=c"]) == 2
    assert "--id c: " in capsys.readouterr().err
