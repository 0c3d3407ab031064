"""The comparisons of an evaluation: the positions of worlds' windows and photographs' crops, and their scaling."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image
from sets import read_index

from model.config import PRESETS, ablation
from model.errors import InputError
from model.networks.ablations import build_generator
from model.networks.coordinates import draw_windows
from model.quantise import quantise
from model.world.one_shot import render_once
from pipelines.ingest import ingest
from transforms.evaluation.crops import crop_photograph, read_photographs, read_picture
from transforms.evaluation.settings import (
    GROUND,
    PATCH,
    SKY,
    Evaluation,
    band,
    beyond_frame,
    clamp_to_frame,
    frame,
    paper,
    paper_base_px,
    scale_down,
    spread,
)
from transforms.evaluation.windows import cut_pictures, cut_world, cut_worlds, render_window, scale_down_as_the_paper
from transforms.ingest.options import IngestOptions
from transforms.photographs.prepare import Preparation

CONFIG = PRESETS["tiny"]
FULL_PX, PATCH_PX = CONFIG.full_px, CONFIG.patch_px
EVALUATION = Evaluation()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns photographs, each of one blue, whose red gives the row and whose green the column."""
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(20):
        picture = photograph(250).permute(1, 2, 0).numpy().copy()
        picture[..., 2] = 12 * index
        Image.fromarray(picture).save(folder / f"{index:02d}.png")
    out = str(tmp_path_factory.mktemp("set") / "shards")
    options = IngestOptions((str(folder),), out, preparation=Preparation(content_filters=False), dedup="off")
    ingest(options, PipelineOptions(["--runner=FnApiRunner"]))
    return out


def photograph(width):
    y, x = torch.arange(FULL_PX)[:, None], torch.arange(width)[None, :]
    return torch.stack([(y + 0 * x), (x + 0 * y), 0 * x + 0 * y]).to(torch.uint8)


@pytest.fixture
def render(painted):
    return lambda rows, columns: painted.compute(rows, columns).crop(rows, columns)


def random():
    return np.random.default_rng(0)


def rows_of(pictures):
    """Returns the red of each picture's first and last row, which in a photograph is the row itself."""
    return [(int(picture[0, 0, 0]), int(picture[0, -1, 0])) for picture in pictures]


def test_bands_of_photographs_are_crops_as_far_from_the_middle_clamped_to_the_frame():
    sets = crop_photograph(photograph(250), [0.0] * 8, CONFIG, EVALUATION, random())
    assert set(rows_of(sets[band(-48)])) == {(0, 100)}
    assert set(rows_of(sets[band(0)])) == {(48, 148)}
    assert set(rows_of(sets[band(48)])) == {(96, 196)}
    assert {clamp_to_frame(band_px, CONFIG) for band_px in EVALUATION.bands_px} == {-48, 0, 48}
    assert {clamp_to_frame(band_px, CONFIG) for band_px in (-388, -48)} == {-48}


@pytest.mark.parametrize(("horizon_px", "sky", "ground"), [(130, 16, 0), (60, 0, 16), (98, 0, 0)])
def test_sky_and_ground_are_crops_at_the_edge_that_do_not_hold_the_horizon(horizon_px, sky, ground):
    picture = photograph(250)
    picture[2, horizon_px:] = 255
    sets = crop_photograph(picture, [0.0] * 8, CONFIG, EVALUATION, random())
    assert set(rows_of(sets[SKY])) == ({(0, 100)} if sky else set())
    assert set(rows_of(sets[GROUND])) == ({(96, 196)} if ground else set())
    assert (len(sets[SKY]), len(sets[GROUND])) == (sky, ground)
    assert [beyond_frame(band_px, CONFIG) for band_px in (-128, -48, 48, 128)] == [SKY, "", "", GROUND]


def test_patches_of_photographs_lie_where_ingest_planned_them():
    positions = [-1.0, -0.5, 0.0, 1.0]
    sets = crop_photograph(photograph(250), positions, CONFIG, EVALUATION, random())
    assert [top for top, _ in rows_of(sets[PATCH])] == [0, 24, 48, 96]
    assert sets[PATCH].shape == (4, 3, PATCH_PX, PATCH_PX)
    assert sets[frame()].shape == (EVALUATION.frame_crops, 3, FULL_PX, FULL_PX)


def test_crops_come_from_all_along_a_photograph():
    places = sorted(spread(49, 8, random()))
    assert all(50 * n / 8 - 1 < place < 50 * (n + 1) / 8 for n, place in enumerate(places))
    assert (min(spread(0, 5, random())), max(spread(0, 5, random()))) == (0, 0)
    assert all(0 <= place <= 7 for place in spread(7, 100, random()))


def test_bands_of_worlds_have_their_middle_row_there(render):
    sets = cut_world(render, CONFIG, EVALUATION, random())
    for band_px in EVALUATION.bands_px:
        expected = ((band_px - 50) % 241, (band_px + 50) % 241)
        found = {(int(patch[1, 0, 0]), int(patch[1, -1, 0])) for patch in sets[band(band_px)]}
        assert found == {expected}
        assert len(sets[band(band_px)]) == EVALUATION.band_patches


def test_patches_of_worlds_are_drawn_by_the_law_of_training(render):
    """Their middle rows reach as far from the horizon as those of training windows."""
    many = Evaluation(patches=200, scales=(1, 2), bands_px=(0,))
    tops = cut_world(render, CONFIG, many, random())[PATCH][:, 1, 0, 0].int()
    middles = ((tops + 50 + 120) % 241 - 120).float()
    _, t = draw_windows(CONFIG, 1000, torch.Generator().manual_seed(0))
    trained = t * CONFIG.travel_cells / 2 * CONFIG.cell_px
    assert middles.min() == pytest.approx(float(trained.min()), abs=1)
    assert middles.max() == pytest.approx(float(trained.max()), abs=1)
    assert middles.std() == pytest.approx(float(trained.std()), rel=0.05)


def ramp(rows, columns):
    """Renders a world that darkens evenly from row -800 to row 800."""
    shade = torch.arange(rows[0], rows[1] + 1) / -800
    return shade[None, :, None].expand(3, -1, columns[1] - columns[0] + 1)


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_a_frame_shows_as_many_times_more_of_the_world_around_the_horizon(scale):
    frames = cut_world(ramp, CONFIG, EVALUATION, random())[frame(scale)]
    assert frames.shape[1:] == (3, FULL_PX, FULL_PX)
    assert len(frames) == min(EVALUATION.frames, 8 // scale)
    reach = FULL_PX * scale / 2 / 800 * 127.5
    assert int(frames[0, 0, 0, 50]) == pytest.approx(127.5 + reach, abs=1.5)
    assert int(frames[0, 0, -1, 50]) == pytest.approx(127.5 - reach, abs=1.5)


def test_frames_of_one_scale_do_not_overlap(render):
    frames = cut_world(render, CONFIG, EVALUATION, random())[frame(1)]
    columns = [int(one[0, 0, 0]) for one in frames]
    assert len(set(columns)) == len(columns)


def test_scaling_down_is_antialiased_and_the_papers_is_not():
    grain = torch.randint(0, 256, (1, 3, 788, 788), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours, theirs = scale_down(grain, 197), scale_down_as_the_paper(grain, 4, paper_base_px(CONFIG))
    assert ours.float().std() < grain.float().std() / 3
    assert theirs.float().std() > 1.4 * ours.float().std()
    assert theirs.shape == (1, 3, 128, 128)


def test_the_papers_protocol_stands_beside_ours():
    evaluation = Evaluation(protocol="paper", scales=(1, 2))
    worlds = cut_world(ramp, CONFIG, evaluation, random())
    photographs = crop_photograph(photograph(250), [0.0], CONFIG, evaluation, random())
    assert {frame(1), frame(2), paper(frame(1)), paper(frame(2))} < set(worlds)
    assert photographs[paper(frame())].shape[1:] == (3, 128, 128)
    assert paper(frame()) not in crop_photograph(photograph(250), [0.0], CONFIG, EVALUATION, random())


def test_a_window_in_tiles_is_the_window(render):
    rows, columns = (-300, 220), (5, 700)
    assert torch.equal(render_window(render, rows, columns), quantise(render(rows, columns)))


def test_a_world_is_always_looked_at_in_the_same_places(render):
    evaluation = Evaluation(worlds=2, scales=(1,), bands_px=(0,))
    first, second = (list(cut_worlds(lambda seed: render, CONFIG, evaluation)) for _ in range(2))
    for mine, again in zip(first, second, strict=True):
        assert all(torch.equal(mine[name], again[name]) for name in mine)
    assert not torch.equal(first[0][PATCH], first[1][PATCH])


def test_a_padded_networks_pictures_are_rendered_each_at_its_own_size():
    """A patch takes 6 cells; the frames of 197 and 394 px are the middles of 13 and 25 cells."""
    config = ablation(CONFIG, "nci")
    torch.manual_seed(0)
    generator = build_generator(config).eval()
    evaluation = Evaluation(patches=2, scales=(1, 2), frames=4, world_columns=1)
    sets = cut_pictures(generator, 5, evaluation, random())
    assert {name: len(pictures) for name, pictures in sets.items()} == {PATCH: 2, frame(1): 2, frame(2): 1}
    once = quantise(render_once(generator, 5, (-3, 2), (6, 11)))
    assert torch.equal(sets[PATCH][1], once)
    whole = quantise(render_once(generator, 5, (-6, 6), (13, 25)))
    assert (sets[frame(1)][1].int() - whole[:, 5:202, 5:202].int()).abs().max() <= 1
    twice = quantise(render_once(generator, 5, (-12, 12), (0, 24)))
    expected = scale_down(twice[None, :, 3:397, 3:397], FULL_PX)
    assert (sets[frame(2)].int() - expected.int()).abs().max() <= 1
    assert torch.equal(cut_pictures(generator, 5, evaluation, random())[PATCH], sets[PATCH])


def blues(photographs):
    return [round(float(sets[PATCH][:, 2].float().mean()) / 12) for sets in photographs]


def test_held_out_photographs_are_those_of_val_and_test_and_no_others(data):
    held_out, trained = read_photographs(data, CONFIG, EVALUATION)
    splits = [row["split"] for row in read_index(data)]
    seen, known = blues(held_out), blues(trained)
    assert len(seen) == len(splits) - splits.count("train")
    assert sorted(seen + known) == list(range(20))


def test_so_many_of_the_training_photographs_at_most(data):
    _, trained = read_photographs(data, CONFIG, Evaluation(trained_photographs=5))
    assert 2 <= len(list(trained)) <= 5


def test_patches_come_from_all_heights_of_both(data):
    """Few patches are taken of a training photograph, but not the same ones of each."""
    for photographs in read_photographs(data, CONFIG, EVALUATION):
        tops = torch.cat([sets[PATCH][:, 0, 0, 0] for sets in photographs]).float()
        assert float(tops.mean()) == pytest.approx(48, abs=8)
    assert {len(sets[PATCH]) for sets in photographs} == {EVALUATION.of_trained().patches}


def test_a_damaged_photograph_is_named(data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    row = next(row for row in read_index(data) if row["split"] != "train")
    shard = bytearray((copy / row["shard"]).read_bytes())
    shard[row["offset"] : row["offset"] + 200] = b"x" * 200
    (copy / row["shard"]).write_bytes(shard)
    with pytest.raises(InputError, match=f"photograph {row['key']}, is damaged"):
        list(read_photographs(str(copy), CONFIG, EVALUATION)[0])
    (copy / row["shard"]).unlink()
    with pytest.raises(InputError, match=f"{row['shard']} is damaged .it is missing"):
        list(read_photographs(str(copy), CONFIG, EVALUATION)[0])


def test_a_picture_of_another_size_than_the_index_says_is_damaged(data):
    row = dict(read_index(data)[0])
    content = (Path(data) / row["shard"]).read_bytes()[row["offset"] :][: row["size"]]
    assert read_picture(content, row, "it").shape == (3, 197, 250)
    with pytest.raises(InputError, match="size differs from that in the index"):
        read_picture(content, {**row, "stored_width_px": 251}, "it")


def test_what_cannot_be_compared_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="is not a training set"):
        read_photographs(str(tmp_path), CONFIG, EVALUATION)
    other = dataclasses.replace(CONFIG, full_px=389)
    with pytest.raises(InputError, match="389"):
        read_photographs(data, other, EVALUATION)


@pytest.mark.parametrize("fields", [{"worlds": 1}, {"bootstraps": 0}, {"frames": 0}, {"protocol": "none"}])
def test_numbers_that_measure_nothing_are_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        Evaluation(**fields)
