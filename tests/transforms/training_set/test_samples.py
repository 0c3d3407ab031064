import dataclasses
import hashlib
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from transforms.training_set.samples import (
    PlannedPatch,
    Sample,
    as_copy,
    plan_patches,
    sample_key,
    split_of,
    vertical_position,
)

SHA256 = hashlib.sha256(b"a photograph").hexdigest()
KEYS = st.binary(max_size=4).map(lambda content: hashlib.sha256(content).hexdigest()[:16])


def make_sample(sha256: str = SHA256, source: str = "photos/a b ü.jpg") -> Sample:
    key = sample_key(sha256)
    return Sample(
        key=key,
        source=source,
        licence="CC0-1.0",
        author=None,
        sha256=sha256,
        perceptual_hash="0123456789abcdef",
        original_width_px=800,
        original_height_px=400,
        crop_box_px=(0, 0, 800, 400),
        full_size_px=(800, 400),
        stored_width_px=394,
        stored_height_px=197,
        split=split_of(key),
        full_rows_px=(0, 197),
        patches=plan_patches(key, 394, (0, 197), 101),
    )


def test_a_sample_survives_its_json_form():
    sample = make_sample()
    assert Sample.from_json(json.loads(json.dumps(sample.to_json()))) == sample
    assert list(sample.to_json()) == [field.name for field in dataclasses.fields(Sample)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", "UPPERCASE0123456"),
        ("key", "0123456789abcdef"),
        ("key", f"{SHA256[:16]}-0"),
        ("source", ""),
        ("sha256", "abc"),
        ("perceptual_hash", "xyz"),
        ("original_width_px", 0),
        ("crop_box_px", (0, 0, 801, 400)),
        ("crop_box_px", (5, 0, 5, 400)),
        ("full_size_px", (0, 400)),
        ("full_rows_px", (197, 0)),
        ("split", "training"),
        ("patches", (PlannedPatch(300, 0, 101, -1.0),)),
    ],
)
def test_a_sample_checks_its_fields(field, value):
    with pytest.raises(InputError, match=field):
        dataclasses.replace(make_sample(), **{field: value})


@pytest.mark.parametrize("change", [{"patches": [{"x_px": 1}]}, {"unknown": 1}, {"crop_box_px": None}])
def test_json_that_is_no_sample_is_an_input_error(change):
    with pytest.raises(InputError):
        Sample.from_json({**make_sample().to_json(), **change})
    with pytest.raises(InputError):
        Sample.from_json({"key": SHA256[:16]})


@given(key=KEYS, width=st.integers(101, 2000), top=st.integers(0, 50), full=st.integers(101, 800))
def test_planned_patches_lie_in_the_picture_and_say_where(key, width, top, full):
    patches = plan_patches(key, width, (top, top + full), 101)
    assert len(patches) == 8
    for index, patch in enumerate(patches):
        assert 0 <= patch.x_px <= width - 101
        assert top <= patch.y_px <= top + full - 101
        expected = top + (full - 101) * (patch.vertical_position + 1) / 2
        assert patch.y_px == pytest.approx(expected, abs=1e-6)
        stratum = (full - 101) / 8
        assert index * stratum - 0.5 <= patch.y_px - top <= (index + 1) * stratum + 0.5
    columns = sorted(patch.x_px for patch in patches)
    for index, x_px in enumerate(columns):
        assert index * (width - 101) / 8 - 0.5 <= x_px <= (index + 1) * (width - 101) / 8 + 0.5
    assert plan_patches(key, width, (top, top + full), 101) == patches


def test_a_patch_of_the_whole_height_is_in_the_middle():
    assert {patch.vertical_position for patch in plan_patches("0" * 16, 300, (0, 101), 101)} == {0.0}


@given(top=st.integers(-50, 50), full=st.integers(1, 800), patch=st.integers(1, 800))
def test_the_vertical_position_runs_from_the_top_to_the_bottom(top, full, patch):
    rows = (top, top + full)
    if patch == full:
        assert vertical_position(top, rows, patch) == 0
    elif patch < full:
        assert vertical_position(top, rows, patch) == -1
        assert vertical_position(top + full - patch, rows, patch) == 1
        assert vertical_position(top + 1, rows, patch) == pytest.approx(-1 + 2 / (full - patch))


def test_what_is_planned_for_a_key_stays_what_it_was():
    whence = [(289, 11), (82, 21), (28, 36), (202, 44), (59, 57), (146, 62), (240, 80), (166, 84)]
    planned = [(patch.x_px, patch.y_px) for patch in plan_patches(SHA256[:16], 394, (0, 197), 101)]
    assert planned == whence


def test_splits_are_80_10_10():
    keys = [hashlib.sha256(str(index).encode()).hexdigest()[:16] for index in range(20_000)]
    counts = Counter(map(split_of, keys))
    assert counts["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert counts["val"] / 20_000 == pytest.approx(0.1, abs=0.01)


@given(key=KEYS, copy=st.integers(1, 99))
def test_copies_stay_in_the_split_of_the_first(key, copy):
    assert split_of(f"{key}-{copy}") == split_of(key)


def test_a_copy_has_its_own_key_and_patches():
    sample = make_sample()
    copy = as_copy(sample, 2)
    assert copy.key == f"{sample.key}-2"
    assert copy.patches != sample.patches
    assert dataclasses.replace(copy, key=sample.key, patches=sample.patches) == sample
