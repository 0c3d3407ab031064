"""Jobs on a cluster write the bytes that they write in process, and a second run changes nothing."""

import json
import shutil
import tarfile
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from pipelines.cli import run

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = sorted((REPOSITORY / "samples").glob("*.jpg"))[:6]


@pytest.fixture
def same_bytes(cluster, contents, tmp_path):
    """Runs a command in process and, twice, on the cluster; compares the bytes of the folders."""

    def check(*words):
        out = tmp_path / "out"  # of both, because some files name it
        assert run([*map(str, words), f"--out={out}", "--quiet"]) == 0
        here = contents(out)
        shutil.rmtree(out)
        for _ in range(2):
            code, said = cluster.infinitygan(*words, f"--out={out}", "--quiet")
            assert code == 0, said
            assert contents(out) == here

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


def test_an_ingest_of_a_tar(same_bytes, tmp_path):
    with tarfile.open(tmp_path / "photographs.tar", "w") as tar:
        for photo in PHOTOGRAPHS:
            tar.add(photo, photo.name)
    same_bytes("ingest", tmp_path / "photographs.tar")


def test_other_formats_of_a_panorama(cluster, contents, tiny_checkpoint, tmp_path):
    words = ("render", "--width=200", "--height=100", "--tile=64", f"--checkpoint={tiny_checkpoint}", "--quiet")
    assert run([*words, f"--out={tmp_path / 'here'}"]) == 0
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert run(["assemble", str(tmp_path / "here"), "--format=tif", "--quiet"]) == 0
    code, said = cluster.infinitygan("assemble", tmp_path / "there", "--format=tif", "--quiet")
    assert code == 0, said
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.fixture
def small_photographs(tmp_path):
    paths = [tmp_path / f"{photo.stem}.png" for photo in PHOTOGRAPHS[:2]]
    for photo, path in zip(PHOTOGRAPHS, paths, strict=False):
        Image.open(photo).convert("RGB").resize((80, 48)).save(path)
    return paths


def test_inversions_of_several_photographs(same_bytes, small_photographs, tiny_checkpoint):
    same_bytes("invert", *small_photographs, "--steps=2", f"--checkpoint={tiny_checkpoint}")


def test_a_photograph_that_is_continued(same_bytes, small_photographs, tiny_checkpoint):
    flags = ("--left=60", "--right=60", "--steps=2", "--tile=64", f"--checkpoint={tiny_checkpoint}")
    same_bytes("outpaint", small_photographs[0], *flags)


def test_a_bucket_holds_the_same(cluster_and_bucket, contents, tmp_path):
    cluster, bucket = cluster_and_bucket
    out = f"{bucket}/set"
    assert run(["ingest", *map(str, PHOTOGRAPHS), f"--out={tmp_path / 'set'}", "--quiet"]) == 0
    code, said = cluster.infinitygan("ingest", *PHOTOGRAPHS, f"--out={out}", "--quiet")
    assert code == 0, said
    fs, path = fsspec.core.url_to_fs(out)
    fs.invalidate_cache()
    assert {name.removeprefix(f"{path}/"): fs.cat_file(name) for name in fs.find(path)} == contents(tmp_path / "set")


def test_prism_runs_a_job_by_itself(prism, contents, tmp_path, capfd):
    words = ["ingest", *map(str, PHOTOGRAPHS), "--quiet"]
    assert run([*words, f"--out={tmp_path / 'here'}"]) == 0
    capfd.readouterr()
    assert run([*words, f"--out={tmp_path / 'there'}", "--runner", "prism", f"--prism_location={prism}"]) == 0
    assert "INFO" not in capfd.readouterr().err
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
