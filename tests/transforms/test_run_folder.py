"""The run folder: one run each, and nothing beyond what can be resumed."""

import json

import numpy as np
import pytest
from PIL import Image

from model.errors import InputError
from transforms.run_folder import RunFolder, state_beside

SETTINGS = {"preset": "tiny", "training": {"ema_images": (500, 5000), "seed": 0}}


def test_a_run_is_begun_once(tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    folder.begin(SETTINGS, resume=False)
    with pytest.raises(InputError, match="--resume"):
        folder.begin(SETTINGS, resume=False)


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


def test_the_log_ends_where_the_state_does(tmp_path):
    folder = RunFolder(str(tmp_path))
    folder.write_log([{"images": images} for images in (16, 32, 48)])
    assert folder.read_log(32) == [{"images": 16}, {"images": 32}]
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][-1] == {"images": 48}


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
