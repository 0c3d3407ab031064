"""Run folders hold one run each, and nothing beyond the state to resume from."""

import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image

from model.config import PRESETS, RECIPES
from model.errors import InputError
from transforms.training.run_folder import RunFolder, state_beside

SETTINGS = {
    "preset": "tiny",
    "generator": dataclasses.asdict(PRESETS["tiny"]),
    "training": dataclasses.asdict(RECIPES["paper"]),
}


def test_a_run_is_begun_once(tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    folder.begin(SETTINGS, resume=False)
    with pytest.raises(InputError, match="--resume"):
        folder.begin(SETTINGS, resume=False)


@pytest.mark.parametrize("name", ["config.json", "training.safetensors", "checkpoint.safetensors"])
def test_a_run_that_lost_a_file_is_not_overwritten(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match="already holds a run"):
        RunFolder(str(tmp_path)).begin(SETTINGS, resume=False)


def test_a_run_without_its_configuration_or_state_says_which_is_missing(tmp_path):
    (tmp_path / "training.safetensors").touch()
    with pytest.raises(InputError, match=r"config\.json is missing; copy it back"):
        RunFolder(str(tmp_path)).begin(SETTINGS, resume=True)
    (tmp_path / "training.safetensors").unlink()
    with pytest.raises(InputError, match=r"training\.safetensors is missing\); remove it and start again"):
        RunFolder(str(tmp_path)).read_state()
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(InputError, match=r"start one in another folder with --init .*/checkpoint\.safetensors"):
        RunFolder(str(tmp_path)).read_state()


def of_photographs(sha256):
    """Returns the settings of a run on photographs that differ only in their content."""
    data = {"samples": {"train": 3}, "licences": {"CC0": 3}}
    return {**SETTINGS, "data": data | ({"sha256": sha256} if sha256 else {})}


def test_a_run_is_resumed_on_its_own_photographs(tmp_path):
    """A run of an earlier version, which did not store their checksum, is bound to those it is first resumed with."""
    for number, stored in enumerate(("a", None)):
        folder = RunFolder(str(tmp_path / str(number)))
        folder.begin(of_photographs(stored), resume=False)
        folder.begin(of_photographs("a"), resume=True)
        with pytest.raises(InputError, match=r"other settings \(data\); resume with the same"):
            folder.begin(of_photographs("b"), resume=True)


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(InputError, match="no run to resume"):
        RunFolder(str(tmp_path / "run")).begin(SETTINGS, resume=True)
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_its_own_settings(tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    folder.begin(SETTINGS, resume=False)
    folder.begin(SETTINGS, resume=True)
    with pytest.raises(InputError, match="preset"):
        folder.begin({**SETTINGS, "preset": "small"}, resume=True)


def changed(part, **values):
    return {**SETTINGS, part: {**SETTINGS[part], **values}}


def test_what_changed_is_named_but_how_to_compute_may_change(tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    folder.begin(SETTINGS, resume=False)
    folder.begin(changed("training", accumulate=2, precision="bf16"), resume=True)
    with pytest.raises(InputError, match=r"other settings \(training.batch, training.seed\)"):
        folder.begin(changed("training", batch=32, seed=1), resume=True)
    with pytest.raises(InputError, match=r"other settings \(generator\)"):
        folder.begin(changed("generator", z_g_dim=17), resume=True)


def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    """It did not write all settings of today; its recipe then had today's defaults."""
    projected = {**SETTINGS, "training": dataclasses.asdict(RECIPES["projected"])}
    earlier = json.loads(json.dumps(projected))
    for part, names in (("training", ("path_weight", "iterations", "precision")), ("generator", ("kind",))):
        for name in names:
            del earlier[part][name]
    folder = RunFolder(str(tmp_path / "run"))
    folder.begin(earlier, resume=False)
    folder.begin(projected, resume=True)


def test_a_damaged_configuration_is_refused_in_one_line(tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    for damaged in ({}, {**SETTINGS, "training": {"batch": 3}}, {**SETTINGS, "generator": 5}):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=r"config.json is damaged|configuration"):
            folder.begin(SETTINGS, resume=True)


def test_the_last_two_checkpoints_are_kept_with_their_states(tmp_path):
    folder = RunFolder(str(tmp_path))
    for tick in (b"1", b"2", b"3"):
        folder.write_state(b"checkpoint" + tick, b"state" + tick)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {
        "checkpoint.safetensors": b"checkpoint3",
        "training.safetensors": b"state3",
        "previous.safetensors": b"checkpoint2",
        "previous.training.safetensors": b"state2",
    }
    assert state_beside(str(tmp_path / "previous.safetensors")) == str(tmp_path / "previous.training.safetensors")


def test_the_log_ends_where_the_state_does(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write_log([{"images": images} for images in (16, 32, 48)])
    assert folder.read_log(32) == [{"images": 16}, {"images": 32}]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][-1] == {"images": 48}


@pytest.mark.parametrize("line", [b"{", b"[1]", b"3", b'{"images": "3"}', b'{"time_s": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_log_is_refused_in_one_line(tmp_path, line):
    (tmp_path / "log.jsonl").write_bytes(b'{"images": 16}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"log\.jsonl is damaged; remove it"):
        RunFolder(str(tmp_path)).read_log(32)


def test_what_shows_more_than_the_state_has_seen_is_dropped(tmp_path):
    """Unfinished files of a killed run are also removed after an hour; all else stays."""
    folder, kept, dropped = RunFolder(str(tmp_path)), set(), set()
    for images in (16, 32, 48):
        (kept if images <= 32 else dropped).update(
            (f"samples-{images:08d}.png", f"strip-{images:08d}.png", f"tensorboard/events.out.tfevents.{images:010d}")
        )
    kept |= {
        "strip-00000099.png.bak",
        "samples-.png",
        "my-strip-00000099.png",
        "tensorboard/events.out.tfevents.9.host",
    }
    for name in (f"log.jsonl.tmp-{'0' * 12}-{'0' * 8}", f"tensorboard/x.tmp-{'0' * 12}-{'0' * 8}"):
        dropped.add(name)
    (tmp_path / "tensorboard").mkdir()
    for name in kept | dropped:
        (tmp_path / name).touch()
        if ".tmp-" in name:
            os.utime(tmp_path / name, (0, 0))
    folder.drop_beyond(32)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_a_picture_is_kept_as_it_is(tmp_path):
    page = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)
    url = RunFolder(str(tmp_path)).write_picture("page.png", page)
    assert np.array_equal(np.asarray(Image.open(url)), page)


@pytest.mark.parametrize(
    ("checkpoint", "state"),
    [
        ("runs/a/checkpoint.safetensors", "runs/a/training.safetensors"),
        ("gs://b/small.safetensors", "gs://b/small.training.safetensors"),
        ("small.safetensors", "small.training.safetensors"),
    ],
)
def test_the_state_lies_beside_its_checkpoint(checkpoint, state):
    assert state_beside(checkpoint) == state
