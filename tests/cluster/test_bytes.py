"""Jobs on a cluster write the bytes that they write in process, and a second run changes nothing."""

import json
from pathlib import Path

import pytest

from pipelines.cli import run

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = sorted((REPOSITORY / "samples").glob("*.jpg"))[:6]


@pytest.fixture
def same_bytes(cluster, contents, tmp_path):
    """Runs a command in process and, twice, on the cluster; compares the bytes of the folders."""

    def check(*words):
        here, there = tmp_path / "here", tmp_path / "there"
        assert run([*map(str, words), f"--out={here}", "--quiet"]) == 0
        for _ in range(2):
            code, said = cluster.infinitygan(*words, f"--out={there}", "--quiet")
            assert code == 0, said
            assert contents(there) == contents(here)

    return check


def test_an_ingest_of_files(same_bytes):
    same_bytes("ingest", *PHOTOGRAPHS)


def test_an_ingest_from_a_web_server(same_bytes, web_server, tmp_path):
    web_server.routes = {f"/{photo.name}": photo.read_bytes() for photo in PHOTOGRAPHS}
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{web_server.url}{path}\n" for path in web_server.routes))
    same_bytes("ingest", listed, "--allow-private", "--crawlers=2", "--host-rate=100")


def test_a_render_of_several_panoramas(same_bytes, tiny_checkpoint, tmp_path):
    requests = [
        {"id": "p", "seed": 7, "width_px": 300, "height_px": 150, "formats": ["png", "tif"]},
        {"id": "q", "seed": 8, "width_px": 1120, "height_px": 40, "formats": ["dzi", "jpg"], "cyclic": True},
        {"id": "r", "seed": 9, "width_px": 90, "height_px": 90, "edits": [{"box_px": [9, 9, 40, 40], "seed": 3}]},
    ]
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(json.dumps(request) + "\n" for request in requests))
    same_bytes("render", f"--requests={file}", f"--checkpoint={tiny_checkpoint}", "--tile=64", "--tiles-per-shard=4")
