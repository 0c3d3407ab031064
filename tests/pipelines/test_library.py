"""The names to use from Python, as ``docs/python.md`` uses them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import InputError
from pipelines.library import World, load_generator, render_window
from tests.transforms.photographs.test_prepare import photograph
from transforms.panoramas.manifest import read_manifest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_program_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    for index in range(3):
        (tmp_path / "photographs" / f"{index}.jpg").write_bytes(photograph(400 + 50 * index, 300))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 3
    names: dict = {}
    exec("\n".join(blocks), names)
    assert sum(names["dataset"]["samples"].values()) + sum(names["dataset"]["rejects"].values()) == 3
    assert [row["state"] for row in read_manifest("panoramas")] == ["done"]
    with Image.open("panoramas/panoramas/lake.png") as image:
        assert np.array_equal(np.asarray(image), names["pixels"])


def test_an_empty_window_and_a_checkpoint_that_is_not_there_are_refused(tiny_checkpoint):
    with pytest.raises(InputError, match="0×5 px"):
        render_window(World(load_generator(tiny_checkpoint), 1), 0, 0, 0, 5)
    with pytest.raises(InputError, match="nowhere"):
        load_generator("nowhere")
