"""The existing files of a render job's folder, and files there that are not its own."""

import json

import pytest

from model.errors import InputError
from transforms.formats.registry import FORMATS
from transforms.panoramas.folder import (
    begin,
    check_plan,
    is_complete,
    look_up,
    other_plans,
    panorama_path,
    read_record,
    record_path,
)
from transforms.panoramas.plan import plan_from_json
from transforms.storage.files import write_bytes, write_json
from transforms.storage.notes import say_once


def finish(out, plan):
    """Writes the files of a finished panorama."""
    files = {name: f"{plan.request.id}.{name}" for name in plan.request.formats}
    for file in files.values():
        write_bytes(panorama_path(out, file), b"pixels")
    write_json(record_path(out, plan.request.id), {"plan": plan.digest, "files": files})


def test_a_plan_is_written_down_once(plan_of, tmp_path):
    plan = plan_of(300, 200)
    begin(str(tmp_path), plan, look_up(str(tmp_path), plan))
    (path,) = tmp_path.rglob("plan.json")
    assert json.loads(path.read_text()) == plan.pixels_json()
    assert path.parent.name == plan.digest
    before = path.stat().st_mtime_ns
    begin(str(tmp_path), plan, look_up(str(tmp_path), plan))
    assert path.stat().st_mtime_ns == before


def test_a_panorama_is_complete_when_all_its_files_are_there(plan_of, tmp_path):
    plan, out = plan_of(300, 200), str(tmp_path)
    assert not is_complete(out, plan, read_record(out, plan.request.id))
    finish(out, plan)
    assert is_complete(out, plan, read_record(out, plan.request.id))
    assert not is_complete(out, plan_of(300, 208), read_record(out, plan_of(300, 208).request.id))
    (tmp_path / "panoramas" / f"{plan.request.id}.png").unlink()
    assert not is_complete(out, plan, read_record(out, plan.request.id))


@pytest.mark.parametrize("name", [".DS_Store", "0123456789ab.bak"])
def test_what_others_put_beside_a_plan_is_left_alone(plan_of, tmp_path, name):
    plan, out = plan_of(300, 200), str(tmp_path)
    begin(out, plan, look_up(out, plan))
    folder = tmp_path / "patches" / plan.request.id
    (folder / "notes").mkdir()
    (folder / name).touch()
    assert other_plans(out, plan) == []
    check_plan(out, plan, look_up(out, plan))
    begin(out, plan, look_up(out, plan))
    assert (folder / name).exists()
    assert (folder / "notes").exists()


@pytest.mark.parametrize("file", ["/etc/passwd", "../victim", "victim.png", 5, None])
def test_a_forged_record_names_nothing_to_remove(plan_of, tmp_path, file):
    plan, out = plan_of(300, 200), str(tmp_path / "out")
    write_json(record_path(out, plan.request.id), {"plan": "0" * 12, "files": {"png": file}})
    victim = tmp_path / "out" / "panoramas" / "victim.png"
    victim.touch()
    assert read_record(out, plan.request.id) == {}
    begin(out, plan, look_up(out, plan))
    assert victim.exists()


def test_another_plan_goes_when_it_is_replaced(plan_of, tmp_path):
    plan, other, out = plan_of(300, 200), plan_of(300, 208), str(tmp_path)
    begin(out, other, look_up(out, other))
    finish(out, other)
    with pytest.raises(InputError, match="--replace"):
        check_plan(out, plan, look_up(out, plan))
    begin(out, plan, look_up(out, plan))
    check_plan(out, plan, look_up(out, plan))
    assert [path.name for path in (tmp_path / "panoramas").iterdir()] == []
    assert len(list(tmp_path.rglob("plan.json"))) == 1


@pytest.mark.parametrize("part", ["files", "request", "seam_audit", "precision_difference"])
@pytest.mark.parametrize("value", [None, 0, "", [], "left out"])
def test_a_part_that_a_record_lacks_is_read_as_empty(part, value, plan_of, tmp_path):
    plan, out = plan_of(300, 200), str(tmp_path)
    record = {"plan": "0" * 12, "files": {}, "request": {}, "seam_audit": {}, part: value}
    write_json(record_path(out, "p"), {name: x for name, x in record.items() if x != "left out"})
    assert dict(read_record(out, "p"))[part] == {}
    assert not is_complete(out, plan, read_record(out, "p"))
    with pytest.raises(InputError, match="already holds panorama p with another plan"):
        check_plan(out, plan, look_up(out, plan))
    begin(out, plan, look_up(out, plan))


@pytest.mark.parametrize(
    "forged",
    [
        {"files": {"zarr/../../../victim": "p.zarr/../../../victim"}},
        {"files": {"png": "victim.png"}},
        {"files": ["p.png"]},
        {"request": 5},
        {"seam_audit": 5},
        {"seam_audit": {"max_difference": "<b>"}},
        {"seam_audit": {"max_difference": 10**30}},
        {"precision_difference": [1]},
        {"pixel_sha256": 5},
        {"plan": "../../victim"},
    ],
)
def test_a_forged_record_harms_nobody(forged, plan_of, tmp_path, capsys):
    plan, out = plan_of(300, 200), str(tmp_path / "out")
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "out" / "panoramas").mkdir(parents=True)
    (tmp_path / "out" / "panoramas" / "victim.png").touch()
    (tmp_path / "out" / "panoramas" / "p.zarr").mkdir()
    write_json(record_path(out, "p"), {"plan": "0" * 12, "files": {}, **forged})
    say_once.cache_clear()
    record = read_record(out, "p")
    assert set(record.get("files", ())) <= set(FORMATS)
    assert record or "is not the record of panorama p; it is ignored" in capsys.readouterr().err
    begin(out, plan, look_up(out, plan))
    assert victim.exists()
    assert (tmp_path / "out" / "panoramas" / "victim.png").exists()
    assert not is_complete(out, plan, read_record(out, plan.request.id))


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b'{"request": 5}', b"{}"])
def test_a_damaged_plan_is_written_down_again(content, plan_of, tmp_path):
    plan, out = plan_of(300, 200), str(tmp_path)
    begin(out, plan, look_up(out, plan))
    (path,) = tmp_path.rglob("plan.json")
    path.write_bytes(content)
    begin(out, plan, look_up(out, plan))
    assert json.loads(path.read_text()) == plan.pixels_json()


@pytest.mark.parametrize(
    "changed",
    [
        {"tile_px": "32"},
        {"tile_px": 0},
        {"tile_px": 10**9},
        {"tile_px": True},
        {"precision": 5},
        {"checkpoint_sha256": None},
        {"scheme_version": {}},
        {"request": {"id": "p", "seed": 7, "width_px": 2 * 10**9, "height_px": 2 * 10**9}},
    ],
)
def test_a_forged_plan_is_named(changed, plan_of):
    plan = plan_of(300, 200)
    with pytest.raises(InputError) as caught:
        plan_from_json({**plan.to_json(), "plan": plan.digest, **changed}, "", "p.json")
    assert "\n" not in str(caught.value)
