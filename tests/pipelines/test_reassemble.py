"""Further formats from existing patches, and repaired patches."""

import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from model.errors import InputError
from pipelines.assemble import assemble
from pipelines.cli import run
from pipelines.render import render
from pipelines.terminal.beam_flags import beam_options
from transforms.panoramas.manifest import read_manifest
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.render.synthesize import PATCHES_DONE

REQUESTS = (
    RenderRequest(id="p", seed=7, width_px=300, height_px=150),
    RenderRequest(id="q", seed=8, width_px=100, height_px=70, formats=("tif",)),
)


def options_for(out, checkpoint, **others):
    return RenderOptions(REQUESTS, str(out), checkpoint, 64, 3, **others)


@pytest.fixture(scope="module")
def rendered(tiny_checkpoint, tmp_path_factory):
    """Renders two panoramas to a folder, which tests must not change."""
    out = tmp_path_factory.mktemp("rendered")
    assert [row["state"] for row in render(options_for(out, tiny_checkpoint))] == ["done", "done"]
    return out


@pytest.fixture
def copy(rendered, tmp_path):
    return shutil.copytree(rendered, tmp_path / "out")


@pytest.fixture
def never(monkeypatch):
    """Makes any rendering an error."""

    def refuse(*_):
        raise AssertionError("something was rendered")

    monkeypatch.setattr("transforms.render.synthesize.compute_tile", refuse)


def read_png(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("flags", [[], ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]])
def test_another_format_is_made_without_rendering(flags, copy, rendered, contents):
    rows = assemble(str(copy), ["png", "zarr"], beam_flags=beam_options(flags))
    assert [(row["id"], row["state"]) for row in rows] == [("p", "done"), ("q", "done")]
    assert [row["files"] for row in read_manifest(str(copy))] == [
        ["panoramas/p.png", "panoramas/p.zarr"],
        ["panoramas/q.png", "panoramas/q.tif", "panoramas/q.zarr"],
    ]
    before, after = contents(rendered), contents(copy)
    assert after["panoramas/p.png"] == before["panoramas/p.png"]
    np.testing.assert_array_equal(read_png(copy / "panoramas" / "q.png"), tifffile.imread(copy / "panoramas" / "q.tif"))
    zarr = pytest.importorskip("zarr")
    array = zarr.open_array(copy / "panoramas" / "p.zarr", mode="r")
    np.testing.assert_array_equal(array[:], read_png(copy / "panoramas" / "p.png"))
    assert array.attrs["InfinityGAN"]["request"]["id"] == "p"


@pytest.mark.usefixtures("never")
def test_one_panorama_may_be_named_and_a_missing_patch_is_said(copy, contents):
    next((copy / "patches" / "q").rglob("0-2.tar")).unlink()
    assert run(["assemble", str(copy), "--format=dzi", "--id=p"]) == 0
    assert {"panoramas/p.dzi", "panoramas/p.html", "panoramas/p_files/9/0_0.jpg"} <= set(contents(copy))
    assert run(["assemble", str(copy), "--format=dzi", "--format=tif"]) == 1
    states = {row["id"]: (row["state"], row["reason"]) for row in read_manifest(str(copy))}
    assert states == {"p": ("done", None), "q": ("failed", "3 of 4 patches are missing")}
    assert (copy / "panoramas" / "q.tif").exists()


@pytest.mark.usefixtures("never")
def test_what_render_could_not_finish_is_assembled_from_its_patches(copy, rendered, contents):
    shutil.rmtree(copy / "panoramas")
    (row, _) = assemble(str(copy), ["png"], beam_flags=beam_options([]))
    assert row["state"] == "done"
    assert contents(copy)["panoramas/p.png"] == contents(rendered)["panoramas/p.png"]


def test_what_cannot_be_assembled_is_one_line_and_changes_nothing(copy, contents, tmp_path, capsys):
    before = contents(copy)
    for arguments, said in (
        ([str(copy)], "--format is missing; give one or more of png"),
        ([str(copy), "--format=exr"], "format 'exr' is unknown"),
        ([str(copy), "--format=png", "--id=r"], "--id r: "),
        ([str(tmp_path / "none"), "--format=png"], "does not contain manifest.parquet; give the --out of a render job"),
    ):
        assert run(["assemble", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert contents(copy) == before
    shutil.rmtree(copy / "patches" / "p")
    with pytest.raises(InputError, match="the patches of p are gone; render it again"):
        assemble(str(copy), ["tif"])


def spoil(path):
    """Changes one bit of the pixels of a shard's first patch."""
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT", content.index(b".png")) + 40] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("finished", [True, False])
def test_repair_replaces_what_is_damaged_and_nothing_else(finished, copy, rendered, contents, tiny_checkpoint):
    shards = sorted((copy / "patches" / "p").rglob("*.tar"))
    spoil(shards[1])
    shards[3].write_bytes(shards[3].read_bytes()[:2000])
    if not finished:
        (copy / "panoramas" / "p.png").unlink()
    else:
        render(options_for(copy, tiny_checkpoint))
        assert PATCHES_DONE.count == 0
    rows = render(options_for(copy, tiny_checkpoint, repair=True))
    assert {row["state"] for row in rows} == {"done"}
    assert PATCHES_DONE.count == 6
    assert contents(copy) == contents(rendered)
    render(options_for(copy, tiny_checkpoint, repair=True))
    assert PATCHES_DONE.count == 0


def test_a_dry_run_says_what_is_left_and_writes_nothing(copy, contents, tiny_checkpoint, tmp_path, capsys):
    next((copy / "patches" / "q").rglob("0-2.tar")).unlink()
    (copy / "panoramas" / "q.tif").unlink()
    before = contents(copy)
    (tmp_path / "r.csv").write_text(
        "id,seed,width_px,height_px,formats\np,7,300,150,\nq,8,100,70,tif\nr,9,64,64,png tif\n"
    )
    words = ["render", f"--requests={tmp_path / 'r.csv'}", f"--out={copy}", f"--checkpoint={tiny_checkpoint}"]
    words += ["--tile=64", "--tiles-per-shard=3", "--dry-run"]
    assert run(words) == 0
    said = " ".join(capsys.readouterr().err.split())
    for part in ("panoramas │ 3, of which 1 are done", "shards to make │ 2", "tiles to compute │ 5"):
        assert part in said
    assert "pixels of all panoramas │ 0.1 million" in said
    assert contents(copy) == before
    (tmp_path / "r.csv").write_text("id,seed,width_px,height_px,formats\ns,7,70000,150,jpg\n")
    assert run(words) == 2
    assert "format jpg holds at most 65500 x 65500 px" in capsys.readouterr().err
    assert contents(copy) == before
