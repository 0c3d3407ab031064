import json

import pytest
import torch

from model import speed
from pipelines.bench import ROWS
from pipelines.cli import run
from pipelines.commands.bench import bench


@pytest.fixture
def quick(monkeypatch):
    """Reduces the benchmark to two tiles instead of sixteen, and a small convolution."""
    monkeypatch.setattr(speed, "TILES", 2)
    monkeypatch.setattr(speed, "CHANNELS", 64)


@pytest.mark.slow
def test_bench_prints_every_figure_and_writes_them_as_json(quick, tmp_path, capsys):
    out = tmp_path / "bench.json"
    bench(["tiny"], str(out))
    document = json.loads(out.read_text())
    figures = document["presets"]["tiny"]
    assert set(ROWS) <= set(figures)
    assert all(value >= 0 for value in figures.values())
    assert figures["margins_128"] > figures["margins_1024"] > 0
    assert 0 < figures["efficiency"] == pytest.approx(figures["useful_gflops"] / figures["roofline_gflops"])
    assert figures["cold_near_s"] > figures["warm_near_s"]
    assert document["machine"]["threads"] == torch.get_num_threads()
    printed = capsys.readouterr().out
    assert "arithmetic efficiency" in printed
    assert "tiny" in printed


def test_an_unknown_preset_is_refused_in_one_line(capsys):
    assert run(["bench", "--preset", "huge"]) == 2
    said = capsys.readouterr().err
    assert "--preset huge" in said
    assert "tiny" in said
    assert said.count("\n") == 1


def test_the_place_far_away_is_a_billion_pixels_away_and_within_the_world():
    assert speed.FAR_PX == 10**9
    assert speed.FAR_PX % speed.TILE_PX == 0


def test_the_fused_panorama_meets_all_four_styles():
    """Otherwise it would measure a plain one."""
    world = speed.World(speed.network("tiny"), speed.Definition(7, styles=speed.STYLES))
    rows, met = speed.tile_window(-1), set()
    for column in range(speed.TILES):
        met.update(world.fusion.map(rows, speed.tile_window(column), 1).styles)
    assert met == {0, 1, 2, 3}
