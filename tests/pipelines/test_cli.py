import json
import os
import re
import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import pipelines.cli
import transforms.render.publish
import transforms.storage.tables
from model.config import DETAIL, PRESETS, RECIPES, SHORT_NAMES, VERTICAL_LAWS
from model.config import PRECISIONS as TRAINING_PRECISIONS
from model.errors import InputError
from model.version import __version__
from model.world.engine import PRECISIONS
from pipelines.cli import COMMANDS, main
from pipelines.terminal import flags
from transforms.evaluation.settings import PROTOCOLS
from transforms.formats.registry import FORMATS
from transforms.ingest.duplicates import DEDUP_WAYS
from transforms.panoramas.manifest import read_manifest
from transforms.photographs.codec import LONGEST_SIDE_PX

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def infinitygan(capfd, monkeypatch):
    """Runs a command in this process; returns its exit code, stdout and the lines of stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def infinitygan(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return caught.value.code, shown.out, shown.err.splitlines()

    return infinitygan


@pytest.fixture
def render_requests(infinitygan, tiny_checkpoint, tmp_path):
    """Runs a render of the requests in a file."""
    start = ("render", f"--checkpoint={tiny_checkpoint}", "--tile=32", f"--out={tmp_path / 'out'}")
    return lambda requests, *arguments: infinitygan(*start, f"--requests={requests}", *arguments)


@pytest.fixture
def render(infinitygan, tiny_checkpoint, tmp_path):
    """Runs a small render; later flags win."""
    small = (f"--checkpoint={tiny_checkpoint}", "--width=90", "--height=40", "--tile=32", f"--out={tmp_path / 'out'}")
    return lambda *arguments: infinitygan("render", *small, *arguments)


def write_requests(path, *requests):
    path.write_text("\n".join(json.dumps({"seed": 7, "width_px": 40, "height_px": 30, **r}) for r in requests))
    return path


def test_render_makes_a_panorama_and_shows_it(render, tmp_path):
    code, out, err = render("--runner=BundleBasedDirectRunner", "--format=tif", "--format", "png")
    assert (code, out) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out" / "panoramas").iterdir()) == [
        f"seed-23_90x40.{suffix}" for suffix in ("json", "png", "tif")
    ]
    shown = "\n".join(err)
    assert "90×40" in shown
    assert "done" in shown
    assert "panoramas/seed-23_90x40.tif" in shown
    code, _, _ = render("--origin=-5,-6")
    assert code == 0
    rows = read_manifest(str(tmp_path / "out"))
    assert [row["id"] for row in rows] == ["seed-23_90x40", "seed-23_90x40_at_-5_-6"]


def test_render_takes_requests_from_a_file(render_requests, tmp_path):
    requests = write_requests(tmp_path / "r.jsonl", {"id": "a"}, {"id": "b", "seed": 8, "formats": ["tif"]})
    assert render_requests(requests)[0] == 0
    assert [row["files"] for row in read_manifest(str(tmp_path / "out"))] == [["panoramas/a.png"], ["panoramas/b.tif"]]


def test_a_missing_panorama_is_exit_code_1_and_the_next_run_completes_it(render_requests, tmp_path, monkeypatch):
    requests = write_requests(tmp_path / "r.jsonl", {"id": "a"}, {"id": "b"})
    original = transforms.render.publish.write_patch_shard

    def write_patch_shard(out, shard, patches):
        if shard.plan.request.id == "b":
            raise OSError(28, "No space left on device")
        original(out, shard, patches)

    monkeypatch.setattr(transforms.render.publish, "write_patch_shard", write_patch_shard)
    code, _, err = render_requests(requests)
    assert code == 1
    shown = "\n".join(err)
    assert "failed" in shown
    assert "Traceback" not in shown
    assert {row["id"]: row["state"] for row in read_manifest(str(tmp_path / "out"))} == {"a": "done", "b": "failed"}
    monkeypatch.undo()
    assert render_requests(requests)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--widht", "5"], "--widht is unknown: did you mean --width?"),
        (["--tiles-per-shrad=5"], "--tiles-per-shrad is unknown: did you mean --tiles-per-shard?"),
        (["--runer=FnApiRunner"], "--runer is unknown: did you mean --runner?"),
        (["--no-such-thing-anywhere"], "--no-such-thing-anywhere is unknown: "),
        (["stray"], "'stray' is an unexpected argument; see --help"),
        (["-w5"], "-w5 is unknown: "),
        (["--runner=NoneSuch"], "Unexpected pipeline runner: NoneSuch"),
        (["--direct_num_workers=two"], "--direct_num_workers: invalid int value: 'two'"),
        (["--width=0"], "width_px is 0; it must be at least 1"),
        (["--width=-5"], "width_px is -5; it must be at least 1"),
        (["--width", "1000000000000"], "width_px 1000000000000 from pixel 0 leaves the world"),
        (["--height=0"], "height_px is 0; it must be at least 1"),
        (["--height=-5"], "height_px is -5"),
        (["--height=1000000000000"], "height_px 1000000000000 from pixel"),
        (["--width=wide"], "--width"),
        (["--width"], "--width"),
        (["--seed=-1"], "seed is -1; it must be from 0 to 2^64 - 1"),
        (["--seed=18446744073709551616"], "seed is 18446744073709551616"),
        (["--origin=5"], "--origin 5: give 2 whole numbers, such as --origin 0,-256"),
        (["--origin=a,b"], "--origin a,b: give 2 whole numbers"),
        (["--origin=1,2,3"], "--origin 1,2,3: give 2 whole numbers"),
        (["--origin=0,3000000000"], "leaves the world"),
        (["--tile=100"], "--tile 100: give a multiple of 16, the network's cell, up to 4096"),
        (["--tile=0"], "--tile 0: give a multiple of 16"),
        (["--tile=-16"], "--tile -16: give a multiple of 16"),
        (["--tiles-per-shard=0"], "--tiles-per-shard 0: give 1 to 256"),
        (["--tiles-per-shard=-1"], "--tiles-per-shard -1: give 1 to 256"),
        (["--format=jpeg"], "format 'jpeg' is unknown: "),
        (["--checkpoint=none.safetensors"], "/none.safetensors: there is no such file"),
        (["--checkpoint=/"], "checkpoint / is a folder; give a .safetensors file"),
        ([f"--checkpoint={__file__}"], "is not an InfinityGAN checkpoint; give a .safetensors file that train wrote"),
        (["--checkpoint=foo://x"], "foo://x: Protocol not known: foo"),
        (["--out=foo://x"], "foo://x: Protocol not known: foo"),
        (["--out="], "--out is empty; give a value"),
        (["--checkpoint="], "--checkpoint is empty; give a value"),
        ([f"--out={__file__}"], "is a file; give a folder or URL"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, said, render, tmp_path):
    code, out, err = render(*arguments)
    assert (code, out) == (2, "")
    assert len(err) == 1, err
    assert err[0].startswith("infinitygan: ")
    assert said in err[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["rendr"], ["render"], ["info"], ["info", "none"], ["info", "a", "b"], ["--what"]]
)
def test_other_wrong_command_lines_are_one_line(arguments, infinitygan):
    code, out, err = infinitygan(*arguments)
    assert (code, out) == (2, "")
    assert len(err) == 1, err


FLOATS = [
    (command, f"--{name.replace('_', '-')}")
    for command in COMMANDS
    for name, kind in get_type_hints(getattr(import_module(f"pipelines.commands.{command}"), command)).items()
    if kind in (float, float | None)
]


@pytest.mark.parametrize("value", ["nan", "inf", "-1e400"])
@pytest.mark.parametrize(("command", "flag"), FLOATS, ids=" ".join)
def test_a_number_that_is_not_one_is_refused_by_every_flag(command, flag, value, infinitygan, tmp_path):
    code, out, err = infinitygan(command, *WHAT[command], f"{flag}={value}", f"--out={tmp_path}/out")
    assert (code, out) == (2, "")
    assert err == [f"infinitygan: {flag} is {float(value)}: give a finite number"]
    assert list(tmp_path.iterdir()) == []


WHAT = {"ingest": ["a.jpg"], "train": ["--data=set"], "invert": ["a.jpg"], "render": [], "fuse": ["--styles=2"]}
"""The arguments that a command needs in addition to its numeric flags."""


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ("none.csv", "--requests none.csv: there is no such file"),
        (__file__, "give a file named *.jsonl, *.csv, *.parquet"),
    ],
)
def test_a_file_that_lists_no_requests_is_one_line(requests, said, render_requests, tmp_path):
    code, _, err = render_requests(requests)
    assert (code, len(err)) == (2, 1)
    assert said in err[0]
    assert list(tmp_path.iterdir()) == []


def test_flags_are_the_defaults_of_rows_that_do_not_say(render_requests, tmp_path):
    rows = tmp_path / "r.jsonl"
    rows.write_text('{"id": "a", "width_px": 64}\n{"id": "b", "seed": 9}\n')
    flags = ("--seed=7", "--width=48", "--height=32", "--origin=16,-32", "--format=jpg")
    code, _, err = render_requests(rows, *flags)
    assert code == 0, err
    asked = {
        name: json.loads((tmp_path / "out" / "panoramas" / f"{name}.json").read_text())["request"] for name in "ab"
    }
    fields = ("seed", "width_px", "height_px", "origin_x_px", "origin_y_px", "formats")
    assert [asked["a"][field] for field in fields] == [7, 64, 32, 16, -32, ["jpg"]]
    assert [asked["b"][field] for field in fields] == [9, 48, 32, 16, -32, ["jpg"]]
    code, _, err = render_requests(rows)
    assert code == 2
    assert "seed is missing" in err[0]


def test_a_wrong_request_file_is_one_line(render_requests, tmp_path):
    requests = write_requests(tmp_path / "r.jsonl", {"id": "b\nc"})
    code, _, err = render_requests(requests)
    assert code == 2
    assert len(err) == 1
    assert "r.jsonl, request 1: request id 'b\\nc'" in err[0]
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_known_id_is_refused_unless_replaced(render):
    assert render()[0] == 0
    code, _, err = render("--tile=64")
    assert (code, len(err)) == (2, 1)
    assert "add --replace to render it again" in err[0]
    assert render("--tile=64", "--replace")[0] == 0


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_no_error(name, flag, infinitygan):
    code, out, err = infinitygan(name, flag)
    assert (code, err) == (0, [])
    assert "--help" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_cuts_no_word_in_a_terminal_of_80_columns(name, infinitygan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = infinitygan(name, "--help")
    assert not re.search(r"\w…", out)


@pytest.mark.parametrize("name", ["ingest", "render"])
def test_the_panels_of_a_help_page_have_the_options_that_they_name(name):
    module = import_module(f"pipelines.commands.{name}")
    named = [parameter for panel in module.PANELS.values() for parameter in panel]
    assert len(named) == len(set(named))
    assert set(named) < signature(getattr(module, name)).parameters.keys()


def test_the_version_is_told(infinitygan):
    assert infinitygan("--version") == (0, f"infinitygan {__version__}\n", [])


def test_quiet_hides_progress_and_nothing_else(render, monkeypatch):
    monkeypatch.setattr("pipelines.terminal.progress._POLL_S", 0.01)
    monkeypatch.setattr("pipelines.terminal.progress._FIRST_LINE_S", 0.0)
    monkeypatch.setattr("pipelines.terminal.progress._LINE_EVERY_S", 0.0)
    _, _, loud = render("--replace")
    assert any(line.startswith("Tiles: ") for line in loud)
    code, _, quiet = render("--replace", "--tile=64", "--quiet")
    assert code == 0
    assert not any(line.startswith("Tiles: ") for line in quiet)
    assert any("done" in line for line in quiet)
    assert "width_px is 0" in render("--width=0", "--quiet")[2][0]


def test_help_names_every_command(infinitygan):
    code, out, _ = infinitygan("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("two\nlines"), 2, "infinitygan: two lines"),
        (PermissionError(13, "Permission denied", "/x"), 1, "infinitygan: /x: Permission denied"),
        (IsADirectoryError(21, "Is a directory", "/x.tmp-1", None, "/x"), 1, "infinitygan: /x: Is a directory"),
        (OSError("the store is gone"), 1, "infinitygan: storage: the store is gone"),
        (KeyboardInterrupt(), 130, "infinitygan: interrupted"),
    ],
)
def test_each_kind_of_end_has_its_exit_code(error, code, said, infinitygan, monkeypatch):
    def fail(**keywords):
        raise error

    monkeypatch.setattr(pipelines.cli, "build", lambda: fail)
    assert infinitygan("info", "x") == (code, "", [said])


def modules_after(*commands):
    """For each command, its exit code and the names of the packages imported so far, in one new process for all."""
    program = (
        "import json, sys\nfrom pipelines.cli import run\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    code = run(words)\n"
        "    print('\\n@' + json.dumps([code, *sys.modules]))\n"
    )
    command = [sys.executable, "-c", program, json.dumps(commands)]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    answers = [json.loads(line[1:]) for line in process.stdout.splitlines() if line.startswith("@")]
    assert len(answers) == len(commands)
    return [(code, {name.split(".")[0] for name in names}) for code, *names in answers]


HEAVY = {"torch", "apache_beam", "pyarrow", "fsspec", "numpy", "PIL", "aiohttp"}


def test_a_current_folder_that_was_removed_is_one_line(infinitygan, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for arguments in (("render", "--out=x", "--dry-run"), ("info", "x")):
        code, _, lines = infinitygan(*arguments)
        assert (code, lines) == (2, ["infinitygan: the current folder was removed: change to another one"])


def test_help_imports_nothing_heavy():
    for code, names in modules_after(["--help"], *([name, "--help"] for name in COMMANDS)):
        assert code == 0
        assert not names & HEAVY


def test_a_wrong_flag_is_refused_before_anything_heavy_is_imported():
    for code, names in modules_after(*([name, *WORDS.get(name, ()), "--no-such-flag=5"] for name in COMMANDS)):
        assert code == 2
        assert not names & HEAVY


WORDS = {
    "train": ("--data=d", "--out=o"),
    "evaluate": ("c", "d", "--out=o"),
    "render": ("--out=o",),
    "fuse": ("--out=o", "--styles=2"),
    "edit": ("r.jsonl",),
    "ingest": ("s", "--out=o"),
    "invert": ("p", "--out=o"),
    "outpaint": ("p", "--out=o"),
    "inbetween": ("p", "--out=o", "--width=5"),
    "assemble": ("o",),
    "verify": ("o",),
    "info": ("o",),
}
"""The other arguments that each command needs, so that only the flag is wrong."""


def test_help_names_what_the_modules_behind_it_take(infinitygan):
    _, out, _ = infinitygan("render", "--help")
    assert all(name in out for name in (*FORMATS, *PRECISIONS))


def test_a_manifest_that_cannot_be_written_is_one_line(render, tmp_path, monkeypatch):
    original = transforms.storage.tables.open_atomic

    def open_atomic(url):
        if url.endswith("manifest.parquet"):
            raise OSError(28, "No space left on device")
        return original(url)

    monkeypatch.setattr(transforms.storage.tables, "open_atomic", open_atomic)
    code, _, err = render()
    said = [line for line in err if not line.startswith("Tiles: ")]
    assert (code, len(said)) == (1, 1), err
    assert "No space left on device" in said[0]
    monkeypatch.undo()
    assert render()[0] == 0


def test_no_message_shows_a_password_or_a_token(capfd, tmp_path):
    for source in ("ftp://alice:S3CRET@h/a?token=T0KEN", "http://alice:S3CRET@h/a.tar"):
        assert pipelines.cli.run(["ingest", source, "--out", str(tmp_path / "out")]) == 2
    shown = capfd.readouterr().err
    assert shown.count("infinitygan: ") == 2
    assert not any(secret in shown for secret in ("S3CRET", "T0KEN", "alice"))


@pytest.mark.parametrize(
    ("flag", "choices"),
    [
        (flags.SampleFormat, LONGEST_SIDE_PX),
        (flags.Deduplication, DEDUP_WAYS),
        (flags.Preset, (*PRESETS, DETAIL)),
        (flags.Recipe, RECIPES),
        (flags.VerticalLaw, VERTICAL_LAWS),
        (flags.Protocol, PROTOCOLS),
        (flags.TrainingPrecision, (*TRAINING_PRECISIONS, "fp32", "bf16")),
        (flags.RenderPrecision, (*PRECISIONS, *SHORT_NAMES)),
    ],
)
def test_the_choices_of_a_flag_are_those_of_the_code(flag, choices):
    assert get_args(flag) == tuple(choices)


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        (("ingest", "x"), "--format", "gif"),
        (("ingest", "x"), "--dedup", "some"),
        (("train", "--data=x"), "--preset", "huge"),
        (("train", "--data=x"), "--recipe", "secret"),
        (("train", "--data=x"), "--precision", "float64"),
        (("train", "--data=x"), "--vertical-law", "none"),
        (("evaluate", "x", "y"), "--protocol", "blurred"),
        (("render",), "--precision", "tf32"),
    ],
)
def test_another_value_than_a_flags_choices_is_one_line(infinitygan, tmp_path, command, flag, value):
    code, _, err = infinitygan(*command, f"--out={tmp_path}", f"{flag}={value}")
    assert (code, len(err)) == (2, 1)
    assert f"Invalid value for '{flag}'" in err[0]
    assert f"'{value}' is not one of" in err[0]


def test_a_shell_completes_commands_and_choices():
    def completed(words, number):
        environment = {**os.environ, "_INFINITYGAN_COMPLETE": "complete_bash", "COMP_WORDS": words}
        command = [sys.executable, "-m", "pipelines.cli"]
        environment |= {"COMP_CWORD": str(number), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY).stdout.split()

    assert completed("infinitygan inv", 1) == ["invert"]
    assert completed("infinitygan train --vertical-law ", 3) == ["crop", "paper"]
