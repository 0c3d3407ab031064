import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import apache_beam as beam
import forks
import fsspec
import numpy as np
import pytest
import webdataset
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from sets import read_index

import transforms.ingest.cells
import transforms.ingest.crawler
import transforms.ingest.publish
import transforms.ingest.ranges
import transforms.ingest.staging
import transforms.ingest.steps
import transforms.photographs.prepare
import transforms.storage.retry
from model.errors import InputError
from pipelines import cli
from pipelines.ingest import build, ingest, repack
from pipelines.terminal.failures import UnwatchedError
from pipelines.terminal.ingest_tables import show_summary
from pipelines.terminal.progress import track
from tests.transforms.training_set.test_dataset import write_as_version_1
from transforms.ingest import staging
from transforms.ingest.find_steps import FindPhotographs
from transforms.ingest.options import IngestOptions
from transforms.ingest.plan import Plan, write_sources
from transforms.photographs.prepare import Preparation
from transforms.storage.memory import Budget
from transforms.storage.tables import read_rows
from transforms.training_set.dataset import REJECTS_SCHEMA, Dataset
from transforms.training_set.records import Photograph
from transforms.training_set.samples import Sample, plan_patches

REPOSITORY = Path(__file__).parents[2]


def scene(seed: int, width: int = 320, height: int = 200) -> Image.Image:
    """Draws smooth colours, brighter above than below."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 120, (4, 7, 3)) + np.array([130, 90, 40, 0])[:, None, None]
    return Image.fromarray(small.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def write_good_photographs(folder: Path, count: int) -> None:
    for index in range(count):
        scene(index).save(folder / f"good-{index:02d}.jpg", quality=90)


def write_odd_files(folder: Path) -> dict[str, str]:
    """Writes one difficult file of each kind; returns the reject reasons by name, empty for those to be kept."""
    jpeg = io.BytesIO()
    scene(100).save(jpeg, "JPEG")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    (folder / "text.jpg").write_text("once upon a time")
    scene(101).convert("CMYK").save(folder / "cmyk.jpg")
    grey = np.tile(np.linspace(0, 65535, 300).astype(np.uint16), (200, 1))
    Image.fromarray(grey).save(folder / "sixteen-bit.png")
    palette = scene(102).quantize(16)
    palette.save(folder / "palette.png", transparency=palette.getpixel((0, 0)))
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(103).transpose(Image.Transpose.ROTATE_90).save(folder / "rotated.jpg", exif=exif, quality=95)
    frames = [scene(104), scene(105)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (15_000, 15_000)).save(folder / "bomb.png")
    scene(106, 10, 10).save(folder / "tiny.png")
    scene(107).save(folder / "Höhen züge.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "same again.jpg").write_bytes((folder / "good-00.jpg").read_bytes())
    (folder / "notes.txt").write_text("taken in May")
    return {
        "empty.jpg": "empty",
        "truncated.jpg": "truncated",
        "text.jpg": "unreadable",
        "cmyk.jpg": "",
        "sixteen-bit.png": "",
        "palette.png": "",
        "rotated.jpg": "",
        "animated.gif": "",
        "bomb.png": "too_large",
        "tiny.png": "too_small",
        "Höhen züge.jpg": "",
        "loop": "symlink_loop",
        "loop.jpg": "unreadable",
        "same again.jpg": "duplicate",
        "notes.txt": "not_a_picture",
    }


def make(sources: object, out: object, **options: object) -> Dataset:
    return ingest(IngestOptions((str(sources),), str(out), **options))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def read_rejects(out: str) -> list[dict]:
    return read_rows(f"{out}/rejects.parquet", "table of rejects", REJECTS_SCHEMA)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_good_photographs(folder, 30)
    folder_reasons = write_odd_files(folder)
    return folder, folder_reasons


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    return out, make(photographs[0], out)


def test_every_file_is_in_the_shards_or_in_the_rejects_once(photographs, made):
    folder, reasons = photographs
    out, dataset = made
    kept = [os.path.basename(row["source"]) for row in read_index(str(out))]
    rejected = {os.path.basename(row["source"]): row for row in read_rejects(str(out))}
    assert sorted([*kept, *rejected]) == sorted(os.listdir(folder))
    assert {name: rejected[name]["reason"] for name in rejected} == {n: r for n, r in reasons.items() if r}
    assert all(row["message"] and row["stage"] and row["attempts"] == 1 for row in rejected.values())
    winner = next(row for row in read_index(str(out)) if row["source"].endswith("good-00.jpg"))
    assert winner["key"] in rejected["same again.jpg"]["message"]
    assert dataset["rejects"]["duplicate"] == 1
    assert sum(dataset["samples"].values()) == len(kept) == 36


def test_what_is_stored_is_upright_and_looks_like_the_photograph(made):
    expected = {
        "rotated.jpg": scene(103),
        "cmyk.jpg": scene(101),
        "animated.gif": scene(104),
        "Höhen züge.jpg": scene(107),
        "good-07.jpg": scene(7),
    }
    seen = set()
    for shard in made[0].glob("*.tar"):
        for raw in webdataset.WebDataset([str(shard)], shardshuffle=False):
            sample = Sample.from_json(json.loads(raw["json"]))
            with Image.open(io.BytesIO(raw["jpg"])) as image:
                assert image.mode == "RGB"
                assert image.size == (sample.stored_width_px, sample.stored_height_px)
                assert image.height == 197
                name = os.path.basename(sample.source)
                if name in expected:
                    seen.add(name)
                    assert (sample.original_width_px, sample.original_height_px) == (320, 200)
                    want = np.asarray(expected[name].resize(image.size), np.float64)
                    assert np.abs(np.asarray(image, np.float64) - want).mean() < 5, name
                if name == "sixteen-bit.png":
                    assert image.getextrema()[0] == (0, 255)
    assert seen == set(expected)


def test_shards_index_and_metadata_agree(made):
    out, dataset = made
    rows = read_index(str(out))
    for row in rows:
        with open(out / row["shard"], "rb") as file:
            file.seek(row["offset"])
            with Image.open(io.BytesIO(file.read(row["size"]))) as image:
                assert image.size == (row["stored_width_px"], row["stored_height_px"])
        assert row["shard"].startswith(row["split"])
        planned = plan_patches(row["key"], row["stored_width_px"], (0, 197), 101)
        assert [patch["vertical_position"] for patch in row["patches"]] == [p.vertical_position for p in planned]
    assert {shard["samples"] for name, shard in dataset["shards"].items() if name.startswith("train")} == {1}
    assert sum(name.startswith("train") for name in dataset["shards"]) >= 16
    assert sorted(path.name for path in out.glob("*.tar")) == sorted(dataset["shards"])
    assert {"index.parquet", "rejects.parquet", "dataset.json", "report.html"} == set(contents(out)) - set(
        dataset["shards"]
    )


def test_two_runs_give_the_same_bytes_whatever_the_runner_and_its_retries(photographs, made, tmp_path, monkeypatch):
    write_shard = transforms.ingest.steps.write_shard
    stage = transforms.ingest.crawler.stage

    def failing_once(function, mark):
        def wrapper(*arguments):
            result = function(*arguments)
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return result
            raise RuntimeError("a worker was lost after its work was done")

        return wrapper

    monkeypatch.setattr(transforms.ingest.steps, "write_shard", failing_once(write_shard, str(tmp_path / "mark-1")))
    monkeypatch.setattr(transforms.ingest.crawler, "stage", failing_once(stage, str(tmp_path / "mark-2")))
    options = IngestOptions((str(photographs[0]),), str(tmp_path / "again"))
    ingest(options, PipelineOptions(["--runner=BundleBasedDirectRunner"]))
    assert (tmp_path / "mark-1").exists()
    assert (tmp_path / "mark-2").exists()
    assert contents(tmp_path / "again") == contents(made[0])


def test_several_threads_give_the_same_bytes(photographs, made, tmp_path):
    flags = ["--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    ingest(IngestOptions((str(photographs[0]),), str(tmp_path / "threads")), PipelineOptions(flags))
    assert contents(tmp_path / "threads") == contents(made[0])


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """Returns a set, photographs that resemble each other and some in the set, and the set extended by them."""
    known, new = (tmp_path_factory.mktemp("alike") for _ in range(2))
    sets = tmp_path_factory.mktemp("made")
    for seed in range(12):
        for height in (200, 250, 300):
            folder = known if height == 200 and seed < 4 else new
            scene(seed, height * 8 // 5, height).save(folder / f"{seed}-{height}.jpg", quality=70 + seed)
    make(known, sets / "before")
    shutil.copytree(sets / "before", sets / "after")
    assert make(new, sets / "after")["rejects"]["near_duplicate"] > 20
    return sets / "before", new, sets / "after"


@pytest.mark.parametrize(
    "flags",
    [["--runner=BundleBasedDirectRunner"], ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]],
)
def test_cells_give_the_same_set_as_comparing_all_pairs(alike, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(transforms.ingest.steps, "COMPARED_EXACTLY", 0)
    monkeypatch.setattr(transforms.ingest.ranges, "RANGE_ROWS", 4)
    monkeypatch.setattr(transforms.ingest.cells, "winning_cells", lambda cells: cells)
    before, new, after = alike
    shutil.copytree(before, tmp_path / "set")
    ingest(IngestOptions((str(new),), str(tmp_path / "set")), PipelineOptions(flags))
    assert contents(tmp_path / "set") == contents(after)


@pytest.fixture
def few(tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    write_good_photographs(folder, 6)
    return folder


def test_shards_have_the_size_asked_for(few, tmp_path):
    dataset = make(few, tmp_path / "out", samples_per_shard=4)
    for split, count in dataset["samples"].items():
        sizes = [s["samples"] for name, s in sorted(dataset["shards"].items()) if name.startswith(split)]
        assert sizes == [4] * (count // 4) + [count % 4] * (count % 4 > 0)


def test_copies_are_kept_where_that_is_asked_for(few, tmp_path):
    for name in ("z.jpg", "a.jpg"):
        (few / name).write_bytes((few / "good-03.jpg").read_bytes())
    dataset = make(few, tmp_path / "out", dedup="off")
    assert sum(dataset["samples"].values()) == 8
    copies = {os.path.basename(r["source"]): r for r in read_index(str(tmp_path / "out")) if len(r["key"]) > 16}
    first = next(r for r in read_index(str(tmp_path / "out")) if r["source"].endswith("a.jpg"))
    assert {name: row["key"] for name, row in copies.items()} == {
        "good-03.jpg": f"{first['key']}-1",
        "z.jpg": f"{first['key']}-2",
    }
    assert {row["split"] for row in copies.values()} == {first["split"]}


def test_square_and_sizes(few, tmp_path):
    scene(50, 200, 320).save(few / "tall.jpg")
    scene(51, 120, 110).save(few / "small.jpg")
    make(few, tmp_path / "square", preparation=Preparation(full_height_px=160, patch_size_px=110, square=True))
    rows = read_index(str(tmp_path / "square"))
    assert {(row["stored_width_px"], row["stored_height_px"]) for row in rows} == {(160, 160)}
    boxes = {os.path.basename(row["source"]): row["crop_box_px"] for row in rows}
    assert boxes["good-00.jpg"] == [60, 0, 260, 200]
    assert boxes["tall.jpg"] == [0, 60, 200, 260]
    assert boxes["small.jpg"] == [5, 0, 115, 110]
    assert rows[0]["patches"][0]["size_px"] == 110


def test_licence_and_author_reach_the_shards(few, tmp_path):
    (few / "inventory.tsv").write_text("file\tlicense\tauthor\ngood-02.jpg\tCC-BY-4.0\tZoë\n")
    make(few, tmp_path / "out")
    credit = {(row["licence"], row["author"]) for row in read_index(str(tmp_path / "out"))}
    assert credit == {("CC-BY-4.0", "Zoë"), (None, None)}


def test_object_stores_hold_sources_and_sets(few, tmp_path):
    store = fsspec.filesystem("memory")
    for path in few.iterdir():
        store.pipe(f"/photo-store/{path.name}", path.read_bytes())
    make("memory://photo-store", "memory://set-store/one")
    local = make(few, tmp_path / "out")
    assert not store.exists("/set-store/one/.staging")
    assert len(read_index("memory://set-store/one")) == sum(local["samples"].values()) == 6
    for name in ("good-00.jpg", "good-01.jpg"):
        store.pipe(f"/photo-store/more/{name}", (few / name).read_bytes()[:-2] + b"\0\xff\xd9")
    more = make("memory://photo-store", "memory://set-store/one")
    assert more["rejects"] == {"near_duplicate": 2}
    assert repack("memory://set-store/one")["samples"] == more["samples"]
    assert not store.exists("/set-store/one/.staging")


def options(**values):
    return IngestOptions(**{"sources": ("photos",), "out": "out", **values})


@pytest.mark.parametrize(
    ("made", "values", "message"),
    [
        (Preparation, {"full_height_px": 100}, r"--full-size 100 is out of range: give from the patch size, 101, to"),
        (Preparation, {"full_height_px": 0}, r"--full-size 0 "),
        (Preparation, {"full_height_px": -5}, r"--full-size -5 "),
        (Preparation, {"full_height_px": 70_000}, r"--full-size 70000 "),
        (Preparation, {"patch_size_px": 0}, r"--patch-size 0 is too small: give 1 or more"),
        (Preparation, {"patch_size_px": -1}, r"--patch-size -1 "),
        (options, {"samples_per_shard": 0}, r"--samples-per-shard 0 is too small: give 1"),
        (options, {"dedup": "fuzzy"}, r"--dedup fuzzy is unknown: give near or exact or off"),
        (options, {"sources": ()}, "no source given"),
        (options, {"out": ""}, "--out is empty"),
    ],
)
def test_wrong_options_are_named(made, values, message):
    with pytest.raises(InputError, match=message) as caught:
        made(**values)
    assert "\n" not in str(caught.value)


def test_wrong_sources_and_targets_are_said_before_anything_is_written(few, tmp_path):
    (tmp_path / "empty").mkdir()
    for source, message in ((tmp_path / "missing", "missing does not exist"), (tmp_path / "empty", "no photographs")):
        with pytest.raises(InputError, match=message):
            make(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_are_left_to_a_job_that_may_go_on(few, tmp_path, monkeypatch):
    """Its job server stops answering when the shards are written, but not the tables."""

    def gone(*arguments):
        raise UnwatchedError("the job server no longer answers")

    monkeypatch.setattr(transforms.ingest.publish, "write_tables", gone)
    with pytest.raises(UnwatchedError):
        make(few, tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.tar"))


def test_a_run_that_fails_leaves_only_what_is_done_and_the_next_one_goes_on(few, tmp_path, monkeypatch):
    monkeypatch.setattr(transforms.ingest.publish, "write_tables", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(few, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [".staging"]
    monkeypatch.undo()
    monkeypatch.setattr(transforms.ingest.crawler, "read_photograph", lambda *arguments: 1 / 0)
    make(few, tmp_path / "out")
    monkeypatch.undo()
    make(few, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


KILLED_AT = {
    "the tenth photograph": "import transforms.ingest.crawler as m; name = 'prepare_photograph'; after = 9",
    "the second stage": "import transforms.ingest.batches as m; name = 'write_lines'; after = 2",
    "the third shard": "import transforms.ingest.steps as m; name = 'write_shard'; after = 2",
    "the tables": "import transforms.ingest.publish as m; name = 'write_tables'; after = 0",
    "dataset.json": "import transforms.training_set.dataset as m; name = 'write_json'; after = 0",
    "the end": "import transforms.ingest.staging as m; name = 'finish'; after = 1",
}


def killed_run(moment, sources, out, **options):
    """Runs ingest in a process of its own that is killed at that moment."""
    program = (
        f"import os, transforms.ingest.crawler\n{KILLED_AT[moment]}\n"
        "transforms.ingest.crawler.STAGE_EVERY_PHOTOGRAPHS = 5\n"
        "function, calls = getattr(m, name), []\n"
        "def killing(*arguments):\n"
        "    calls.append(0)\n"
        "    return os.kill(os.getpid(), 9) if len(calls) > after else function(*arguments)\n"
        "setattr(m, name, killing)\n"
        "from pipelines.ingest import IngestOptions, ingest\n"
        f"ingest(IngestOptions(({str(sources)!r},), {str(out)!r}, **{options!r}))\n"
    )
    code, said = forks.run(program)
    assert code == -signal.SIGKILL, said


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Returns a folder of photographs, the set made when it held 8 of them, and that set with the rest added."""
    folder, first, fresh = (tmp_path_factory.mktemp("grown") / name for name in ("photographs", "first", "fresh"))
    folder.mkdir()
    write_good_photographs(folder, 8)
    make(folder, first, samples_per_shard=3)
    write_good_photographs(folder, 24)
    (folder / "bad.jpg").write_text("once upon a time")
    shutil.copytree(first, fresh)
    make(folder, fresh, samples_per_shard=3)
    return folder, first, fresh


@pytest.mark.parametrize("moment", KILLED_AT)
@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_as_if_never_killed(grown, tmp_path, moment):
    """This also holds if it was to extend a set, whose samples and shards stay as they are."""
    folder, first, fresh = grown
    out = shutil.copytree(first, tmp_path / "out")
    killed_run(moment, folder, out, samples_per_shard=3)
    make(folder, out, samples_per_shard=3)
    assert contents(out) == contents(fresh)
    before = contents(first)
    assert all(contents(out)[name] == content for name, content in before.items() if name.endswith(".tar"))
    index = read_index(str(out))
    assert len({row["source"] for row in index}) == len(index) == 24


def test_the_same_command_again_changes_nothing(few, tmp_path):
    first = make(few, tmp_path / "out")
    before = contents(tmp_path / "out")
    assert make(few, tmp_path / "out") == first
    assert contents(tmp_path / "out") == before


def test_a_set_of_version_1_is_extended_like_one_of_version_2(few, tmp_path):
    make(few, tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    write_as_version_1(tmp_path / "old")
    write_good_photographs(few, 8)
    assert make(few, tmp_path / "new")["format_version"] == make(few, tmp_path / "old")["format_version"] == 2
    assert contents(tmp_path / "old") == contents(tmp_path / "new")


def test_what_is_added_has_the_sizes_of_the_set(few, tmp_path):
    make(few, tmp_path / "out")
    write_good_photographs(few, 8)
    with pytest.raises(InputError, match="contains a set made with --full-size 197, not 389: give --full-size 197"):
        make(few, tmp_path / "out", preparation=Preparation(full_height_px=389))
    later = make(few, tmp_path / "out", preparation=Preparation(quality=80))
    assert (later["configuration"]["quality"], later["later_configurations"][0]["quality"]) == (95, 80)


def read_shards(out):
    return sorted(json.loads((out / "dataset.json").read_text())["shards"].items())


def test_a_set_made_in_three_runs_is_repacked_into_what_one_run_would_have_made(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for count in (5, 9, 20):
        write_good_photographs(folder, count)
        make(folder, tmp_path / "out", samples_per_shard=4)
    train = [shard["samples"] for name, shard in read_shards(tmp_path / "out") if name.startswith("train")]
    assert any(count < 4 for count in train[:-1])
    make(folder, tmp_path / "once", samples_per_shard=4)
    repacked = repack(str(tmp_path / "out"), 4)
    once = contents(tmp_path / "once")
    assert set(contents(tmp_path / "out")) == set(once)
    differ = {name for name, content in contents(tmp_path / "out").items() if content != once[name]}
    assert differ <= {"dataset.json", "report.html"}
    assert sorted(repacked["shards"].items()) == read_shards(tmp_path / "once")


@pytest.mark.parametrize("moment", [0, 1, 3])
def test_a_repacking_that_is_cut_off_is_ended_by_the_next_command(few, tmp_path, monkeypatch, moment):
    make(few, tmp_path / "out")
    real, moves = transforms.ingest.staging.move, []

    def cut_off(*arguments):
        moves.append(arguments)
        if len(moves) > moment:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(transforms.ingest.staging, "move", cut_off)
    with pytest.raises(OSError, match="No space"):
        repack(str(tmp_path / "out"), 2)
    assert not (tmp_path / "out" / "dataset.json").exists()
    monkeypatch.undo()
    make(few, tmp_path / "out")
    make(few, tmp_path / "fresh", samples_per_shard=2)
    shards = {name: content for name, content in contents(tmp_path / "out").items() if name.endswith(".tar")}
    assert shards == {name: content for name, content in contents(tmp_path / "fresh").items() if name.endswith(".tar")}


def test_only_rejects_of_a_reason_are_tried_again(few, tmp_path):
    (few / "late.jpg").write_bytes(b"")
    (few / "text.jpg").write_text("once upon a time")
    make(few, tmp_path / "out")
    scene(60).save(few / "late.jpg")
    scene(61).save(few / "text.jpg")
    again = ingest(IngestOptions((), str(tmp_path / "out"), retry_rejects=("empty",)))
    assert (sum(again["samples"].values()), again["rejects"]) == (7, {"unreadable": 1})
    with pytest.raises(
        InputError,
        match=r"--retry-rejects empty: nothing in .* was rejected for this; its reasons are: unreadable \(1\)",
    ):
        ingest(IngestOptions((), str(tmp_path / "out"), retry_rejects=("empty",)))
    again = ingest(IngestOptions((), str(tmp_path / "out"), retry_rejects=("all",)))
    assert (sum(again["samples"].values()), again["rejects"]) == (8, {})


def read(path: Path, budget_bytes: int = 1 << 20) -> tuple[bytes, int]:
    """Reads a file as a photograph; returns it and the number of attempts, and releases its memory."""
    budget = Budget(budget_bytes)
    with ExitStack() as held:
        answer = transforms.photographs.prepare.read_photograph(Photograph(str(path)), budget, held)
    with budget.hold(budget_bytes, "all of it"):
        return answer


def test_a_store_that_answers_late_is_asked_again(few, monkeypatch):
    monkeypatch.setattr(transforms.storage.retry.time, "sleep", lambda seconds: None)
    failures = [OSError(503, "busy"), OSError(503, "busy")]
    real = fsspec.implementations.local.LocalFileSystem.open

    def flaky(self, path, *arguments, **options):
        if failures:
            raise failures.pop()
        return real(self, path, *arguments, **options)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "open", flaky)
    content, attempts = read(few / "good-00.jpg")
    assert (content, attempts) == ((few / "good-00.jpg").read_bytes(), 3)
    failures += [OSError(503, "busy")] * 3
    with pytest.raises(transforms.photographs.prepare.Rejection, match="busy"):
        read(few / "good-00.jpg")


class BusyError(Exception):
    """An error as a store may define it: not an OSError, and with a message of two lines."""


@pytest.mark.parametrize(
    ("error", "times", "message"),
    [
        (BusyError("503\nbusy"), 3, "503 busy (3 attempts)"),
        (BusyError(), 3, "BusyError (3 attempts)"),
        (ValueError("of the data"), 1, "of the data"),
    ],
)
def test_a_store_with_errors_of_its_own_is_asked_again_and_then_the_file_is_a_reject(
    few, monkeypatch, error, times, message
):
    monkeypatch.setattr(transforms.storage.retry.time, "sleep", lambda seconds: None)
    attempts = []

    def fail(self, path, *arguments, **options):
        attempts.append(path)
        raise error

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "open", fail)
    with pytest.raises(transforms.photographs.prepare.Rejection) as caught:
        read(few / "good-00.jpg")
    assert len(attempts) == times
    assert (caught.value.reason, caught.value.message) == ("unreadable", message)


def test_a_file_that_vanishes_is_a_reject_and_a_huge_one_too(few):
    with pytest.raises(transforms.photographs.prepare.Rejection, match="No such file"):
        read(few / "gone.jpg")
    with pytest.raises(transforms.photographs.prepare.Rejection, match="at most 1 MB: give more --memory"):
        read(few / "good-00.jpg", 1_000)


def test_ingest_imports_no_torch(tmp_path):
    write_good_photographs(tmp_path, 1)
    program = (
        "import sys\nfrom pipelines.cli import run\n"
        f"code = run(['ingest', {str(tmp_path)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
        "sys.exit(3 if 'torch' in sys.modules else code)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False).returncode == 0


def test_the_summary_names_splits_and_reasons(made, capsys):
    show_summary(str(made[0]), made[1])
    shown = capsys.readouterr().err
    assert "train" in shown
    assert "rejected: truncated" in shown


def command(*arguments):
    """Runs the command line; returns its exit code."""
    return cli.run(["ingest", *map(str, arguments)])


def test_the_command_makes_a_set(few, tmp_path):
    assert command(few, "--out", tmp_path / "out", "--full-size", 120, "--square", "--samples-per-shard", 3) == 0
    assert {row["stored_width_px"] for row in read_index(str(tmp_path / "out"))} == {120}


def test_the_command_passes_beams_flags_on(few, tmp_path, monkeypatch):
    passed = []
    monkeypatch.setattr("pipelines.terminal.beam_flags.beam_options", lambda flags, own: passed.extend(flags))
    monkeypatch.setattr("pipelines.ingest.ingest", lambda options, beam_flags: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("--direct_num_workers=2", few, "--out", tmp_path / "out", "--no_auth")
    assert passed == ["--direct_num_workers=2", "--no_auth"]


@pytest.mark.parametrize(
    ("flag", "meant"), [("--fulsize", "--full-size"), ("--samples-per-shards", "--samples-per-shard")]
)
def test_a_misspelt_flag_is_refused_with_the_one_that_was_meant(few, tmp_path, capsys, flag, meant):
    assert command(few, "--out", tmp_path / "out", flag, "100") == 2
    assert capsys.readouterr().err == f"infinitygan: {flag} is unknown: did you mean {meant}?\n"
    assert not (tmp_path / "out").exists()


def test_the_command_says_when_nothing_could_be_used(tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("once upon a time")
    assert command(tmp_path / "text.jpg", "--out", tmp_path / "out") == 1
    assert "no photograph could be used" in capsys.readouterr().err
    assert read_rejects(str(tmp_path / "out"))[0]["reason"] == "unreadable"


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("transforms.ingest.batches.write_bytes", errno.ENOSPC),
        ("transforms.training_set.dataset.write_parts", errno.EACCES),
        ("transforms.training_set.shards.add_member", errno.EROFS),
    ],
)
def test_storage_that_fails_is_said_in_one_line_and_the_next_run_goes_on(
    few, tmp_path, capsys, monkeypatch, function, code
):
    def fail(*arguments):
        raise OSError(code, os.strerror(code), "a.jpg")

    monkeypatch.setattr(function, fail)
    assert command(few, "--out", tmp_path / "out", "--quiet") == 1
    assert capsys.readouterr().err == f"infinitygan: a.jpg: {os.strerror(code)}\n"
    assert set(os.listdir(tmp_path / "out")) <= {".staging"}
    monkeypatch.undo()
    assert command(few, "--out", tmp_path / "out") == 0


def test_the_command_explains_its_options(capsys):
    assert command("--help") == 0
    shown = capsys.readouterr().out
    for name in (
        "--out",
        "--full-size",
        "--retry-rejects",
        "--repack",
        "--dry-run",
        "--contact",
        "--patch-size",
        "--square",
        "--samples-per-shard",
        "--dedup",
        "197",
        "101",
    ):
        assert name in shown


def test_progress_is_a_line_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr("pipelines.terminal.progress._POLL_S", 0.01)
    monkeypatch.setattr("pipelines.terminal.progress._FIRST_LINE_S", 0.02)
    monkeypatch.setattr("pipelines.terminal.progress._LINE_EVERY_S", 0.02)
    done = iter([0, 3])
    threads = threading.active_count()
    with track("Photographs", 10, lambda: next(done, 5)):
        time.sleep(0.2)
    assert threading.active_count() == threads
    assert "Photographs: 5/10, about" in capsys.readouterr().err


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with track("Photographs", 10, lambda: 10):
        pass
    assert "10/10" in capsys.readouterr().err


def test_a_worker_stays_within_its_memory_whatever_the_pictures(tmp_path):
    """Each of these takes 170 MB to decode, and all share 200 MB, so they take turns."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        Image.new("RGBA", (4500, 4000), (number, 90, 200, 255)).save(source / f"{number}.png", compress_level=1)
    Image.new("RGB", (7000, 7000)).save(source / "large.png", compress_level=1)
    code = (
        "from pathlib import Path; from pipelines.cli import run;"
        f"run(['ingest', {str(source)!r}, '--out', {str(tmp_path / 'out')!r}, '--no-filters', '--dedup', 'off', "
        "'--memory', '768']);"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )  # getrusage's peak would be that of the process which started this one, if that was larger
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 768 << 10
    (reject,) = read_rejects(str(tmp_path / "out"))
    assert (reject["reason"], "give more --memory" in reject["message"]) == ("too_large", True)


def test_what_has_been_mended_is_no_reject_any_more(few, tmp_path):
    rows = ["url", str(few / "good-00.jpg"), '""', "ftp://h/x.jpg"]
    listed = tmp_path / "l.csv"
    options = IngestOptions((str(listed),), str(tmp_path / "out"), dedup="off")
    listed.write_text("\n".join(rows))
    ingest(options)
    before = read_rejects(tmp_path / "out")
    assert {(r["source"], r["reason"]) for r in before} == {
        (f"{listed}#2", "bad_url"),
        ("ftp://h/x.jpg", "not_allowed"),
    }
    assert ingest(options)["rejects"] == {"bad_url": 1, "not_allowed": 1}
    listed.write_text("\n".join([*rows[:2], str(few / "good-01.jpg"), rows[3]]))
    made = ingest(options)
    assert sum(made["samples"].values()) == 2
    assert [r["source"] for r in read_rejects(tmp_path / "out")] == ["ftp://h/x.jpg"]


def test_rejects_of_finding_are_tried_again_too(few, tmp_path):
    link = few / "late.jpg"
    link.symlink_to(tmp_path / "later")
    (few / "bad.tar").write_bytes(b"x" * 5000)
    make(few, tmp_path / "out")
    (tmp_path / "later").write_bytes((few / "good-00.jpg").read_bytes())
    retry = IngestOptions((), str(tmp_path / "out"), dedup="off", retry_rejects=("unreadable",))
    before = {row["source"] for row in read_index(str(tmp_path / "out"))}
    ingest(retry)
    assert {row["source"] for row in read_index(str(tmp_path / "out"))} == before | {str(link)}
    assert [row["source"] for row in read_rejects(tmp_path / "out")] == [str(few / "bad.tar")]


def graph_bytes(count, out):
    """Returns the sizes of the graphs of both jobs that deal with this number of photographs, as a runner gets them."""
    shards = {f"train-{number:06d}.tar": {"sha256": "0" * 64, "size_bytes": 1, "samples": 1} for number in range(count)}
    sizes = {"full_height_px": 197, "patch_size_px": 101}
    samples = {"train": count, "val": 0, "test": 0}
    there = {"format_version": 2, **sizes, "configuration": sizes, "samples": samples, "rejects": {}, "shards": shards}
    sources = tuple(f"/photographs/{number:06d}.jpg" for number in range(count))
    asked = IngestOptions(sources, out)
    staging.note(out, there, asked.configuration())
    write_sources(out, sources)
    planned = Plan(count, count, count, -(-count // 4096), 1)
    find, deal_with = beam.Pipeline(), beam.Pipeline()
    _ = find | FindPhotographs(out, out, asked.manners, asked.depth, extends=True)
    build(deal_with, asked, planned)
    return [pipeline.to_runner_api().ByteSize() for pipeline in (find, deal_with)]


def test_a_jobs_graph_does_not_grow_with_its_inputs_nor_with_the_set(tmp_path):
    few, many = (graph_bytes(count, str(tmp_path / f"{count:06d}")) for count in (10, 100_000))
    assert many == [pytest.approx(size, rel=0.01) for size in few]
    assert max(many) < 200_000
