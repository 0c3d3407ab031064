"""The applications from the command line: each ends in panoramas that verify confirms, bit for bit."""

import io
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.errors import InputError
from model.world.definition import Definition
from model.world.overlay import load_overlay
from pipelines.cli import run
from pipelines.fuse import lay_out, most_styles
from transforms.applications.invert import fit, photographs_at, read_file
from transforms.panoramas.requests import read_requests
from transforms.render.synthesize import PATCHES_DONE
from transforms.training_set.records import Rejection

SIZE = ("--size", "64x48", "--steps", "2")


def start(capsys, *arguments):
    """Returns the exit code of a command, and its last message."""
    code = run([str(argument) for argument in arguments])
    said = capsys.readouterr().err.strip()
    return code, said.splitlines()[-1] if said else ""


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def assert_verifies(capsys, out, checkpoint):
    code, said = start(capsys, "verify", out, "--checkpoint", checkpoint, "--tiles", 4)
    assert code == 0
    assert ", 0 equal to rounding, 0 different" in said


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Returns two photographs of different proportions."""
    folder = tmp_path_factory.mktemp("photographs")
    y, x = np.mgrid[:120, :200]
    for name, sky in (("red", (230, 120, 90)), ("blue", (90, 140, 230))):
        ground = np.stack([60 + x % 40, 90 - x % 20, 40 + 0 * x], axis=2)
        picture = np.where((y < 60)[..., None], np.array(sky) - y[..., None] // 2, ground).astype(np.uint8)
        Image.fromarray(picture[:, : 200 if name == "red" else 150]).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def overlay(photographs, tiny_checkpoint, tmp_path_factory):
    """Returns the overlay of the red photograph; tests must not change it."""
    path = tmp_path_factory.mktemp("overlay") / "red.safetensors"
    assert (
        run(["invert", str(photographs / "red.png"), "--out", str(path), "--checkpoint", tiny_checkpoint, *SIZE]) == 0
    )
    return path


@pytest.mark.parametrize(
    ("count", "width", "height", "rows"), [(4, 4096, 512, 1), (4, 1024, 1024, 2), (5, 900, 600, 2)]
)
def test_centres_lie_in_the_middles_of_equal_fields(count, width, height, rows):
    styles = lay_out(range(count), width, height)
    assert [style.seed for style in styles] == list(range(count))
    lines = sorted({style.y_px for style in styles})
    assert lines == [height * (2 * row + 1) // (2 * rows) - height // 2 for row in range(rows)]
    for y_px in lines:
        across = [style.x_px for style in styles if style.y_px == y_px]
        assert across == [width * (2 * place + 1) // (2 * len(across)) for place in range(len(across))]


@pytest.mark.parametrize("styles", ["1", "33", "1" + 30 * "0", ",".join("123456789"[:9] * 4)])
def test_more_styles_than_a_panorama_has_room_for_are_refused(tiny_checkpoint, tmp_path, capsys, styles):
    size = ("--width", 300, "--height", 64, "--checkpoint", tiny_checkpoint)
    code, said = start(capsys, "fuse", "--styles", styles, "--out", tmp_path / "out", *size)
    assert code == 2
    assert "give 2 to 32 styles for a panorama of this size" in said
    assert not (tmp_path / "out").exists()


def test_a_larger_panorama_has_room_for_more_styles_and_a_wider_blend_for_fewer():
    assert most_styles(4096, 512, 127) == 130
    assert most_styles(4096, 512, 255) == 32
    assert most_styles(10**6, 512, 1) == 1000


@given(
    width=st.integers(16, 60_000), height=st.integers(16, 4_096), fusion=st.integers(0, 500).map(lambda n: 2 * n + 1)
)
def test_fields_of_as_many_styles_as_there_may_be_do_not_crowd(width, height, fusion):
    most = most_styles(width, height, fusion)
    Definition(1, styles=lay_out(range(most), width, height), fusion_px=fusion)


def test_fuse_writes_and_renders_a_request_that_render_takes(tiny_checkpoint, tmp_path, capsys):
    size = ("--width", 300, "--height", 64, "--tile", 64, "--checkpoint", tiny_checkpoint)
    assert start(capsys, "fuse", "--styles", "3,8,5", "--out", tmp_path / "a", *size)[0] == 0
    (file,) = (tmp_path / "a" / "requests").iterdir()
    (request,) = read_requests(str(file))
    assert [style.seed for style in request.styles] == [3, 8, 5]
    again = ("--requests", file, "--out", tmp_path / "b", "--tile", 64, "--checkpoint", tiny_checkpoint)
    assert start(capsys, "render", *again)[0] == 0
    name = f"panoramas/{request.id}.png"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_edit_and_undo_cost_their_own_tiles_and_end_where_they_began(tiny_checkpoint, tmp_path, capsys):
    flags = ("--checkpoint", tiny_checkpoint)
    size = ("--width", 1600, "--height", 64, "--tile", 64)
    assert start(capsys, "render", "--out", tmp_path, *size, *flags)[0] == 0
    (record,) = (tmp_path / "panoramas").glob("*.json")
    picture = record.with_suffix(".png")
    before = pixels(picture)
    code, _ = start(capsys, "edit", record, "--box", "100,-20,40,40", "--seed", 5, "--like", "900,-20,40,40", *flags)
    assert code == 0
    assert 0 < PATCHES_DONE.count < 40
    edit = json.loads(record.read_text())["request"]["edits"]
    assert [(one["seed"], one["box_px"], one["like_box_px"]) for one in edit] == [
        (5, [100, -20, 40, 40], [900, -20, 40, 40])
    ]
    assert (pixels(picture) != before).any()
    assert_verifies(capsys, tmp_path, tiny_checkpoint)
    assert start(capsys, "edit", record, "--undo", *flags)[0] == 0
    assert np.array_equal(pixels(picture), before)
    assert start(capsys, "edit", record, "--undo", *flags) == (
        2,
        f"infinitygan: request {record.stem} has no edit to undo",
    )


def test_edit_changes_one_request_of_a_file_and_refuses_what_is_wrong(tiny_checkpoint, tmp_path, capsys):
    file, before = tmp_path / "r.jsonl", [{"id": name, "seed": 1, "width_px": 64, "height_px": 64} for name in "ab"]
    file.write_text("".join(json.dumps(row) + "\n" for row in before))
    given = ("edit", file, "--out", tmp_path / "out", "--checkpoint", tiny_checkpoint, "--tile", 64)
    box = ("--box", "0,0,20,20", "--seed", 3)
    for arguments, said in (
        (box, "choose one with --id"),
        (("--id", "c", *box), "holds no request c"),
        (("--id", "b", "--box", "70,0,20,20", "--seed", 3), "lies outside panorama b"),
        (("--id", "b", "--box", "1,2,3", "--seed", 3), "give 4 whole numbers"),
        (("--id", "b", "--box", "0,0,20,20"), "give --box X,Y,W,H and --seed N, or --undo"),
        (("--id", "b", "--fields", "colour", *box), "name some of z_l, noise"),
        (("--id", "b", "--undo", *box), "--undo cannot be combined with"),
        (("--id", "b", "--undo", "--fields", "noise"), "--undo cannot be combined with"),
    ):
        code, message = start(capsys, *given, *arguments)
        assert code == 2
        assert said in message
    assert [json.loads(line) for line in file.read_text().splitlines()] == before
    assert not (tmp_path / "out").exists()
    assert start(capsys, *given, "--id", "b", *box)[0] == 0
    plain, edited = read_requests(str(file))
    assert (len(plain.edits), len(edited.edits)) == (0, 1)


def test_a_panorama_is_not_edited_by_another_checkpoint(tiny_checkpoint, other_checkpoint, tmp_path, capsys):
    size = ("--width", 64, "--height", 64, "--tile", 64)
    assert start(capsys, "render", "--out", tmp_path, "--checkpoint", tiny_checkpoint, *size)[0] == 0
    (record,) = (tmp_path / "panoramas").glob("*.json")
    before = record.read_bytes()
    code, said = start(capsys, "edit", record, "--box", "0,0,9,9", "--seed", 5, "--checkpoint", other_checkpoint)
    assert code == 2
    assert "was rendered by checkpoint" in said
    assert record.read_bytes() == before


def test_invert_gives_the_same_file_again_also_when_killed_between(
    photographs, overlay, tiny_checkpoint, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "red.safetensors"
    arguments = ("invert", photographs / "red.png", "--out", out, "--checkpoint", tiny_checkpoint, *SIZE)
    monkeypatch.setattr("transforms.applications.invert.SAVE_EVERY", 1)
    monkeypatch.setattr(
        "transforms.applications.invert.save_overlay", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert start(capsys, *arguments)[0] == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["red.preview.jpg", "red.state.safetensors"]
    monkeypatch.undo()
    assert start(capsys, *arguments)[0] == 0
    assert out.read_bytes() == overlay.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["red.preview.jpg", "red.safetensors"]
    found = load_overlay(out.read_bytes(), "red")
    assert (found.box_px, found.cyclic_px) == ((0, -24, 64, 48), None)
    assert start(capsys, *arguments)[0] == 0  # nothing left to do
    code, said = start(capsys, *arguments[:-1], 3)
    assert code == 2
    assert "was made with another photograph, place, checkpoint or setting" in said


def test_a_photograph_of_any_proportions_fills_any_size():
    buffer = io.BytesIO()
    for width, height in ((394, 197), (197, 394), (341, 256), (1023, 767)):  # for some, rounding would cut too much
        buffer.seek(0)
        Image.new("RGB", (width, height)).save(buffer, "PNG")
        for size in ((256, 128), (128, 256), (333, 250), (width // 3, height // 3)):
            assert fit(buffer.getvalue(), size, 197).shape == (*size[::-1], 3)


def test_invert_takes_many_photographs_and_says_which_it_could_not(photographs, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(photographs, tmp_path / "in")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"\xff\xd8nonsense")
    arguments = ("invert", tmp_path / "in", "--out", tmp_path / "out", "--checkpoint", tiny_checkpoint, *SIZE)
    code, said = start(capsys, *arguments)
    assert code == 1
    assert said.startswith("2 of 3 overlays are finished")
    overlays = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.safetensors")}
    assert {path.stem for path in overlays} == {"red", "blue"}
    (tmp_path / "in" / "bad.jpg").unlink()
    assert start(capsys, *arguments, "--runner=BundleBasedDirectRunner")[0] == 0
    assert {path: path.read_bytes() for path in overlays} == overlays


def test_invert_takes_a_list_of_photographs(photographs, overlay, tiny_checkpoint, tmp_path, capsys):
    shutil.copytree(photographs, tmp_path / "in")
    (tmp_path / "list.csv").write_text("url,author\nin/red.png,me\nin/nowhere.png,\n")
    flags = ("--out", tmp_path / "out", "--checkpoint", tiny_checkpoint, *SIZE)
    code, said = start(capsys, "invert", tmp_path / "list.csv", *flags)
    assert code == 1
    assert said.startswith("1 of 2 overlays are finished")
    assert (tmp_path / "out" / "red.safetensors").read_bytes() == overlay.read_bytes()
    (tmp_path / "gap.csv").write_text('url\nin/red.png\n" "\n')
    for name, reason in (("gap.csv", "the row names no URL or path"), ("no.txt", "there is no such file")):
        code, said = start(capsys, "invert", tmp_path / name, *flags)
        assert code == 2
        assert reason in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("outpaint", "red.png", "--left", 20, "--format", "gif"), "format 'gif' is unknown"),
        (("outpaint", "red.png", "--left", 20, "--tile", 7), "--tile 7: give a multiple of"),
        (("outpaint", "red.png", "--left", 2**31), "leaves the world"),
        (("outpaint", "red.png", "--left", 20, "--seed", 2**64 - 1, "--variants", 2), "seed is 18446744073709551616"),
        (("outpaint", "red.png", "--left", -1), "give pixels for at least one side"),
        (("inbetween", "red.png", "blue.png", "--width", 1400, "--height", 0), "height_px is 0"),
        (("inbetween", "red.png", "blue.png", "--width", 1400, "--format", "gif"), "format 'gif' is unknown"),
        (("inbetween", "red.png", "--cyclic", "--width", 1283), "the width must be a multiple of"),
        (("inbetween", "red.png", "blue.png", "--width", 1400, "--tile", 7), "--tile 7: give a multiple of"),
    ],
)
def test_a_panorama_that_cannot_be_is_refused_before_its_photographs_are_inverted(
    photographs, tiny_checkpoint, tmp_path, capsys, monkeypatch, arguments, said
):
    monkeypatch.chdir(photographs)
    code, message = start(capsys, *arguments, "--out", tmp_path / "out", "--checkpoint", tiny_checkpoint, *SIZE)
    assert code == 2
    assert said in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.jpg",), "/missing.jpg: there is no such file"),
        (("bad.jpg",), "bad.jpg cannot be used"),
        (("speck.png", "--size", "64x48"), "the photograph has 31×200 px; give one with at least 32 px per side"),
        ((".",), "is one file for 4 photographs; give a folder"),
        (("red.png", "--size", "16x16"), "sides must be 32 to 16384"),
        (("red.png", "--size", "60000x60000"), "sides must be 32 to 16384"),
        (("red.png", "--size", "16"), "give 2 whole numbers, such as --size 256x128"),
        (("red.png", "--cyclic-width", "300"), "make it wider"),
        (("red.png", "--cyclic-width", "1283"), "the width must be a multiple of"),
        (("red.png", "--steps", "0"), "steps is 0"),
        (("red.png", "--lpips", "vgg"), "'vgg' is not one of 'alex'"),
        (("red.png", "--checkpoint", "nowhere"), "/nowhere: there is no such file"),
        (("red.png", "--stepz", "5"), "did you mean --steps?"),
    ],
)
def test_what_cannot_be_inverted_is_said_in_one_line(
    photographs, tiny_checkpoint, tmp_path, capsys, monkeypatch, arguments, said
):
    monkeypatch.chdir(photographs)
    (photographs / "bad.jpg").write_bytes(b"\xff\xd8nonsense")
    Image.new("RGB", (31, 200)).save(photographs / "speck.png")
    defaults = () if "--checkpoint" in arguments else ("--checkpoint", tiny_checkpoint)
    code, message = start(capsys, "invert", *arguments, "--out", tmp_path / "o.safetensors", *defaults)
    for name in ("bad.jpg", "speck.png"):
        (photographs / name).unlink()
    assert code == 2
    assert said in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["", "mine.txt"])
@pytest.mark.parametrize(
    "command",
    [
        ("invert", "red.png", "--steps", 2),
        ("outpaint", "red.png", "--left", 20, "--steps", 2),
        ("inbetween", "red.png", "blue.png", "--width", 5000, "--steps", 2),
        ("fuse", "--styles", 2, "--width", 128, "--height", 64),
    ],
)
def test_a_folder_that_can_be_none_is_refused_before_anything_is_computed(
    photographs, tiny_checkpoint, tmp_path, capsys, monkeypatch, command, out
):
    shutil.copytree(photographs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mine.txt").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    tile = () if command[0] == "invert" else ("--tile", 64)
    code, said = start(capsys, *command, *tile, "--out", out, "--checkpoint", tiny_checkpoint)
    assert code == 2
    assert said.endswith("/mine.txt is a file; give a folder or URL" if out else ": --out is empty; give a value")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_outpaint_goes_on_around_the_photograph_in_different_ways(overlay, tiny_checkpoint, tmp_path, capsys):
    flags = ("--checkpoint", tiny_checkpoint, "--tile", 64)
    sides = ("--left", 600, "--right", 40, "--up", 10, "--variants", 2)
    assert start(capsys, "outpaint", overlay, *sides, "--out", tmp_path, *flags)[0] == 0
    one, two = (pixels(tmp_path / "panoramas" / f"red-{number}.png") for number in (1, 2))
    assert one.shape == (58, 704, 3)
    photograph = load_overlay(overlay.read_bytes(), "red").photograph.permute(1, 2, 0).numpy()
    for picture in (one, two):
        assert np.array_equal(picture[10:, 600:664][16:-16, 16:-16], photograph[16:-16, 16:-16])
    assert (one[:, :300] != two[:, :300]).mean() > 0.5
    with Image.open(tmp_path / "red.jpg") as sheet:
        assert sheet.size == (704, 2 * 58 + 8)
    assert_verifies(capsys, tmp_path, tiny_checkpoint)
    bare = ("--left", 600, "--no-paste", "--out", tmp_path / "bare")
    assert start(capsys, "outpaint", overlay, *bare, *flags)[0] == 0
    shown = pixels(tmp_path / "bare" / "panoramas" / "red-1.png")[:, 600:]
    assert not np.array_equal(shown[16:-16, 16:-16], photograph[16:-16, 16:-16])


def test_at_a_scale_a_photograph_keeps_its_own_pixels(detailed_checkpoint, tmp_path, capsys):
    """At its own size it is not resampled: the panorama shows what the file holds."""
    levels = np.random.default_rng(0).integers(0, 256, (160, 208, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "photo.png")
    flags = ("--checkpoint", detailed_checkpoint, "--scale", 4, "--steps", 2, "--tile", 128)
    sides = ("--size", "208x160", "--left", 70, "--up", 30, "--down", 5)
    out = tmp_path / "out"
    assert start(capsys, "outpaint", tmp_path / "photo.png", *sides, "--out", out, *flags)[0] == 0
    picture = pixels(out / "panoramas" / "photo-1.png")
    assert picture.shape == (195, 278, 3)
    assert np.array_equal(picture[30:190, 70:][64:-64, 64:-64], levels[64:-64, 64:-64])
    assert_verifies(capsys, out, detailed_checkpoint)
    overlay = load_overlay((out / "overlays" / "photo.safetensors").read_bytes(), "photo")
    assert (overlay.scale, overlay.box_px) == (4, (0, -20, 52, 40))
    record = out / "panoramas" / "photo-1.json"
    edit = ("--box", "-60,-90,40,40", "--seed", 5, "--checkpoint", detailed_checkpoint)
    assert start(capsys, "edit", record, *edit)[0] == 0
    edited = pixels(record.with_suffix(".png"))
    assert (edited != picture).any()
    assert np.array_equal(edited[30:190, 70:][64:-64, 64:-64], levels[64:-64, 64:-64])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("outpaint", "red.png", "--left", 20, "--scale", 3), "scale is 3; choose 1, 4, 16"),
        (("outpaint", "red.png", "--left", 20, "--scale", 4, "--size", "150x130"), "its sides must be multiples of 4"),
        (("outpaint", "red.png", "--left", 20, "--scale", 4, "--size", "64x64"), "its sides must be 128 to 16384"),
        (("outpaint", "red.png", "--left", 20, "--scale", 4, "--size", "160x128"), "scale 4 needs a detail stage"),
        (("inbetween", "red.png", "blue.png", "--width", 1401, "--scale", 4), "--width 1401: at scale 4 give a"),
        (("invert", "red.png", "--scale", 0), "scale is 0; choose 1, 4, 16"),
        (("invert", "red.png", "--scale", 4, "--origin", "3,8"), "--origin 3: at scale 4 give a multiple of 4"),
        (("invert", "red.png", "--scale", 4, "--cyclic-width", 1282), "--cyclic-width 1282: at scale 4 give a"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused(
    photographs, tiny_checkpoint, tmp_path, capsys, monkeypatch, arguments, said
):
    monkeypatch.chdir(photographs)
    out = tmp_path / "out.safetensors" if arguments[0] == "invert" else tmp_path / "out"
    code, message = start(capsys, *arguments, "--out", out, "--checkpoint", tiny_checkpoint, "--steps", 2)
    assert code == 2
    assert said in message
    assert not list(tmp_path.iterdir())


def test_an_overlay_decides_the_plan_and_must_stay_what_it_was(overlay, tiny_checkpoint, tmp_path, capsys):
    mine = tmp_path / "red.safetensors"
    shutil.copy(overlay, mine)
    arguments = (
        "outpaint",
        mine,
        "--left",
        20,
        "--out",
        tmp_path / "out",
        "--checkpoint",
        tiny_checkpoint,
        "--tile",
        64,
    )
    assert start(capsys, *arguments)[0] == 0
    moved = tmp_path / "moved.safetensors"
    shutil.copy(overlay, moved)
    request = json.loads((tmp_path / "out" / "requests" / "red.jsonl").read_text().replace(str(mine), str(moved)))
    (tmp_path / "r.jsonl").write_text(json.dumps(request))
    render = ("render", "--requests", tmp_path / "r.jsonl", "--out", tmp_path / "out", "--tile", 64)
    assert start(capsys, *render, "--checkpoint", tiny_checkpoint)[0] == 0  # the same bytes elsewhere: the same plan
    content = bytearray(moved.read_bytes())
    content[-5] ^= 1
    moved.write_bytes(content)
    code, said = start(capsys, *render, "--checkpoint", tiny_checkpoint)
    assert code == 2
    assert "with another plan" in said
    code, said = start(capsys, "verify", tmp_path / "out", "--checkpoint", tiny_checkpoint)
    assert code == 0
    mine.write_bytes(content)
    assert start(capsys, "verify", tmp_path / "out", "--checkpoint", tiny_checkpoint) == (
        2,
        f"infinitygan: {mine} is no longer the overlay of the plan; run render again",
    )


def test_an_overlay_of_another_checkpoint_or_law_is_refused(
    overlay, tiny_checkpoint, other_checkpoint, tmp_path, capsys
):
    out = ("--out", tmp_path / "out", "--tile", 64)
    code, said = start(capsys, "outpaint", overlay, "--left", 20, *out, "--checkpoint", other_checkpoint)
    assert code == 2
    assert "was made for the checkpoint" in said
    request = {"id": "c", "seed": 1, "width_px": 1152, "height_px": 64, "cyclic": True, "overlays": [str(overlay)]}
    (tmp_path / "r.jsonl").write_text(json.dumps(request))
    render = ("render", "--requests", tmp_path / "r.jsonl", *out, "--checkpoint", tiny_checkpoint)
    code, said = start(capsys, *render)
    assert code == 2
    assert "its position is fixed; invert the photograph again" in said
    assert not (tmp_path / "out").exists()


def test_inbetween_joins_photographs_in_a_row_and_one_in_a_circle(photographs, tiny_checkpoint, tmp_path, capsys):
    flags = ("--checkpoint", tiny_checkpoint, "--tile", 64, *SIZE)
    both = (photographs / "red.png", photographs / "blue.png")
    code, said = start(capsys, "inbetween", *both, "--width", 300, "--out", tmp_path / "row", *flags)
    assert code == 2
    least = int(said.split("give ")[1].split()[0])
    assert start(capsys, "inbetween", *both, "--width", least, "--out", tmp_path / "row", *flags)[0] == 0
    row = pixels(tmp_path / "row" / "panoramas" / "red_blue.png")
    for name, part in (("red", row[:, :64]), ("blue", row[:, -64:])):
        content = (tmp_path / "row" / "overlays" / f"{name}.safetensors").read_bytes()
        photograph = load_overlay(content, name).photograph.permute(1, 2, 0).numpy()
        assert np.array_equal(part[16:-16, 16:-16], photograph[16:-16, 16:-16])
    assert_verifies(capsys, tmp_path / "row", tiny_checkpoint)
    circle = ("--cyclic", "--width", 1152, "--out", tmp_path / "circle")
    assert start(capsys, "inbetween", both[0], *circle, *flags)[0] == 0
    turn = pixels(tmp_path / "circle" / "panoramas" / "red_cyclic.png")
    request = json.loads((tmp_path / "circle" / "requests" / "red_cyclic.jsonl").read_text())
    (tmp_path / "r.jsonl").write_text(json.dumps({**request, "origin_x_px": 576}))
    render = ("--requests", tmp_path / "r.jsonl", "--out", tmp_path / "rolled", "--checkpoint", tiny_checkpoint)
    assert start(capsys, "render", *render, "--tile", 64)[0] == 0
    rolled = pixels(tmp_path / "rolled" / "panoramas" / "red_cyclic.png")
    assert np.array_equal(np.roll(turn, -576, axis=1), rolled)  # so the ends meet as any two columns do


def test_inbetween_at_a_scale_places_photographs_at_the_ends(photographs, detailed_checkpoint, tmp_path, capsys):
    flags = ("--checkpoint", detailed_checkpoint, "--scale", 4, "--size", "160x132", "--steps", 1, "--tile", 256)
    both = (photographs / "red.png", photographs / "blue.png")
    code, said = start(capsys, "inbetween", *both, "--width", 400, "--out", tmp_path, *flags)
    assert code == 2
    least = int(said.split("give ")[1].split()[0])
    assert start(capsys, "inbetween", *both, "--width", least, "--out", tmp_path, *flags)[0] == 0
    row = pixels(tmp_path / "panoramas" / "red_blue.png")
    assert row.shape == (132, least, 3)
    for name, part in (("red", row[:, :160]), ("blue", row[:, -160:])):
        photograph = fit((photographs / f"{name}.png").read_bytes(), (160, 132), 197, 4)
        assert np.array_equal(part[64:-64, 64:-64], photograph[64:-64, 64:-64])


def test_photographs_on_the_web_are_asked_for_with_manners(web_server, tmp_path):
    """Private addresses are refused, whether they come from a list or the command line."""
    web_server.routes |= {"/a.jpg": b"x", "/list.txt": b"/a.jpg"}
    (tmp_path / "list.txt").write_text(f"{web_server.url}/a.jpg\n")
    (url,) = photographs_at([str(tmp_path / "list.txt")])
    with pytest.raises(Rejection, match="not a public address"):
        read_file(url)
    with pytest.raises(InputError, match="not a public address"):
        photographs_at([f"{web_server.url}/list.txt"])
    with pytest.raises(InputError, match="not allowed"):
        photographs_at(["ftp://h/a.jpg"])
    assert web_server.log == []
