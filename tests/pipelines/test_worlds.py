"""Every kind of world through `render`: promises 1 to 3, edits that affect only their own tiles, and `verify`."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import PRESETS
from model.errors import InputError
from model.quantise import quantise
from model.world.definition import Edit, Journey, Style
from model.world.detailed import at_scale
from model.world.world import World
from pipelines.cli import main
from pipelines.render import render
from pipelines.terminal.beam_flags import beam_options
from pipelines.verify import verify
from transforms.panoramas.plan import Plan
from transforms.panoramas.requests import RenderRequest
from transforms.render.options import RenderOptions
from transforms.render.synthesize import PATCHES_DONE
from transforms.storage.files import read_bytes

TURN_PX = 16 * 72
STYLES = tuple(Style(seed=k, x_px=288 * k + 40, y_px=(-20, 30)[k % 2]) for k in range(4))
EDIT = Edit(box_px=(200, -40, 60, 50), seed=11)
PLAIN = RenderRequest(id="p", seed=7, width_px=TURN_PX, height_px=128)
KINDS = {
    "plain": PLAIN,
    "four styles": dataclasses.replace(PLAIN, styles=STYLES),
    "cyclic": dataclasses.replace(PLAIN, cyclic=True),
    "cyclic, four styles, edited": dataclasses.replace(PLAIN, cyclic=True, styles=STYLES, edits=(EDIT,)),
    "journey": dataclasses.replace(PLAIN, journey=Journey(every_px=300, seed=3), fusion_px=255, truncation=0.7),
    "cyclic, journey over the plane, edited": dataclasses.replace(
        PLAIN, cyclic=True, journey=Journey(every_px=256, dimensions=2), fusion_px=127, edits=(EDIT,)
    ),
    "scale 4, styles, edited": dataclasses.replace(PLAIN, scale=4, width_px=600, styles=STYLES, edits=(EDIT,)),
    "scale 4, cyclic, edited": dataclasses.replace(
        PLAIN, scale=4, width_px=4 * TURN_PX, height_px=32, cyclic=True, edits=(EDIT,)
    ),
    "scale 16": dataclasses.replace(PLAIN, scale=16, width_px=500),
}


def run(out, checkpoint, request, flags=(), **options):
    """Returns the manifest's row of a request and its pixels."""
    settings = RenderOptions((request,), str(out), checkpoint, **{"tile_px": 64, **options})
    (row,) = render(settings, beam_options(list(flags)))
    assert row["state"] == "done", row["reason"]
    with Image.open(out / "panoramas" / f"{request.id}.png") as image:
        return row, np.asarray(image)


def assert_promise_2(one, other):
    """Checks that values differ by at most one level, and fewer than 1 in 1000 differ at all."""
    difference = np.abs(one.astype(int) - other)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) < max(difference.size / 1000, 1)


@pytest.fixture(scope="module", params=KINDS)
def kind(request, detailed_checkpoint, tmp_path_factory):
    """Renders a request; returns it, its manifest row, its pixels and the folder, which tests must not change."""
    out = tmp_path_factory.mktemp("kind")
    return (KINDS[request.param], *run(out, detailed_checkpoint, KINDS[request.param]), out)


def test_the_panorama_is_the_worlds_window_and_its_seams_are_small(kind, detailed_checkpoint):
    request, row, pixels, _ = kind
    checkpoint = load_checkpoint(read_bytes(detailed_checkpoint), "tiny")
    world = at_scale(World(checkpoint.generator, request.definition), checkpoint.detail, request.scale)
    whole = quantise(world.render(request.rows, request.columns)).permute(1, 2, 0).numpy()
    assert_promise_2(pixels, whole)
    assert row["scale"] == request.scale
    assert row["seam_max_difference"] <= 1
    assert row["seam_differing_share"] < 1e-3


@pytest.mark.slow
def test_shards_runners_and_tile_sizes_change_what_the_promises_allow(kind, detailed_checkpoint, tmp_path):
    request, row, pixels, _ = kind
    flags = ["--runner=BundleBasedDirectRunner"]
    assert np.array_equal(run(tmp_path / "a", detailed_checkpoint, request, flags, tiles_per_shard=5)[1], pixels)
    other, other_pixels = run(tmp_path / "b", detailed_checkpoint, request, tile_px=128)
    assert_promise_2(other_pixels, pixels)
    assert other["plan"] != row["plan"]


def test_verify_finds_the_same_bits(kind, detailed_checkpoint):
    _, _, _, out = kind
    verdicts = verify(str(out), 6, 3, detailed_checkpoint)
    assert len({verdict.index for verdict in verdicts}) == 6
    assert {verdict.state for verdict in verdicts} == {"equal"}


@pytest.mark.parametrize(("cells", "exact"), [(4, True), (-8, True), (72, True), (1, False), (37, False)])
@pytest.mark.parametrize("kind", [name for name in KINDS if KINDS[name].cyclic], indirect=True)
@pytest.mark.slow
def test_a_rolled_cyclic_panorama_is_the_one_rendered_from_there(detailed_checkpoint, tmp_path, kind, cells, exact):
    """They are equal bit for bit where the tiles coincide; otherwise as with another tile size."""
    request, _, pixels, _ = kind
    moved = dataclasses.replace(request, origin_x_px=16 * cells)
    _, there = run(tmp_path, detailed_checkpoint, moved)
    assert_promise_2(there, np.roll(pixels, -16 * cells, axis=1))
    if exact:
        assert np.array_equal(there, np.roll(pixels, -16 * cells, axis=1))


def touched_tiles(plan, config):
    """Returns the tiles of which an edit can change a pixel or a shared strip, by the pixels that they compute."""
    rows, columns = EDIT.reach(config)
    tiles = []
    for index in range(plan.tiles):
        (top, bottom), (left, right) = plan.computed(index)
        if top - 16 <= rows[1] and bottom + 16 >= rows[0] and left - 16 <= columns[1] and right + 16 >= columns[0]:
            tiles.append(index)
    return tiles


def test_an_edit_costs_its_own_tiles_only_and_so_does_its_undoing(tiny_checkpoint, tmp_path):
    out = tmp_path / "out"
    request = dataclasses.replace(PLAIN, id="e", width_px=1600)
    edited = dataclasses.replace(request, edits=(EDIT,))
    _, before = run(out, tiny_checkpoint, request, tiles_per_shard=4)
    _, after = run(out, tiny_checkpoint, edited, tiles_per_shard=4, replace=True)
    plan = Plan(edited, "", "0" * 64, 64)
    touched = len(touched_tiles(plan, PRESETS["tiny"]))
    assert 0 < PATCHES_DONE.count <= touched < plan.tiles
    rows, columns = EDIT.reach(PRESETS["tiny"])
    inside = np.zeros(after.shape[:2], bool)
    inside[max(rows[0] + 64, 0) : rows[1] + 65, max(columns[0], 0) : columns[1] + 1] = True
    assert np.array_equal(before[~inside], after[~inside])
    assert (before != after).any(axis=2)[:, 200:260].mean() > 0.5
    assert np.array_equal(run(tmp_path / "fresh", tiny_checkpoint, edited)[1], after)
    _, undone = run(out, tiny_checkpoint, request, tiles_per_shard=4, replace=True)
    assert PATCHES_DONE.count <= touched
    assert np.array_equal(undone, before)
    assert len(list((out / "patches" / "e").iterdir())) == 1


@pytest.mark.parametrize("scale", [4, 16])
def test_an_edit_at_a_scale_costs_its_own_tiles_only(detailed_checkpoint, tmp_path, scale):
    edit = dataclasses.replace(EDIT, box_px=(0, -8, 60, 16), fields=("noise",))
    request = dataclasses.replace(PLAIN, id="e", width_px=1600, height_px=64, scale=scale)
    edited = dataclasses.replace(request, edits=(edit,))
    _, before = run(tmp_path / "out", detailed_checkpoint, request)
    row, after = run(tmp_path / "out", detailed_checkpoint, edited, replace=True)
    assert 0 < PATCHES_DONE.count < 40
    assert (before != after).any()
    assert np.array_equal(run(tmp_path / "fresh", detailed_checkpoint, edited)[1], after)
    assert row["seam_max_difference"] <= 1


def test_a_checkpoint_without_a_detail_stage_renders_at_scale_1_only(tiny_checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"scale 4 needs a detail stage, which checkpoint .* lacks") as caught:
        run(tmp_path / "out", tiny_checkpoint, dataclasses.replace(PLAIN, scale=4))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_scale_by_flag_and_an_edit_by_command(detailed_checkpoint, tmp_path):
    size = ["--width=96", "--height=64", "--scale=4"]
    with pytest.raises(SystemExit) as caught:
        main(["render", f"--checkpoint={detailed_checkpoint}", f"--out={tmp_path}", "--seed=7", *size])
    assert caught.value.code == 0
    record = tmp_path / "panoramas" / "seed-7_96x64_scale-4.json"
    assert json.loads(record.read_text())["request"]["scale"] == 4
    with pytest.raises(SystemExit) as caught:
        main(["edit", str(record), "--box=0,0,8,8", "--seed=1", f"--checkpoint={detailed_checkpoint}"])
    assert caught.value.code == 0
    edited = json.loads(record.read_text())["request"]
    assert edited["scale"] == 4
    assert edited["edits"][0]["box_px"] == [0, 0, 8, 8]
    assert verify_by_command(tmp_path, f"--checkpoint={detailed_checkpoint}") == 0


def test_patches_taken_over_are_those_that_would_be_computed(tiny_checkpoint, tmp_path, contents):
    edited = dataclasses.replace(PLAIN, id="e", edits=(EDIT,))
    for name, requests in (("taken", (dataclasses.replace(PLAIN, id="e"), edited)), ("fresh", (edited,))):
        for request in requests:
            run(tmp_path / name, tiny_checkpoint, request, tiles_per_shard=1, replace=True)
    taken, fresh = (contents(tmp_path / name / "panoramas") for name in ("taken", "fresh"))
    assert taken == fresh


@pytest.mark.parametrize("damage", ["cut short", "other pixels", "not a tar", "of nothing"])
def test_damaged_patches_are_not_taken_over_but_computed_again(tiny_checkpoint, tmp_path, damage, capsys):
    request = dataclasses.replace(PLAIN, id="e", width_px=1600)
    edited = dataclasses.replace(request, edits=(EDIT,))
    row, _ = run(tmp_path / "out", tiny_checkpoint, request, tiles_per_shard=4)
    touched = len(touched_tiles(Plan(edited, "", "0" * 64, 64), PRESETS["tiny"]))
    shards = sorted((tmp_path / "out" / "patches" / "e" / row["plan"]).glob("*.tar"))
    whole = shards[-1].read_bytes()  # far from the edit
    middle = whole.index(b"IDAT") + 40 if b"IDAT" in whole else 600
    content = {
        "cut short": whole[: len(whole) // 2],
        "other pixels": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "not a tar": b"x" * len(whole),
        "of nothing": b"",
    }[damage]
    shards[-1].write_bytes(content)
    _, after = run(tmp_path / "out", tiny_checkpoint, edited, tiles_per_shard=4, replace=True)
    assert PATCHES_DONE.count > touched
    assert "its tiles are computed again" in capsys.readouterr().err
    assert np.array_equal(run(tmp_path / "fresh", tiny_checkpoint, edited)[1], after)


def test_an_edit_that_was_cut_short_goes_on(tiny_checkpoint, tmp_path, monkeypatch):
    request = dataclasses.replace(PLAIN, id="e")
    run(tmp_path, tiny_checkpoint, request)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("transforms.render.intake.begin", lambda *_: (_ for _ in ()).throw(full))
    edited = dataclasses.replace(request, edits=(EDIT,))
    with pytest.raises(OSError, match="No space left on device"):
        run(tmp_path, tiny_checkpoint, edited, replace=True)
    monkeypatch.undo()
    with pytest.raises(InputError, match="add --replace"):
        run(tmp_path, tiny_checkpoint, edited)
    run(tmp_path, tiny_checkpoint, edited, replace=True)
    assert 0 < PATCHES_DONE.count < 36


def test_a_damaged_plan_is_of_no_use_to_an_edit_and_in_no_ones_way(tiny_checkpoint, tmp_path):
    request = dataclasses.replace(PLAIN, id="e")
    row, _ = run(tmp_path, tiny_checkpoint, request)
    (tmp_path / "patches" / "e" / row["plan"] / "plan.json").write_text('{"request": {"edits": [{"seed": 1}]}}')
    run(tmp_path, tiny_checkpoint, dataclasses.replace(request, edits=(EDIT,)), replace=True)
    assert PATCHES_DONE.count == 36


def test_a_lower_precision_says_how_far_it_is_from_float32(tiny_checkpoint, tmp_path):
    row, pixels = run(tmp_path / "a", tiny_checkpoint, PLAIN, precision="bfloat16")
    plain, reference = run(tmp_path / "b", tiny_checkpoint, PLAIN)
    difference = np.abs(pixels.astype(int) - reference)
    assert 1 < difference.max() < 64
    assert row["plan"] != plain["plan"]
    assert plain["precision_max_difference"] is None
    assert 0 < row["precision_mean_difference"] < row["precision_max_difference"] <= difference.max()
    assert row["precision_mean_difference"] == pytest.approx(difference.mean(), rel=0.5)


@pytest.fixture
def rendered(tiny_checkpoint, tmp_path):
    run(tmp_path / "out", tiny_checkpoint, dataclasses.replace(PLAIN, checkpoint=tiny_checkpoint), tiles_per_shard=1)
    return tmp_path / "out"


def verify_by_command(folder, *flags):
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(folder), *flags])
    return caught.value.code


def test_verify_says_which_tiles_are_not_what_they_should_be(rendered, tmp_path, tiny_checkpoint, capsys):
    """The shards are valid, but hold the pixels of another world."""
    assert verify_by_command(rendered, "--tiles=1000") == 0
    assert "36 equal, 0 equal to rounding, 0 different" in capsys.readouterr().err
    other, _ = run(tmp_path / "other", tiny_checkpoint, dataclasses.replace(PLAIN, seed=8), tiles_per_shard=1)
    (folder,) = (rendered / "patches" / "p").iterdir()
    shutil.copy(tmp_path / "other" / "patches" / "p" / other["plan"] / "05-05.tar", folder / "05-05.tar")
    (folder / "07-07.tar").unlink()
    (folder / "09-09.tar").write_bytes(b"once upon a time")
    assert verify_by_command(rendered, "--tiles=1000") == 1
    said = capsys.readouterr().err
    assert "p, tile 5: up to " in said
    assert "tile 7 is missing" in said
    assert "09-09.tar is damaged" in said
    assert "33 equal, 0 equal to rounding, 3 different" in said


def test_verify_refuses_what_it_cannot_verify(rendered, tmp_path, capsys):
    assert verify_by_command(tmp_path) == 2
    assert "does not contain manifest.parquet; give the --out of a render job" in capsys.readouterr().err
    assert verify_by_command(rendered, "--tiles=0") == 2
    assert "--tiles 0: give 1 or more" in capsys.readouterr().err
    record = rendered / "panoramas" / "p.json"
    record.write_text(record.read_text().replace('"seed": 7', '"seed": 8'))
    assert verify_by_command(rendered) == 2
    assert "does not match its own plan" in capsys.readouterr().err


def test_a_cyclic_panorama_by_flag(tiny_checkpoint, tmp_path):
    arguments = ["render", f"--checkpoint={tiny_checkpoint}", f"--out={tmp_path}", "--cyclic", "--height=32"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--width=1120"])
    assert caught.value.code == 0
    assert (tmp_path / "panoramas" / "seed-23_1120x32_cyclic.png").exists()
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--width=1121"])
    assert caught.value.code == 2


def test_a_world_that_the_network_cannot_have_is_refused_before_anything_is_written(tiny_checkpoint, tmp_path):
    for request, said in (
        (dataclasses.replace(PLAIN, cyclic=True, width_px=1100), "must be a multiple of 16 px, and at least 1120 px"),
        (dataclasses.replace(PLAIN, styles=(Style(z_g=(1.0,)),)), "z_g has 1 numbers; this network needs 16"),
    ):
        with pytest.raises(InputError, match=said):
            run(tmp_path / "out", tiny_checkpoint, request)
    assert not (tmp_path / "out").exists()


def test_checkpoints_of_any_network_serve_every_kind(build, tmp_path):
    generator = build(PRESETS["small"])
    path = tmp_path / "small.safetensors"
    path.write_bytes(save_checkpoint(generator.state_dict(), generator.config, {"images": 0}, "CC0-1.0"))
    request = dataclasses.replace(KINDS["cyclic, four styles, edited"], height_px=64)
    _, pixels = run(tmp_path / "a", str(path), request)
    _, other = run(tmp_path / "b", str(path), request, tile_px=192)
    assert_promise_2(pixels, other)
