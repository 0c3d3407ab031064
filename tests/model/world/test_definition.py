import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PRESETS
from model.errors import InputError
from model.world.definition import Definition, Edit, Journey, Style, check_definition
from model.world.world import World

TINY = PRESETS["tiny"]


def refused(function, *arguments, **keywords):
    with pytest.raises(InputError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Style, {}, "a style needs a seed, z_g"),
        (Style, {"seed": 1, "z_g": (0.0,)}, "a style needs a seed, z_g"),
        (Style, {"seed": -1}, "seed is -1"),
        (Style, {"seed": 1, "texture_seed": 2**64}, "2^64"),
        (Style, {"seed": True}, "seed is True"),
        (Style, {"z_g": (float("nan"),)}, "finite numbers"),
        (Style, {"seed": 1, "x_px": 0.5}, "x_px is 0.5"),
        (Edit, {"box_px": (0, 0, 1), "seed": 1}, "box_px"),
        (Edit, {"box_px": (0, 0, 0, 1), "seed": 1}, "at least 1"),
        (Edit, {"box_px": (2**31, 0, 1, 1), "seed": 1}, "its magnitude must be below"),
        (Edit, {"box_px": (0, 0, 1, 1), "seed": 1, "fields": ()}, "name some of z_l, noise"),
        (Edit, {"box_px": (0, 0, 1, 1), "seed": 1, "fields": ("z_l", "z_l")}, "each once"),
        (
            Edit,
            {"box_px": (0, 0, 1, 1), "seed": 1, "fields": ("noise",), "like_box_px": (0, 0, 1, 1)},
            "applies to z_l",
        ),
        (Journey, {"every_px": 255}, "every_px is 255; it must be from 256 to"),
        (Journey, {"every_px": 4096.5}, "every_px is 4096.5; it must be a whole number"),
        (Journey, {"every_px": 2**31}, "every_px is 2147483648"),
        (Journey, {"every_px": 300, "seed": -1}, "seed is -1"),
        (Journey, {"every_px": 300, "dimensions": 3}, "dimensions is 3; it must be 1 or 2"),
        (Journey, {"every_px": 300, "dimensions": True}, "dimensions is True"),
        (Definition, {"seed": 1, "truncation": 1.6}, "truncation is 1.6; it must be a number from 0 to 1.5"),
        (Definition, {"seed": 1, "truncation": -0.1}, "truncation is -0.1"),
        (Definition, {"seed": 1, "truncation": float("nan")}, "truncation is nan"),
        (Definition, {"seed": 1, "truncation": True}, "truncation is True"),
        (Definition, {"seed": 1, "truncation": "0.7"}, "truncation is '0.7'"),
        (Definition, {"seed": 1, "journey": 4096}, "journey is 4096; give an object"),
        (
            Definition,
            {"seed": 1, "journey": Journey(every_px=300), "styles": (Style(seed=1),)},
            "styles and a journey are both given",
        ),
        (
            Definition,
            {"seed": 1, "journey": Journey(every_px=300), "fusion_px": 301},
            "fusion_px is 301, more than the journey's every_px, 300",
        ),
    ],
)
def test_a_wrong_value_is_named_in_one_line(kind, values, said):
    assert said in refused(kind, **values)


@pytest.mark.parametrize("turn_px", [16 * 69, 16 * 70 + 1, 0, -16 * 140])
def test_a_circle_that_this_network_cannot_close_is_refused(turn_px):
    assert "at least 1120 px" in refused(check_definition, Definition(1, cyclic_px=turn_px), TINY)


@pytest.mark.parametrize("turn_px", [16 * 70, 16 * 71, 16 * 1000])
def test_a_circle_of_half_a_period_or_more_closes(turn_px):
    check_definition(Definition(1, cyclic_px=turn_px), TINY)


def test_a_global_latent_of_another_length_is_refused():
    assert "z_g has 3 numbers; this network needs 16" in refused(
        check_definition, Definition(1, styles=(Style(z_g=(0.0, 1.0, 2.0)),)), TINY
    )


def test_in_a_circle_centres_a_turn_apart_are_one():
    styles = (Style(seed=1, x_px=5), Style(seed=2, x_px=5 + 1600))
    Definition(1, styles=styles)
    assert "same centre" in refused(Definition, 1, cyclic_px=1600, styles=styles)


def test_many_styles_must_not_crowd_together():
    crowd = tuple(Style(seed=n, x_px=n, y_px=0) for n in range(33))
    Definition(1, styles=crowd[:32])
    assert "33 of 33 styles lie within 127 px of each other, near x_px 0, y_px 0" in refused(
        Definition, 1, styles=crowd
    )
    Definition(1, styles=tuple(Style(seed=n, x_px=100 * n, y_px=0) for n in range(1000)))
    around = tuple(Style(seed=n, x_px=1600 * n + n, y_px=0) for n in range(33))
    assert "33 of 33 styles" in refused(Definition, 1, cyclic_px=1600, styles=around)


@pytest.mark.parametrize("fields", [("z_l",), ("noise",), ("z_l", "noise")])
@settings(max_examples=8)
@given(x=st.integers(-40, 40), y=st.integers(-40, 40), width=st.integers(1, 40), height=st.integers(1, 40))
def test_an_edit_changes_pixels_within_its_reach_and_no_other(tiny, fields, x, y, width, height):
    edit = Edit(box_px=(x, y, width, height), seed=9, fields=fields)
    window = (-360, 360)
    before, after = (World(tiny, Definition(3, edits=edits)).render(window, window) for edits in ((), (edit,)))
    changed = (before != after).any(dim=0)
    for dim, reach in ((1, edit.reach(TINY)[0]), (0, edit.reach(TINY)[1])):
        met = torch.nonzero(changed.any(dim=dim)).flatten() + window[0]
        assert reach[0] <= met.min() <= reach[0] + 24
        assert reach[1] - 24 <= met.max() <= reach[1]


def test_definitions_are_values():
    one, other = (Definition(1, styles=(Style(seed=2),), edits=(Edit(box_px=(0, 0, 1, 1), seed=3),)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != dataclasses.replace(one, fusion_px=63)
