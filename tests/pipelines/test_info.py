import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image, PngImagePlugin

from model.checkpoint import load_checkpoint, save, save_checkpoint
from model.errors import InputError
from pipelines.cli import run
from pipelines.commands.info import info
from pipelines.info import describe, told
from pipelines.ingest import ingest
from pipelines.render import render
from transforms.formats.registry import FORMATS
from transforms.ingest.options import IngestOptions
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.training.run_folder import CONFIG, LOG

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(scope="module")
def rendered(tiny_checkpoint, tmp_path_factory):
    """Renders a panorama, which tests must not change."""
    out = tmp_path_factory.mktemp("rendered")
    request = RenderRequest(id="p", seed=7, width_px=90, height_px=40, formats=tuple(FORMATS))
    render(RenderOptions((request,), str(out), tiny_checkpoint, tile_px=32))
    return out


def tar_of(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_checkpoint(tiny_checkpoint):
    lines = describe(tiny_checkpoint)
    assert lines["what"] == "checkpoint"
    assert lines["size_bytes"] == Path(tiny_checkpoint).stat().st_size
    assert len(lines["sha256"]) == 64
    assert lines["licence"] == "CC0-1.0"
    assert lines["generator"]["z_g_dim"] == 16


def test_a_training_state(tmp_path):
    path = tmp_path / "state.safetensors"
    tensors = {"ema.a": torch.zeros(3), "ema.b": torch.zeros(3), "path_mean": torch.zeros(())}
    path.write_bytes(save("training state", tensors, {"steps": 5, "images_before": 0}))
    lines = describe(str(path))
    assert (lines["what"], lines["steps"], lines["tensors"]) == ("training state", 5, {"ema": 2, "path_mean": 1})
    path.write_bytes(
        save("training state", {**tensors, "x": torch.tensor(torch.inf)}, {"steps": 5, "images_before": 0})
    )
    with pytest.raises(InputError, match="tensor 'x' holds values that are not finite"):
        describe(str(path))


def test_what_render_makes(rendered):
    assert describe(str(rendered)) == {"what": "rendered panoramas", "requests": 1, "done": 1}
    (plan,) = (rendered / "patches" / "p").iterdir()
    lines = describe(str(plan))
    assert (lines["what"], lines["tile_px"], lines["request"]["seed"]) == ("patches of a panorama", 32, 7)
    (shard,) = plan.glob("*.tar")
    lines = describe(str(shard))
    assert (lines["what"], lines["patches"], lines["first patch"]["index"]) == ("patch shard", 6, 0)
    for suffix in (*FORMATS, "json"):
        lines = describe(str(rendered / "panoramas" / f"p.{suffix}"))
        assert (lines["what"], lines["size_px"], lines["tile_px"]) == ("panorama", "90×40", 32)


def test_a_panorama_of_any_size(tmp_path, recwarn):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("InfinityGAN", json.dumps({"tile_px": 256}))
    Image.new("RGB", (1, 1)).save(tmp_path / "p.png", pnginfo=text)
    small = (tmp_path / "p.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 8_000_000, 4_000_000) + small[24:29]
    (tmp_path / "p.png").write_bytes(small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])
    before = Image.MAX_IMAGE_PIXELS
    assert describe(str(tmp_path / "p.png"))["size_px"] == "8000000×4000000"
    assert before == Image.MAX_IMAGE_PIXELS
    assert not list(recwarn)


def test_what_ingest_makes(tmp_path):
    photographs = tuple(map(str, sorted(SAMPLES.glob("*.jpg"))[:3]))
    ingest(IngestOptions(photographs, str(tmp_path)))
    lines = describe(str(tmp_path))
    assert lines["photographs"] == "197 px high, for patches of 101 px"
    assert lines["samples"] == {"train": 3, "val": 0, "test": 0}
    shard = next(tmp_path.glob("*.tar"))
    lines = describe(str(shard))
    assert (lines["what"], lines["samples"]) == ("training shard", 1)
    assert shard.name.startswith(lines["split"])


def test_a_training_run(tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps({"preset": "tiny", "data": "photos"}))
    assert describe(str(tmp_path))["last tick"] == {}
    (tmp_path / LOG).write_text('{"images": 1}\n{"images": 2}\n')
    assert describe(str(tmp_path))["last tick"] == {"images": 2}
    (tmp_path / LOG).write_text('{"images": 1}\n{"imag')
    with pytest.raises(InputError, match="is damaged, or was not made by infinitygan"):
        describe(str(tmp_path))


def test_a_store(rendered):
    fs = fsspec.filesystem("memory")
    fs.pipe("/info/p.png", (rendered / "panoramas" / "p.png").read_bytes())
    fs.pipe("/info/p.tif", (rendered / "panoramas" / "p.tif").read_bytes())
    assert describe("memory://info/p.png") == describe("memory://info/p.tif")


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "dzi", "json", "tar", "safetensors"])
def test_damaged_files_are_named(suffix, rendered, tiny_checkpoint, tmp_path):
    whole = Path(tiny_checkpoint) if suffix == "safetensors" else next(rendered.rglob(f"*.{suffix}"))
    content = whole.read_bytes()
    damaged = [b"", b"x", b"once upon a time " * 100, content[:4], content[:30], content[:60], b"\x1f\x8b" + content]
    damaged += [
        bytes([*content[:position], content[position] ^ 0xFF, *content[position + 1 :]]) for position in range(100)
    ]
    path = tmp_path / f"p.{suffix}"
    answers = []
    for each in damaged:
        path.write_bytes(each)
        try:
            describe(str(path))
        except InputError as error:
            answers.append(str(error))
    assert len(answers) > 10
    assert all(str(path) in text and "\n" not in text for text in answers)


@pytest.mark.parametrize("documents", [b"[]", b"5", b"null", b'"x"', b"{"])
def test_strange_shards_are_named(documents, tmp_path):
    (tmp_path / "p.tar").write_bytes(tar_of(a_json=documents))
    with pytest.raises(InputError, match=r"p\.tar"):
        describe(str(tmp_path / "p.tar"))


def test_every_file_of_a_panorama_says_where_it_comes_from(rendered):
    """Each kind of file gives the same provenance; the JSON record gives more."""
    said = [describe(str(rendered / "panoramas" / f"p.{name}")) for name in (*FORMATS, "json")]
    assert all(lines.items() <= said[-1].items() for lines in said)
    assert said[0]["request"]["seed"] == 7
    assert "pixel_sha256" in said[-1]


def changed(path, change):
    """Writes a checkpoint's file with other tensors."""
    checkpoint = load_checkpoint(Path(path).read_bytes(), "tiny")
    tensors = {name: x.clone() for name, x in checkpoint.generator.state_dict().items()}
    change(tensors)
    return save_checkpoint(tensors, checkpoint.generator.config, checkpoint.provenance, checkpoint.licence)


BIAS = "structure.blocks.2.bias"
UNUSABLE = {
    "not finite": (lambda tensors: tensors[BIAS].fill_(torch.nan), f"tensor '{BIAS}' holds values that are not finite"),
    "integers": (lambda tensors: tensors.update({BIAS: tensors[BIAS].int()}), f"tensor '{BIAS}' holds int32 numbers"),
    "a tensor more": (
        lambda tensors: tensors.update(trojan=torch.zeros(3)),
        'Unexpected key(s) in state_dict: "trojan"',
    ),
    "a tensor less": (lambda tensors: tensors.pop(BIAS), f'Missing key(s) in state_dict: "{BIAS}"'),
}


@pytest.mark.parametrize("damage", UNUSABLE)
def test_info_refuses_the_checkpoints_that_render_refuses(tiny_checkpoint, tmp_path, capsys, damage):
    change, message = UNUSABLE[damage]
    path = tmp_path / "x.safetensors"
    path.write_bytes(changed(tiny_checkpoint, change))
    assert run(["info", str(path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert (
        run(["render", "--checkpoint", str(path), "--width", "8", "--height", "8", "--out", str(tmp_path / "o")]) == 2
    )
    assert message in capsys.readouterr().err


def test_a_file_cut_short_is_refused_in_one_line(tiny_checkpoint, tmp_path, capsys):
    content = Path(tiny_checkpoint).read_bytes()
    for end in (0, 7, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:end])
        assert run(["info", str(tmp_path / "x.safetensors")]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert "x.safetensors" in said


EVIL = "\x1b]0;owned\x07\x9b2J\nsha256: forged\u2028\u202e\ud800"


def test_what_a_file_says_of_itself_is_printed_harmlessly(tiny_checkpoint, tmp_path, capsys):
    """Each value takes one line, without control characters; and no value can pass for another fact."""
    checkpoint = load_checkpoint(Path(tiny_checkpoint).read_bytes(), "tiny")
    header = {
        "licence": EVIL,
        EVIL: EVIL,
        "sha256": "forged",
        "size_bytes": -1,
        "what": "a gift",
        "provenance": {"a": EVIL},
    }
    header["generator"] = json.loads(json.dumps(describe(tiny_checkpoint)["generator"]))
    path = tmp_path / "x.safetensors"
    path.write_bytes(save("checkpoint", checkpoint.generator.state_dict(), header))
    assert run(["info", str(path)]) == 0
    lines = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert len(lines) == len(describe(str(path)))
    assert all(line.isprintable() for line in lines)
    assert lines[:3] == [
        "what: checkpoint",
        f"sha256: {load_checkpoint(path.read_bytes(), '').sha256}",
        f"size_bytes: {path.stat().st_size}",
    ]


def test_what_a_refused_file_says_is_printed_harmlessly(tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save("checkpoint", {}, {"generator": {EVIL: 1, "texture_channels": []}}))
    assert run(["info", str(path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.isprintable()


def test_a_forged_panorama_says_nothing_in_the_place_of_a_fact(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("InfinityGAN", json.dumps({"what": "a gift", "size_px": "9×9", "seed": 1}))
    Image.new("RGB", (2, 3)).save(tmp_path / "p.png", pnginfo=text)
    assert describe(str(tmp_path / "p.png")) == {"what": "panorama", "size_px": "2×3", "seed": 1}
    assert list(told({"a": {"b": "ü\n"}})) == ['a: {"b": "ü\\n"}']


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "dzi", "json", "tar", "safetensors"])
def test_a_file_of_any_size_is_told_or_refused_within_seconds(tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    path.touch()
    os.truncate(path, 64 << 30)  # sparse
    with pytest.raises(InputError, match=rf"p\.{suffix}"):
        describe(str(path))


def test_what_is_not_ours_is_said_to_be_so(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "p.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "p.tif")
    (tmp_path / "p.tar").write_bytes(tar_of(a_txt=b"x"))
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1")
    for name in ("p.png", "p.tif", "p.tar"):
        with pytest.raises(InputError, match=f"{name} is not a "):
            describe(str(tmp_path / name))
    with pytest.raises(InputError, match=r"manifest\.parquet is damaged, or is not the manifest of render"):
        describe(str(tmp_path))
    with pytest.raises(InputError, match=r"samples is not a training set, a run, or the output of render$"):
        describe(str(SAMPLES))
    with pytest.raises(
        InputError, match=r"\.md: unknown kind of file; give \.safetensors, \.tar, \.png, .*, \.json or a folder of"
    ):
        describe(str(SAMPLES / "ATTRIBUTION.md"))
    with pytest.raises(InputError, match="there is no such file or folder"):
        describe(str(tmp_path / "none"))


def test_the_command_prints_a_line_for_each_thing_known(rendered, capsys):
    info(str(rendered))
    assert capsys.readouterr().out == "what: rendered panoramas\nrequests: 1\ndone: 1\n"


READING = """
import os, sys
import torch
from pipelines.cli import run
from transforms.panoramas import folder, manifest
from transforms.training import run_folder
from transforms.training_set import dataset

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
code = run(["info", sys.argv[1]])
sys.exit(code or threads() - before)
"""


def test_a_process_that_reads_a_table_and_ends_at_once_ends_well(rendered):
    """pyarrow's threads abort one in three such processes, once torch is loaded too, so reading starts none."""
    command = [sys.executable, "-c", READING, str(rendered)]
    process = subprocess.run(command, cwd=SAMPLES.parent, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "rendered panoramas" in process.stdout
