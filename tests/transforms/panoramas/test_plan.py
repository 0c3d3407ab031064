import dataclasses
import itertools

import apache_beam as beam
import fsspec
import numpy as np
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from model.geometry import LIMIT, length
from model.world.definition import Edit, Journey, Style
from model.world.scale import SCALES
from transforms.panoramas.folder import check_plan, existing_shards, look_up, other_plans, plan_folder, record_path
from transforms.panoramas.plan import LATER_FIELDS, PatchShard, Plan, plan_from_json
from transforms.panoramas.requests import RenderRequest
from transforms.panoramas.tiling import SCALED_TILE_PIXELS, TILE_PIXELS, size_for
from transforms.render.options import RenderOptions
from transforms.render.work import CutShards, Work, gaps_between, missing_shards, work_on

tile_sides = st.sampled_from([16, 32, 48, 64, 112])
pairs_of_sides = st.tuples(*[st.sampled_from([32, 64, 96, 128])] * 2)
tile_sizes = tile_sides | pairs_of_sides
FAR = LIMIT - 10_000


@st.composite
def plans(draw, largest_px=400):
    sides = st.integers(1, largest_px)
    origins = st.integers(-FAR, FAR) | st.integers(-300, 300)
    request = RenderRequest(
        id="p",
        seed=7,
        width_px=draw(sides),
        height_px=draw(sides),
        origin_x_px=draw(origins),
        origin_y_px=draw(origins),
    )
    return Plan(request, "none", "0" * 64, draw(tile_sizes))


@st.composite
def plans_with_shards(draw):
    """Draws a plan with some of its tiles in shards, as runs with other shard sizes may have left them."""
    plan = draw(plans())
    existing = []
    for tiles_per_shard in draw(st.lists(st.integers(1, 9), max_size=3)):
        more = list(missing_shards(plan, existing, tiles_per_shard))
        existing += [shard for shard in more if draw(st.booleans())]
    return plan, existing


@given(plans())
def test_every_pixel_is_in_exactly_one_cropped_tile(plan):
    (top, bottom), (left, right) = plan.request.rows, plan.request.columns
    times = np.zeros((bottom - top + 1, right - left + 1), int)
    for index in range(plan.tiles):
        rows, columns = plan.cropped(index)
        assert rows[0] <= rows[1]
        assert columns[0] <= columns[1]
        times[rows[0] - top : rows[1] - top + 1, columns[0] - left : columns[1] - left + 1] += 1
    assert (times == 1).all()


@given(plans())
def test_square_tiles_are_whole_cells_of_the_worlds_grid_and_others_follow_the_panorama(plan):
    for index in (0, plan.tiles // 2, plan.tiles - 1):
        for computed, cropped in zip(plan.computed(index), plan.cropped(index), strict=True):
            assert computed[0] <= cropped[0] <= cropped[1] <= computed[1]
            if isinstance(plan.tile_px, int):
                assert computed[0] % plan.tile_px == 0
                assert computed[1] == computed[0] + plan.tile_px - 1
            else:
                assert computed == cropped


@given(plans())
def test_tiles_meet_where_cells_of_the_network_begin(plan):
    """So neighbours compute the same few pixels around their border, which the seam audit compares."""
    layout, origins = plan.layout, (plan.request.rows[0], plan.request.columns[0])
    for edges, origin in zip((layout.row_edges_px, layout.column_edges_px), origins, strict=True):
        assert all((edge + origin) % 16 == 0 for edge in edges[1:-1])


@given(pairs_of_sides, st.integers(1, 300), st.integers(-300, 300), st.data())
def test_panoramas_with_the_same_rows_have_the_same_tiles_but_for_those_at_their_ends(size, height_px, y_px, data):
    def columns():
        x_px, width_px = data.draw(st.integers(-300, 300)), data.draw(st.integers(1, 900))
        origin = {"origin_x_px": x_px, "origin_y_px": y_px}
        request = RenderRequest(id="p", seed=7, width_px=width_px, height_px=height_px, **origin)
        plan = Plan(request, "none", "0" * 64, size)
        return request.columns, [plan.computed(index) for index in range(plan.tiles)]

    (one, tiles), (other, others) = columns(), columns()
    low, high = max(one[0], other[0]) + size[1], min(one[1], other[1]) - size[1]
    within = [tile for tile in tiles if low <= tile[1][0] <= tile[1][1] <= high]
    assert set(within) <= set(others)


@given(st.integers(1, 5000), st.integers(1, 20_000), st.sampled_from([8, 16, 64]), st.sampled_from(SCALES))
def test_the_size_of_tiles_follows_the_panorama(height_px, width_px, cell_px, scale):
    tile = size_for(height_px, width_px, cell_px, scale)
    assert all(side % cell_px == 0 for side in tile)
    assert tile[0] * tile[1] <= (TILE_PIXELS if scale == 1 else SCALED_TILE_PIXELS)
    request = RenderRequest(id="p", seed=7, width_px=width_px, height_px=height_px)
    plan = Plan(request, "none", "0" * 64, tile)
    assert sum(length(rows) * length(columns) for rows, columns in map(plan.computed, range(plan.tiles))) == (
        height_px * width_px
    )
    heights = {length(plan.computed(row * plan.shape[1])[0]) for row in range(plan.shape[0])}
    assert max(heights) <= tile[0] + 64


@pytest.mark.parametrize(
    ("size", "tile", "shape"),
    [
        ((512, 256), (256, 512), (1, 1)),
        ((16_384, 256), (256, 1024), (1, 16)),
        ((16_384, 512), (512, 512), (1, 32)),
        ((8000, 700), (384, 512), (2, 16)),
        ((8192, 768), (384, 512), (2, 16)),
        ((300, 300), (320, 512), (1, 1)),
        ((4096, 2048), (512, 512), (4, 8)),
        ((100_000, 1024), (512, 512), (2, 196)),
    ],
)
def test_the_tiles_of_common_sizes(size, tile, shape):
    assert size_for(size[1], size[0], 16) == tile
    request = RenderRequest(id="p", seed=7, width_px=size[0], height_px=size[1])
    assert Plan(request, "none", "0" * 64, tile).shape == shape


@given(plans())
def test_the_layout_cuts_where_tiles_meet(plan):
    layout, columns = plan.layout, plan.shape[1]
    assert (layout.width_px, layout.height_px) == (plan.request.width_px, plan.request.height_px)
    assert len(layout.row_edges_px) - 1 == plan.shape[0]
    assert len(layout.column_edges_px) - 1 == columns
    for row, column in itertools.product(range(plan.shape[0]), range(columns)):
        windows = plan.cropped(row * columns + column)
        origins = plan.request.rows[0], plan.request.columns[0]
        edges = layout.row_edges_px[row : row + 2], layout.column_edges_px[column : column + 2]
        for (low, high), origin, cuts in zip(windows, origins, edges, strict=True):
            assert (low - origin, high + 1 - origin) == tuple(cuts)


@given(plans(), plans())
def test_a_square_tile_of_two_panoramas_is_the_same_tile(one, other):
    one, other = (dataclasses.replace(plan, tile_px=32) for plan in (one, other))
    cells = {other.computed(index) for index in range(other.tiles)}
    (top, bottom), (left, right) = other.request.rows, other.request.columns
    for index in range(min(one.tiles, 5)):
        rows, columns = one.cropped(index)
        if top <= rows[0] <= bottom and left <= columns[0] <= right:
            assert one.computed(index) in cells


@given(plans())
def test_members_sort_as_their_tiles(plan):
    names = [plan.member(index) for index in range(plan.tiles)]
    assert names == sorted(set(names))


@given(plans_with_shards(), st.integers(1, 9))
def test_existing_and_missing_shards_hold_each_tile_once(made, tiles_per_shard):
    plan, existing = made
    missing = list(missing_shards(plan, existing, tiles_per_shard))
    assert sorted(i for shard in [*existing, *missing] for i in shard.indices) == list(range(plan.tiles))
    assert all(len(shard.indices) <= tiles_per_shard for shard in missing)
    assert list(missing_shards(plan, [*existing, *missing], 1)) == []


@given(plans_with_shards(), st.integers(1, 9))
def test_shards_that_overlap_leave_no_gap(made, tiles_per_shard):
    plan, existing = made
    both = [*existing, *itertools.islice(missing_shards(plan, [], tiles_per_shard), 2)]
    missing = list(missing_shards(plan, both, tiles_per_shard))
    held = {i for shard in both for i in shard.indices}
    assert sorted(i for shard in missing for i in shard.indices) == sorted(set(range(plan.tiles)) - held)


@given(plans(), st.integers(1, 9))
def test_a_fresh_start_and_a_lost_shard_cut_at_the_same_places(plan, tiles_per_shard):
    fresh = list(missing_shards(plan, [], tiles_per_shard))
    names = [shard.name for shard in fresh]
    assert names == sorted(set(names))
    for lost in fresh[:: max(1, len(fresh) // 3)]:
        assert list(missing_shards(plan, [s for s in fresh if s != lost], tiles_per_shard)) == [lost]


def test_the_digest_tells_all_that_decides_pixels(plan_of):
    plan = plan_of(300, 200)
    others = [
        plan_of(301, 200),
        plan_of(300, 202, origin_y_px=-100),
        plan_of(300, 200, origin_x_px=1),
        plan_of(300, 200, origin_y_px=0),
        plan_of(300, 200, seed=8),
        plan_of(300, 200, cyclic=True),
        plan_of(300, 200, fusion_px=63),
        plan_of(300, 200, styles=(Style(seed=7),)),
        plan_of(300, 200, styles=(Style(seed=7, x_px=1),)),
        plan_of(300, 200, edits=(Edit(box_px=(0, 0, 9, 9), seed=1),)),
        plan_of(300, 200, truncation=0.7),
        plan_of(300, 200, local_truncation=0.7),
        plan_of(300, 200, journey=Journey(every_px=4096), fusion_px=127),
        plan_of(300, 200, journey=Journey(every_px=4096, seed=1), fusion_px=127),
        plan_of(300, 200, scale=4),
        plan_of(300, 200, tile_px=64),
        dataclasses.replace(plan, checkpoint_sha256="1" * 64),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 1 + len(others)
    assert len(plan.digest) == 12


def test_a_plan_of_an_earlier_version_keeps_its_pixels_and_its_digest():
    request = RenderRequest(id="p", seed=7, width_px=300, height_px=200, styles=(Style(seed=1),), local_truncation=1)
    plan = Plan(request, "none", "0" * 64, (256, 512))
    assert plan.digest == "44c3e0407435"
    record = {**plan.to_json(), "plan": plan.digest}
    assert not set(LATER_FIELDS) & set(record["request"])
    assert plan_from_json(record, "none", "p.json") == plan


def test_the_digest_tells_precision_and_scheme(plan_of, monkeypatch):
    plan = plan_of(300, 200)
    digests = {plan.digest, dataclasses.replace(plan, precision="bfloat16").digest}
    monkeypatch.setattr("transforms.panoramas.plan.SCHEME_VERSION", 0)
    assert len({*digests, plan_of(300, 200).digest}) == 3


def test_the_digest_tells_nothing_else(plan_of):
    plan = plan_of(300, 200)
    same = [
        plan_of(300, 200, id="q"),
        plan_of(300, 200, formats=("tif", "png")),
        plan_of(300, 200, checkpoint="gs://elsewhere/x"),
        plan_of(300, 200, origin_x_px=0, origin_y_px=-100),
        dataclasses.replace(plan, checkpoint_url="gs://elsewhere/x"),
    ]
    assert {plan.digest, *(other.digest for other in same)} == {plan.digest}


@pytest.mark.parametrize(("field", "value"), [("origin_x_px", -LIMIT + 1), ("origin_y_px", -LIMIT + 31)])
def test_a_tile_that_would_leave_the_world_is_refused(field, value, plan_of):
    with pytest.raises(InputError, match=r"tiles of 32 px, pixels -2147418112 to .* leave the world.* --tile$"):
        plan_of(10, 10, **{field: value})
    assert plan_of(10, 10, **{field: -LIMIT + 32}).tiles
    assert plan_of(10, 10, **{field: LIMIT - 10}).tiles
    with pytest.raises(InputError, match="leave the world"):
        plan_of(10, 10, 48, **{field: LIMIT - 10})


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (3, 2), (0, 80)])
def test_a_shard_holds_tiles_of_its_plan(first, last, plan_of):
    with pytest.raises(ValueError, match="are not within 0 to 79"):
        PatchShard(plan_of(300, 200), first, last)


def test_only_a_plans_own_shards_are_found(plan_of, tmp_path):
    plan = plan_of(300, 200)
    folder = tmp_path / "patches" / "p" / plan.digest
    assert existing_shards(str(tmp_path), plan) == []
    folder.mkdir(parents=True)
    strangers = ("0-7.tar", "00-80.tar", "09-08.tar", "00-07.tar.tmp-0123456789ab-01234567", "x00-07.tar", "plan.json")
    for name in ("16-31.tar", "00-07.tar", *strangers):
        (folder / name).touch()
    (folder / "40-47.tar").mkdir()
    assert [shard.name for shard in existing_shards(str(tmp_path), plan)] == ["00-07.tar", "16-31.tar"]


@pytest.mark.parametrize("scheme", ["memory://known", ""])
def test_an_id_is_known_by_its_patches_and_by_its_panorama(scheme, plan_of, tmp_path):
    out = scheme or str(tmp_path)
    plan, other = plan_of(300, 200), plan_of(300, 200, seed=8)
    check_plan(out, plan, look_up(out, plan))
    fs = fsspec.filesystem("memory" if scheme else "file")
    fs.makedirs(plan_folder(out, other))
    fs.pipe(f"{plan_folder(out, other)}/0-9.tar", b"")
    assert other_plans(out, plan) == [plan_folder(out, other)]
    assert other_plans(out, other) == []
    check_plan(out, other, look_up(out, other))
    check_plan(out, plan_of(300, 200, id="q"), look_up(out, plan_of(300, 200, id="q")))
    with pytest.raises(
        InputError, match=r"already holds panorama p with another plan.*add --replace to render it again$"
    ):
        check_plan(out, plan, look_up(out, plan))
    fs.rm(f"{out}/patches", recursive=True)
    check_plan(out, plan, look_up(out, plan))
    fs.makedirs(f"{out}/panoramas", exist_ok=True)
    fs.pipe(record_path(out, "p"), b'{"plan": "%s", "files": {}}' % other.digest.encode())
    check_plan(out, other, look_up(out, other))
    with pytest.raises(InputError, match="already holds panorama p with another plan"):
        check_plan(out, plan, look_up(out, plan))
    fs.pipe(record_path(out, "p"), b'{"plan": "cut sho')
    check_plan(out, plan, look_up(out, plan))


def test_the_transform_outputs_what_is_missing(plan_of, tmp_path):
    plan, other = plan_of(300, 200), plan_of(50, 50, id="q")
    folder = tmp_path / "patches" / "p" / plan.digest
    folder.mkdir(parents=True)
    (folder / "20-29.tar").touch()
    existing = existing_shards(str(tmp_path), plan)
    options = RenderOptions((), str(tmp_path), tiles_per_shard=20)
    work = [work_on(options, each, look_up(options.out, each)) for each in (plan, other)]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        shards = pipeline | beam.Create(work) | CutShards()
        expected = [*missing_shards(plan, existing, 20), *missing_shards(other, [], 20)]
        assert_that(shards, equal_to(expected))
    assert [shard.name for shard in expected] == ["00-19.tar", "30-39.tar", "40-59.tar", "60-79.tar", "0-3.tar"]


def test_which_overlays_there_are_decides_a_plan_and_where_they_lie_does_not():
    request = RenderRequest(id="p", seed=1, width_px=64, height_px=64, overlays=("a", "b"))
    moved = dataclasses.replace(request, overlays=("x", "y"))
    plan = Plan(request, "", "0" * 64, 64, overlays=("1", "2"))
    assert Plan(moved, "", "0" * 64, 64, overlays=("1", "2")).digest == plan.digest
    assert Plan(request, "", "0" * 64, 64, overlays=("2", "1")).digest != plan.digest
    with pytest.raises(InputError, match="identify the file of each of its overlays"):
        Plan(request, "", "0" * 64, 64)


@given(plans_with_shards(), st.integers(1, 9))
def test_work_is_reckoned_as_it_would_be_listed(made, tiles_per_shard):
    plan, existing = made
    work = Work(plan, None, tuple(gaps_between(plan, existing)), tiles_per_shard)
    listed = list(work.shards())
    assert listed == list(missing_shards(plan, existing, tiles_per_shard))
    assert (work.shard_count, work.tiles) == (len(listed), sum(len(shard.indices) for shard in listed))
    assert not work.is_done


def test_the_work_of_the_largest_panorama_is_reckoned_at_once(plan_of, tmp_path):
    plan = plan_of(2 * 10**9, 512, tile_px=256, formats=("tif",))
    work = work_on(RenderOptions((), str(tmp_path), tiles_per_shard=1), plan, None)
    assert (work.shard_count, work.tiles) == (plan.tiles, plan.tiles)
    assert plan.tiles == 7_812_500 * 2


def test_more_tiles_than_can_be_listed_are_refused(plan_of):
    with pytest.raises(InputError, match=r"7812500 x 7812500 tiles of 256 px are more than the 33554432 .*smaller one"):
        plan_of(2 * 10**9, 2 * 10**9, tile_px=256, formats=("tif",))
