"""Styles over the plane, against brute force; and fused worlds, against a network written for one whole image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from model import geometry
from model.world.definition import Definition, Style
from model.world.fields import z_g_vector
from model.world.fusion import Fusion, Mixture
from model.world.world import World

TURN_PX = 16 * 80


def weights_by_hand(definition, rows_px, columns_px, step=1):
    """Computes each style's weight at one in `step` pixels, float64 [K,h,w]: nearest centre, then a box's mean."""
    half = definition.fusion_px // 2
    y = np.arange(rows_px[0] - half, rows_px[1] + half + 1)[:, None]
    x = np.arange(columns_px[0] - half, columns_px[1] + half + 1)[None, :]
    distances = []
    for style in definition.styles:
        across = x - style.x_px
        if definition.cyclic_px:
            across = (across + definition.cyclic_px // 2) % definition.cyclic_px - definition.cyclic_px // 2
        distances.append((y - style.y_px) ** 2 + across**2)
    nearest = np.argmin(np.stack(distances), axis=0)
    boxes = sliding_window_view(nearest, (definition.fusion_px,) * 2)[::step, ::step]
    return np.stack([(boxes == k).mean(axis=(2, 3)) for k in range(len(definition.styles))])


def weights_of(found, count, shape):
    """Returns a mixture, or one style, as the weight of each style."""
    if isinstance(found, int):
        return np.stack([np.full(shape, float(k == found)) for k in range(count)])
    weights = np.zeros((count, *shape))
    weights[list(found.styles)] = found.weights
    return weights


near = st.integers(-90, 90)
styles = st.lists(st.tuples(near, near), min_size=1, max_size=5, unique=True).map(
    lambda centres: tuple(Style(seed=k, y_px=y, x_px=x) for k, (y, x) in enumerate(centres))
)


@settings(max_examples=60)
@given(styles, st.sampled_from([1, 3, 31]), st.none() | st.just(160), near, near, st.sampled_from([1, 2, 16]))
def test_weights_are_those_of_brute_force(styles, fusion_px, turn_px, top, left, step):
    definition = Definition(0, turn_px, styles, fusion_px) if distinct(styles, turn_px) else Definition(0, None, styles)
    rows, columns = (top, top + 9), (left, left + 6)
    found = Fusion(definition, "cpu").map(rows, columns, step).at(rows, columns)
    rows_px, columns_px = ((low * step, high * step) for low, high in (rows, columns))
    expected = weights_by_hand(definition, rows_px, columns_px, step)
    assert np.abs(weights_of(found, len(styles), (10, 7)) - expected).max() < 1e-6
    if isinstance(found, Mixture):
        assert torch.allclose(found.weights.sum(dim=0), torch.ones(10, 7), atol=1e-6)
        assert found.weights.flatten(1).amax(dim=1).min() > 0


def distinct(styles, turn_px):
    return turn_px is None or len({(style.y_px, style.x_px % turn_px) for style in styles}) == len(styles)


@settings(max_examples=30)
@given(styles, near, near, st.integers(0, 20), st.integers(0, 20), st.sampled_from([1, 2, 4, 8]))
def test_a_part_of_a_map_is_the_map_of_the_part(styles, top, left, down, right, step):
    fusion = Fusion(Definition(0, styles=styles, fusion_px=31), "cpu")
    rows, columns = (top, top + 40), (left, left + 40)
    whole = fusion.map((top * 8, (top + 40) * 8), (left * 8, (left + 40) * 8), 1)
    scale = 8 // step
    part = ((top + down) * scale, (top + down + 9) * scale), ((left + right) * scale, (left + right + 9) * scale)
    alone = fusion.map(*part, step).at(*part)
    shape = tuple(geometry.length(window) for window in part)
    assert rows[0] <= top + down
    assert columns[0] <= left + right
    assert np.array_equal(weights_of(whole.at(*part, step), len(styles), shape), weights_of(alone, len(styles), shape))


def test_at_the_far_ends_of_the_world_the_nearest_centre_is_found_without_overflow():
    end = 2**31 - 2**17
    styles = (
        Style(seed=0, x_px=-end, y_px=-end),
        Style(seed=1, x_px=end, y_px=end),
        Style(seed=2, x_px=end, y_px=-end),
    )
    fusion = Fusion(Definition(0, styles=styles, fusion_px=1), "cpu")
    assert fusion.map((end, end + 5), (end, end + 5), 1).styles == (1,)
    assert fusion.map((-end, 5 - end), (-end, 5 - end), 1).styles == (0,)
    border = fusion.map((-9, -8), (-20, 20), 1).at((-9, -8), (-20, 20))
    assert weights_of(border, 3, (2, 41))[:, 0].argmax(axis=0).tolist() == [0] * 21 + [2] * 20


class WholeImage:
    """The network of the design for a window of cells, in float64, with a style at every position."""

    def __init__(self, generator, definition, rows, columns):
        self.generator, self.config = generator.double(), generator.config
        self.definition, self.windows = definition, (rows, columns)
        self.z_gs = [z_g_vector(style.seed, self.config.z_g_dim).double() for style in definition.styles]
        self.ws = [self.generator.mapping(z_g) for z_g in self.z_gs]

    def styles_at(self, convolution, vectors, windows, step):
        """Returns s(p) of a convolution at each position: [1,I,h,w]."""
        rows_px, columns_px = ((low * step, high * step) for low, high in windows)
        weights = torch.from_numpy(weights_by_hand(self.definition, rows_px, columns_px, step))
        return torch.einsum("khw,ki->ihw", weights, torch.cat([convolution.affine(v) for v in vectors]))[None]

    def convolve(self, convolution, x, vectors, before, after, step, step_after):
        weight = convolution.weight * convolution.gain
        x = x * self.styles_at(convolution, vectors, before, step)
        if convolution.up:
            y = functional.conv_transpose2d(x, weight.transpose(0, 1).flip(2, 3), stride=2, padding=1)
        else:
            y = functional.conv2d(x, weight)
        if convolution.demodulate:
            scale = self.styles_at(convolution, vectors, after, step_after)
            energy = (weight**2).sum(dim=(2, 3))
            y = y / torch.sqrt(torch.einsum("oi,nihw->nohw", energy, scale**2) + 1e-8)
        return y

    def picture(self, z_l, coordinates, z_n):
        cell_px = self.config.cell_px
        windows = [geometry.backward(self.config.structure, window) for window in self.windows]
        x = z_l
        for block, layer in zip(self.generator.structure.blocks, self.config.structure, strict=True):
            margin = (coordinates.shape[2] - x.shape[2]) // 2
            here = coordinates[:, :, margin : margin + x.shape[2], margin : margin + x.shape[3]]
            after = [layer.forward(window) for window in windows]
            y = self.convolve(block.convolution, torch.cat([x, here], 1), self.z_gs, windows, after, cell_px, cell_px)
            x, windows = functional.leaky_relu(y + block.bias[:, None, None], 0.2) * 2**0.5, after
        rgb, step = None, cell_px
        for index, (layer, shape) in enumerate(zip(self.generator.texture.layers, self.config.texture, strict=True)):
            after = [shape.forward(window) for window in windows]
            if shape.up:
                unblurred = [(2 * low, 2 * high) for low, high in windows]
                y = self.convolve(layer.convolution, x, self.ws, windows, unblurred, step, step // 2)
                kernel = torch.tensor([1.0, 2, 1]).double()
                kernel = (kernel[:, None] * kernel / 4).expand(y.shape[1], 1, 3, 3)
                y, step = functional.conv2d(y, kernel, groups=y.shape[1]), step // 2
            else:
                y = self.convolve(layer.convolution, x, self.ws, windows, after, step, step)
            y = y + layer.noise_strength * z_n[index] + layer.bias[:, None, None]
            x, windows = functional.leaky_relu(y, 0.2) * 2**0.5, after
            if not shape.up:
                to_rgb = self.generator.texture.to_rgb[index // 2]
                new = self.convolve(to_rgb.convolution, x, self.ws, windows, windows, step, step)
                new = new + to_rgb.bias[:, None, None]
                if rgb is not None:
                    side = [2 * n - 1 for n in rgb.shape[2:]]
                    rgb = functional.interpolate(rgb, side, mode="bilinear", align_corners=True)[:, :, 2:-2, 2:-2]
                    new = new + rgb
                rgb = new
        return rgb[0]


FOUR = tuple(Style(seed=k, y_px=y, x_px=x) for k, (y, x) in enumerate([(0, 20), (70, 150), (-50, 90), (40, 40)]))


@pytest.mark.parametrize("network", ["tiny", "small"])
@pytest.mark.parametrize(("turn_px", "left"), [(None, 0), (TURN_PX, TURN_PX - 60)])
def test_a_fused_world_is_what_the_design_says_for_one_whole_image(request, build, latents_of, network, turn_px, left):
    config = request.getfixturevalue(network).config
    definition = Definition(5, turn_px, FOUR, 31)
    rows, columns = (-40, 79), (left, left + 119)
    world = World(build(config), definition)
    cells = [geometry.backward(config.texture, window) for window in (rows, columns)]
    picture = world.compute(rows, columns)
    latents = [geometry.backward(config.structure, window) for window in cells]
    outputs = list(zip(*(geometry.outputs(config.texture, window) for window in cells), strict=True))
    z_l, coordinates = world.latents.z_l(*latents), world.latents.coordinates(*latents)
    z_n = world.latents.z_n([(layer, *windows) for layer, windows in enumerate(outputs)])
    reference = WholeImage(build(config), definition, *cells)
    with torch.no_grad():
        expected = reference.picture(z_l.double(), coordinates.double(), [noise.double() for noise in z_n])
    assert picture.pixels.shape == expected.shape
    assert picture.pixels.std() > 0.02
    assert (picture.pixels - expected).abs().max() < 1e-4


def test_one_style_of_the_worlds_own_seed_is_the_plain_world_bit_for_bit(tiny):
    fused = World(tiny, Definition(7, styles=(Style(seed=7, x_px=400),)))
    assert torch.equal(fused.render((-30, 60), (0, 90)), World(tiny, 7).render((-30, 60), (0, 90)))


def test_styles_that_are_alike_blend_into_what_each_is(tiny):
    """The path by pixel and the folded path agree to rounding."""
    styles = tuple(Style(seed=7, x_px=x, y_px=y) for x, y in ((0, 0), (60, 10), (30, 50)))
    fused, plain = World(tiny, Definition(7, styles=styles)), World(tiny, 7)
    difference = fused.render((-30, 60), (0, 90)) - plain.render((-30, 60), (0, 90))
    assert 0 < difference.abs().max() < 1e-4


def test_far_from_a_border_a_fused_world_has_the_pixels_of_its_style_alone(tiny):
    fused = World(tiny, Definition(7, styles=(Style(seed=1), Style(seed=2, x_px=3000))))
    for seed, left in ((1, 900), (2, 1900)):
        alone = World(tiny, Definition(7, styles=(Style(seed=seed),)))
        window = (left, left + 80)
        assert torch.equal(fused.render(window, window), alone.render(window, window))


def test_a_texture_seed_changes_the_texture_and_not_the_structure(tiny):
    plain, other = (World(tiny, Definition(7, styles=(Style(seed=1, texture_seed=t),))) for t in (1, 2))
    both = [world.engine.structure[0].folded(0) for world in (plain, other)]
    assert torch.equal(*both)
    assert (plain.render((0, 60), (0, 60)) - other.render((0, 60), (0, 60))).abs().mean() > 0.01
    assert torch.equal(
        plain.render((0, 60), (0, 60)), World(tiny, Definition(7, styles=(Style(seed=1),))).render((0, 60), (0, 60))
    )


def test_a_style_may_be_given_by_its_latent(tiny):
    z_g = tuple(z_g_vector(3, 16)[0].tolist())
    by_latent, by_seed = (World(tiny, Definition(7, styles=(style,))) for style in (Style(z_g=z_g), Style(seed=3)))
    assert torch.equal(by_latent.render((0, 60), (0, 60)), by_seed.render((0, 60), (0, 60)))
