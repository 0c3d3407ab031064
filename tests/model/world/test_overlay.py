"""Overlays: in every world, stored fields lie where they were made for and nowhere else."""

import dataclasses
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PRESETS
from model.errors import InputError
from model.quantise import quantise
from model.world.definition import Definition, Style
from model.world.detailed import at_scale
from model.world.fields import z_g_vector
from model.world.footprint import footprint
from model.world.latents import Latents
from model.world.overlay import Overlay, box_windows, check_overlay, load_overlay, reduced, save_overlay
from model.world.world import World

CONFIG = PRESETS["tiny"]
SHA256 = "a" * 64
TURN_PX = 16 * 72


def overlay_of(generator, seed, box, cyclic_px=None):
    """Makes an overlay of a part of a plain world; the photograph is what the world shows there."""
    windows = box_windows(box)
    place = footprint(CONFIG, *windows)
    latents = Latents(Definition(seed, cyclic_px), CONFIG)
    z_g = z_g_vector(seed, CONFIG.z_g_dim)
    z_n = latents.z_n([(layer, *window) for layer, window in enumerate(place.noise)])
    photograph = quantise(World(generator, Definition(seed, cyclic_px)).render(*windows))
    w = generator.mapping.exact(z_g).repeat(2 * CONFIG.pairs + 1, 1)
    z_l = latents.z_l(*place.latents)
    return Overlay(box, cyclic_px, SHA256, z_g, w, z_l, tuple(z_n), photograph, {})


def world_with(generator, overlay, **fields):
    """Returns the world of another seed with the overlay in it."""
    definition = Definition(99, overlay.cyclic_px, styles=(Style(overlay="o"),), overlays=("o",), **fields)
    return World(generator, definition, overlays={"o": overlay})


@pytest.mark.parametrize("box", [(0, -32, 64, 64), (-501, 77, 40, 90)])
@pytest.mark.parametrize("cyclic_px", [None, TURN_PX])
def test_what_was_taken_out_of_one_world_shows_in_another(tiny, box, cyclic_px):
    overlay = overlay_of(tiny, 5, box, cyclic_px)
    rows, columns = box_windows(box)
    there = world_with(tiny, overlay)
    expected = World(tiny, Definition(5, cyclic_px)).render(rows, columns)
    assert torch.equal(there.render(rows, columns), expected)
    if cyclic_px:  # and once around the circle
        again = columns[0] + 3 * TURN_PX, columns[1] + 3 * TURN_PX
        assert torch.equal(there.render(rows, again), expected)


def test_the_style_of_an_overlay_is_not_truncated(tiny):
    """Its fields were found for that very style."""
    box = (0, -32, 64, 64)
    overlay = overlay_of(tiny, 5, box)
    expected = World(tiny, 5).render(*box_windows(box))
    assert torch.equal(world_with(tiny, overlay, truncation=0.5).render(*box_windows(box)), expected)


def test_the_latents_of_an_overlay_are_not_truncated(tiny):
    overlay = overlay_of(tiny, 5, (0, -32, 64, 64))
    expected = World(tiny, 5).render(*overlay.windows)
    assert torch.equal(world_with(tiny, overlay, local_truncation=0.5).render(*overlay.windows), expected)


def test_far_from_an_overlay_the_world_is_as_without(tiny):
    overlay = overlay_of(tiny, 5, (0, 0, 64, 64))
    style = Style(z_g=tuple(overlay.z_g[0].tolist()))
    far = (0, 63), (1000, 1063)
    assert torch.equal(
        world_with(tiny, overlay).render(*far), World(tiny, Definition(99, styles=(style,))).render(*far)
    )


@settings(max_examples=30)
@given(st.integers(-40, 40), st.integers(-90, 90), st.integers(1, 40), st.integers(1, 80), st.booleans())
def test_fields_are_the_overlays_inside_its_footprint_and_drawn_outside(tiny, row, column, height, width, cyclic):
    turn = TURN_PX // 16 if cyclic else None
    overlay = overlay_of(tiny, 5, (-100, -50, 70, 40), turn and TURN_PX)
    place = overlay.footprint(CONFIG)
    rows, columns = (row, row + height - 1), (column, column + width - 1)
    base, other = (Latents(Definition(seed, overlay.cyclic_px), CONFIG) for seed in (99, 5))
    laid = Latents(Definition(99, overlay.cyclic_px, overlays=("o",)), CONFIG, overlays=[overlay])
    for layer in (None, 0, 5):
        positions = 1 if layer is None else 2 ** (layer // 2 + 1)
        windows = place.latents if layer is None else place.noise[layer]
        found, drawn, own = (
            fields.z_l(rows, columns) if layer is None else fields.z_n([(layer, rows, columns)])[0]
            for fields in (laid, base, other)
        )
        y, x = torch.arange(rows[0], rows[1] + 1), torch.arange(columns[0], columns[1] + 1)
        inside_x = torch.tensor(
            [any(windows[1][0] <= at + k * (turn or 0) * positions <= windows[1][1] for k in range(-9, 10)) for at in x]
        )
        inside = ((windows[0][0] <= y) & (y <= windows[0][1]))[:, None] & inside_x[None, :]
        assert torch.equal(found, torch.where(inside, own, drawn))


def test_a_pasted_photograph_shows_its_own_pixels_inside_and_fades_at_its_border(tiny):
    overlay = overlay_of(tiny, 5, (0, 0, 64, 48))
    overlay = dataclasses.replace(overlay, photograph=torch.full_like(overlay.photograph, 200))
    window = (-20, 80)
    plain, hard, soft = (
        quantise(world_with(tiny, overlay, paste_px=paste_px).render(window, window)).int()
        for paste_px in (None, 0, 10)
    )
    assert (hard[:, 20:68, 20:84] == 200).all()
    assert (soft[:, 30:58, 30:74] == 200).all()
    outside = torch.ones(101, 101, dtype=torch.bool)
    outside[20:68, 20:84] = False
    assert torch.equal(hard[:, outside], plain[:, outside])
    assert torch.equal(soft[:, outside], plain[:, outside])
    border = (soft - 200).abs()[:, 44, 20:31].float() / (plain - 200).abs()[:, 44, 20:31].clamp(min=1)
    assert border[:, 0].mean() > 0.8
    assert border[:, 5].mean() < 0.6


def at_four(overlay, seed=0):
    """Returns an overlay with a photograph of random pixels at scale 4."""
    _, _, width, height = overlay.box_px
    random = torch.Generator().manual_seed(seed)
    photograph = torch.randint(256, (3, 4 * height, 4 * width), generator=random, dtype=torch.uint8)
    return dataclasses.replace(overlay, photograph=photograph)


def lowered(overlay):
    """Returns the same overlay with its photograph at scale 1."""
    return dataclasses.replace(overlay, photograph=reduced(overlay.photograph, overlay.scale))


def drawn(generator, stage, overlay, rows, columns, scale=4, **fields):
    """Returns the levels of a window, at a scale, of a world with an overlay in it."""
    world = at_scale(world_with(generator, overlay, **fields), stage, scale)
    return quantise(world.render(rows, columns)).int()


@pytest.mark.parametrize(("x", "cyclic_px"), [(8, None), (-24, TURN_PX)])
def test_a_photograph_keeps_its_own_pixels_at_its_scale(tiny, tiny_stage, x, cyclic_px):
    overlay = at_four(overlay_of(tiny, 5, (x, -16, 48, 40), cyclic_px))
    box = (-64, 95), (4 * x, 4 * x + 191)
    turn = 4 * (cyclic_px or 0)
    for start in (box[1][0], box[1][0] + turn):
        window = box[0], (start, start + 191)
        assert torch.equal(drawn(tiny, tiny_stage, overlay, *window, paste_px=0), overlay.photograph.int())
        core = drawn(tiny, tiny_stage, overlay, *window, paste_px=10)[:, 40:-40, 40:-40]
        assert torch.equal(core, overlay.photograph[:, 40:-40, 40:-40].int())


def test_a_photograph_blends_into_what_is_drawn_around_it_without_a_step(tiny, tiny_stage):
    """Without its own pixels, the stage draws the photograph reduced; each pixel inwards from its border has more."""
    overlay = at_four(overlay_of(tiny, 5, (0, -16, 48, 40)))
    window, blend_px = ((-84, 115), (-20, 211)), 4 * 10
    found, below = (drawn(tiny, tiny_stage, each, *window, paste_px=10) for each in (overlay, lowered(overlay)))
    expected = below.float()
    inside = expected[:, 20:180, 20:212]
    for y in range(160):
        for x in range(192):
            weight = min(1, min(y + 1, 160 - y, x + 1, 192 - x) / (blend_px + 1))
            inside[:, y, x].lerp_(overlay.photograph[:, y, x].float(), weight)
    assert (found - expected).abs().max() <= 1
    outside = torch.ones(200, 232, dtype=torch.bool)
    outside[20:180, 20:212] = False
    assert torch.equal(found[:, outside], below[:, outside])


def test_pasted_photographs_are_the_same_in_any_tile(tiny, tiny_stage):
    overlay = at_four(overlay_of(tiny, 5, (0, -16, 48, 40)))
    whole = drawn(tiny, tiny_stage, overlay, (-80, 111), (-40, 231), paste_px=7)
    for top, left in ((-80, -40), (-13, 5), (40, 120)):
        tile = drawn(tiny, tiny_stage, overlay, (top, top + 70), (left, left + 90), paste_px=7)
        difference = (tile - whole[:, top + 80 : top + 151, left + 40 : left + 131]).abs()
        assert difference.max() <= 1
        assert (difference > 0).double().mean() < 1e-3


def test_at_a_lower_scale_a_photograph_is_the_mean_of_its_pixels(tiny, tiny_stage):
    overlay = at_four(overlay_of(tiny, 5, (0, -16, 48, 40)))
    rows, columns = overlay.windows
    shown = drawn(tiny, tiny_stage, overlay, rows, columns, scale=1, paste_px=0)
    mean = torch.nn.functional.avg_pool2d(overlay.photograph.double()[None], 4)[0]
    assert (shown - mean).abs().max() <= 0.5
    high = at_scale(world_with(tiny, overlay, paste_px=0), tiny_stage, 16)
    assert torch.isfinite(high.render((0, 20), (0, 20))).all()  # beyond its own scale it is drawn


def test_a_later_photograph_covers_an_earlier_one_of_a_higher_scale(tiny, tiny_stage):
    below = at_four(overlay_of(tiny, 5, (0, -16, 48, 40)))
    above = overlay_of(tiny, 6, (16, -16, 48, 40))
    definition = Definition(99, styles=(Style(overlay="a"),), overlays=("b", "a"), paste_px=0)
    both = at_scale(World(tiny, definition, overlays={"a": above, "b": below}), tiny_stage, 4)
    picture = quantise(both.render((-64, 95), (0, 255)))
    assert torch.equal(picture[:, :, :64], below.photograph[:, :, :64])
    alone = at_scale(World(tiny, definition, overlays={"a": above, "b": lowered(below)}), tiny_stage, 4)
    assert torch.equal(picture[:, :, 64:], quantise(alone.render((-64, 95), (0, 255)))[:, :, 64:])


def test_a_file_is_the_same_for_the_same_content_and_comes_back_whole(tiny):
    overlay = overlay_of(tiny, 5, (3, -9, 33, 40), TURN_PX)
    content = save_overlay(overlay)
    assert content == save_overlay(overlay)
    back = load_overlay(content, "file")
    check_overlay(back, "file", CONFIG, TURN_PX, SHA256)
    assert (back.box_px, back.cyclic_px, len(back.sha256)) == (overlay.box_px, TURN_PX, 64)
    for name in ("z_g", "w", "z_l", "photograph"):
        assert torch.equal(getattr(back, name), getattr(overlay, name))
    assert all(torch.equal(a, b) for a, b in zip(back.z_n, overlay.z_n, strict=True))


def refused(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "turn_px", "sha256", "said"),
    [
        ({}, None, "b" * 64, "was made for the checkpoint aaaaaaaaaaaa, not for bbbbbbbbbbbb"),
        ({}, TURN_PX, SHA256, f"was made for a world without end, and this is a circle of {TURN_PX} px"),
        ({"box_px": (0, 0, 80, 64)}, None, SHA256, "z_l is torch.float32"),
        ({"box_px": (5, 0, 64, 64)}, None, SHA256, "for its place it must be"),
        ({"z_g": torch.zeros(1, 3)}, None, SHA256, "z_g is torch.float32 [1, 3]"),
        ({"w": torch.full((9, 16), torch.nan)}, None, SHA256, "w holds values that are not finite"),
        ({"photograph": torch.zeros(3, 128, 128, dtype=torch.uint8)}, None, SHA256, "photograph is torch.uint8"),
        ({"photograph": torch.zeros(9, dtype=torch.uint8)}, None, SHA256, "photograph is torch.uint8 [9]"),
        ({"z_n": ()}, None, SHA256, "noise for 0 layers"),
        ({"cyclic_px": 400}, 400, SHA256, "needs 528 px of the circle"),
    ],
)
def test_an_overlay_of_another_checkpoint_law_or_shape_is_refused(tiny, changes, turn_px, sha256, said):
    overlay = dataclasses.replace(overlay_of(tiny, 5, (0, 0, 64, 64)), **changes)
    assert said in refused(check_overlay, overlay, "o", CONFIG, turn_px, sha256)


def test_a_file_that_is_no_overlay_is_refused(tiny):
    content = save_overlay(overlay_of(tiny, 5, (0, 0, 32, 32)))
    for broken in (b"", b"nonsense", pickle.dumps({"z_g": 1}), content[:200], content[:-7]):
        assert refused(load_overlay, broken, "file").startswith("file")
    huge = save_overlay(dataclasses.replace(overlay_of(tiny, 5, (0, 0, 32, 32)), box_px=(0, 0, 10**6, 5)))
    assert "sides must not exceed 16384" in refused(load_overlay, huge, "file")
