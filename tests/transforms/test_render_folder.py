"""What is already in a render job's folder, and what is not ours there."""

import json

import pytest

from model.errors import InputError
from transforms.render_folder import (
    begin,
    check_plan,
    is_complete,
    other_plans,
    panorama_path,
    read_record,
    record_path,
)
from transforms.storage import write_bytes, write_json


def finish(out, plan):
    """What a finished panorama leaves."""
    files = {name: f"{plan.request.id}.{name}" for name in plan.request.formats}
    for file in files.values():
        write_bytes(panorama_path(out, file), b"pixels")
    write_json(record_path(out, plan.request.id), {"plan": plan.digest, "files": files})


def test_a_plan_is_written_down_once(plan_of, tmp_path):
    plan = plan_of(300, 200)
    begin(str(tmp_path), plan)
    (path,) = tmp_path.rglob("plan.json")
    assert json.loads(path.read_text()) == plan.pixels_json()
    assert path.parent.name == plan.digest
    before = path.stat().st_mtime_ns
    begin(str(tmp_path), plan)
    assert path.stat().st_mtime_ns == before


def test_a_panorama_is_complete_when_all_its_files_are_there(plan_of, tmp_path):
    plan, out = plan_of(300, 200), str(tmp_path)
    assert not is_complete(out, plan)
    finish(out, plan)
    assert is_complete(out, plan)
    assert not is_complete(out, plan_of(300, 208))
    (tmp_path / "panoramas" / f"{plan.request.id}.png").unlink()
    assert not is_complete(out, plan)


@pytest.mark.parametrize("name", [".DS_Store", "0123456789ab.bak"])
def test_what_others_put_beside_a_plan_is_left_alone(plan_of, tmp_path, name):
    plan, out = plan_of(300, 200), str(tmp_path)
    begin(out, plan)
    folder = tmp_path / "patches" / plan.request.id
    (folder / "notes").mkdir()
    (folder / name).touch()
    assert other_plans(out, plan) == []
    check_plan(out, plan)
    begin(out, plan)
    assert (folder / name).exists()
    assert (folder / "notes").exists()


@pytest.mark.parametrize("file", ["/etc/passwd", "../victim", "victim.png", 5, None])
def test_a_forged_record_names_nothing_to_remove(plan_of, tmp_path, file):
    plan, out = plan_of(300, 200), str(tmp_path / "out")
    write_json(record_path(out, plan.request.id), {"plan": "0" * 12, "files": {"png": file}})
    victim = tmp_path / "out" / "panoramas" / "victim.png"
    victim.touch()
    assert read_record(out, plan.request.id) == {}
    begin(out, plan)
    assert victim.exists()


def test_another_plan_goes_when_it_is_replaced(plan_of, tmp_path):
    plan, other, out = plan_of(300, 200), plan_of(300, 208), str(tmp_path)
    begin(out, other)
    finish(out, other)
    with pytest.raises(InputError, match="--replace"):
        check_plan(out, plan)
    begin(out, plan)
    check_plan(out, plan)
    assert [path.name for path in (tmp_path / "panoramas").iterdir()] == []
    assert len(list(tmp_path.rglob("plan.json"))) == 1
