import io
import json
import tarfile

import fsspec
import numpy as np
import pytest

import transforms.panoramas.patch_shards
from transforms.panoramas.folder import plan_folder
from transforms.panoramas.patch_shards import (
    DamagedShardError,
    PatchReader,
    write_patch_shard,
)
from transforms.panoramas.patches import decode, encode, pixel_checksum
from transforms.panoramas.plan import PatchShard
from transforms.render.work import missing_shards


def store(out, plan, painted, tiles_per_shard=4):
    for shard in missing_shards(plan, [], tiles_per_shard):
        write_patch_shard(out, shard, painted.samples(shard))


def put_together(reader, plan):
    """Joins the panorama from its patches."""
    picture = np.zeros((plan.request.height_px, plan.request.width_px, 3), np.uint8)
    (top, _), (left, _) = plan.request.rows, plan.request.columns
    for index in reversed(range(plan.tiles)):
        rows, columns = plan.cropped(index)
        part = slice(rows[0] - top, rows[1] - top + 1), slice(columns[0] - left, columns[1] - left + 1)
        picture[part] = reader.patch(index).pixels
    return picture


@pytest.mark.parametrize("out", ["memory://shards/a b", "local folder"])
@pytest.mark.parametrize("tiles_per_shard", [1, 4, 100])
def test_what_was_written_is_read(out, tiles_per_shard, plan_of, painted, tmp_path):
    plan = plan_of(150, 70, origin_x_px=-40)
    out = out if "://" in out else str(tmp_path / out)
    store(out, plan, painted, tiles_per_shard)
    reader = PatchReader(out, plan)
    assert reader.missing() == 0
    np.testing.assert_array_equal(put_together(reader, plan), painted.levels(plan))
    expected = painted.patches(PatchShard(plan, 0, plan.tiles - 1))
    for patch, wanted in zip(reader.patches(), expected, strict=True):
        assert patch.index == wanted.index
        np.testing.assert_array_equal(patch.pixels, wanted.pixels)
        np.testing.assert_array_equal(patch.edges, wanted.edges)


def test_a_shard_is_the_same_bytes_each_time(plan_of, painted, tmp_path, contents):
    plan = plan_of(150, 70)
    for name in ("a", "b"):
        store(str(tmp_path / name), plan, painted)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_shard_says_what_its_patches_are(plan_of, painted, tmp_path):
    plan = plan_of(390, 70, origin_x_px=-40)
    shard = PatchShard(plan, 0, 15)
    write_patch_shard(str(tmp_path), shard, painted.samples(shard))
    (path,) = tmp_path.rglob("*.tar")
    with tarfile.open(path) as tar:
        assert {(member.mtime, member.uname) for member in tar} == {(0, "infinitygan")}
        names = tar.getnames()
        assert names[:3] == ["0_00.edge.png", "0_00.json", "0_00.png"]
        assert [name for name in names if name.endswith("json")] == [
            *(f"0_{column:02}.json" for column in range(13)),
            *(f"1_{column:02}.json" for column in range(3)),
        ]
        document = json.loads(tar.extractfile("0_00.json").read())
        pixels = decode(tar.extractfile("0_00.png").read())
    assert document.pop("sha256") == pixel_checksum(pixels)
    assert len(document.pop("edges_sha256")) == 64
    assert document == {"index": 0, "world_x_px": -40, "world_y_px": -35, "width_px": 8, "height_px": 3}
    assert pixels.shape == (3, 8, 3)


def test_missing_tiles_are_counted(plan_of, painted, tmp_path):
    plan = plan_of(150, 70)
    reader = PatchReader(str(tmp_path), plan)
    assert reader.missing() == plan.tiles == 20
    with pytest.raises(FileNotFoundError, match="tile 0 is missing"):
        reader.patch(0)
    for first, last in ((2, 5), (4, 8), (15, 17)):
        shard = PatchShard(plan, first, last)
        write_patch_shard(str(tmp_path), shard, painted.samples(shard))
    reader = PatchReader(str(tmp_path), plan)
    assert reader.missing() == 10
    assert [patch.index for patch in reader.patches()] == [2, 3, 4, 5, 6, 7, 8, 15, 16, 17]


def test_each_shard_is_read_once(plan_of, painted, tmp_path, monkeypatch):
    plan = plan_of(150, 70)
    store(str(tmp_path), plan, painted)
    read = []
    original = transforms.panoramas.patch_shards.read_bytes
    monkeypatch.setattr(transforms.panoramas.patch_shards, "read_bytes", lambda url: read.append(url) or original(url))
    reader = PatchReader(str(tmp_path), plan)
    assert len(list(reader.patches())) == plan.tiles
    assert len(read) == len(set(read)) == 5
    for index in range(plan.tiles - 4, plan.tiles):
        reader.patch(index)
    assert len(read) == 6


def flip(position):
    return lambda content: content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :]


def in_member(name, change):
    """Changes one file in a tar."""

    def damage(content):
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            member = tar.getmember(name)
        start, end = member.offset_data, member.offset_data + member.size
        return content[:start] + change(content[start:end]) + content[end:]

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no tar" * 500,
        lambda content: content[:700],
        lambda content: content[:-9000],
        lambda content: content[: len(content) // 2],
        *(in_member("0_0.png", flip(position)) for position in (1, 17, 40, 60, -20)),
        *(in_member("0_0.edge.png", flip(position)) for position in (1, 17, 45, 60, -20)),
        *(in_member("0_0.json", flip(position)) for position in (0, 20, 60)),
        in_member("0_0.png", lambda png: encode(np.zeros((32, 32, 3), np.uint8)).ljust(len(png), b"\0")),
    ],
)
def test_a_damaged_shard_is_named_and_gives_no_wrong_pixels(damage, plan_of, painted, tmp_path):
    plan = plan_of(64, 64, origin_y_px=0)
    store(str(tmp_path), plan, painted)
    (path,) = tmp_path.rglob("*.tar")
    path.write_bytes(damage(path.read_bytes()))
    reader = PatchReader(str(tmp_path), plan)
    expected = painted.patches(PatchShard(plan, 0, 3))
    answers = []
    for index in range(4):
        try:
            patch = reader.patch(index)
        except DamagedShardError as error:
            answers.append(str(error))
        else:
            np.testing.assert_array_equal(patch.pixels, expected[index].pixels)
            np.testing.assert_array_equal(patch.edges, expected[index].edges)
    assert answers
    with pytest.raises(DamagedShardError):
        list(reader.patches())
    assert all(str(path) in text and "is damaged" in text and text.endswith("remove it") for text in answers)


def test_an_error_in_the_middle_leaves_no_shard(plan_of, painted, tmp_path):
    plan = plan_of(150, 70)
    shard = PatchShard(plan, 0, 3)
    samples = [*painted.samples(shard)[:2], {"__key__": "0_2", "png": None}]
    with pytest.raises(ValueError, match="bytes"):
        write_patch_shard(str(tmp_path), shard, samples)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    memory = fsspec.filesystem("memory")
    with pytest.raises(ValueError, match="bytes"):
        write_patch_shard("memory://middle", shard, samples)
    assert memory.find(plan_folder("/middle", plan)) == []


def bomb():
    """Returns a PNG of few bytes that claims 400 million pixels."""
    return encode(np.zeros((1, 1, 3), np.uint8)).replace(
        b"IHDR" + (1).to_bytes(4, "big") * 2, b"IHDR" + (20_000).to_bytes(4, "big") * 2
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("json", b"[" * 100_000),
        ("json", {"difference": 5}),
        ("json", {"difference": {"max": "<b>", "mean": []}}),
        ("json", {"difference": {"max": 10**400, "mean": 1e999}}),
        ("json", {"sha256": None}),
        ("png", np.zeros((32, 31, 3), np.uint8)),
        ("png", bomb()),
        ("edge.png", bomb()),
    ],
)
def test_a_forged_patch_is_a_damaged_shard(file, content, plan_of, painted, tmp_path):
    plan = plan_of(64, 64)
    shard = PatchShard(plan, 0, 3)
    samples = painted.samples(shard)
    if isinstance(content, np.ndarray):  # with the right checksum, but not the tile's size
        about = json.loads(samples[0]["json"]) | {"sha256": pixel_checksum(content)}
        samples[0] |= {"json": json.dumps(about).encode(), "png": encode(content)}
    elif isinstance(content, dict):
        samples[0]["json"] = json.dumps(json.loads(samples[0]["json"]) | content).encode()
    else:
        samples[0][file] = content
    write_patch_shard(str(tmp_path), shard, samples)
    with pytest.raises(DamagedShardError, match=r"damaged at .* of tile 0; remove it"):
        PatchReader(str(tmp_path), plan).patch(0)
    assert PatchReader(str(tmp_path), plan).patch(1).index == 1


def test_a_sparse_member_of_a_shard_is_not_read(plan_of, painted, tmp_path):
    plan = plan_of(32, 32)
    folder = tmp_path / "patches" / "p" / plan.digest
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0-0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(f"{plan.member(0)}.png")
        sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
        member.pax_headers = {**sparse, "GNU.sparse.name": member.name}
        content = b"1\n0\n0\n".ljust(512, b"\0")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DamagedShardError):
        PatchReader(str(tmp_path), plan).patch(0)
