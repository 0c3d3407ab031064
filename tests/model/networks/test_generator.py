import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import geometry
from model.config import PRESETS
from model.networks.generator import Generator, draw_noise, noise_sizes
from model.networks.layers import ModulatedConvolution, activate, blur, convolve_up, normalise, upsample_skip
from model.world.engine import StyledConvolution
from model.world.fields import z_g_vector

NAMES = ("tiny", "small", "paper")


def correlate(x, kernel):
    """Computes plain correlation without padding: [I,H,W], [O,I,k,k] -> [O,H-k+1,W-k+1] in float64."""
    k = kernel.shape[-1]
    height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
    y = np.zeros((kernel.shape[0], height, width))
    for row in range(k):
        for column in range(k):
            y += np.einsum("oi,ihw->ohw", kernel[:, :, row, column], x[:, row : row + height, column : column + width])
    return y


def up_by_zeros(x, kernel):
    """Puts zeros between inputs, correlates fully, drops the incomplete border and blurs: [I,n,m] -> [O,2n-3,2m-3]."""
    spread = np.zeros((x.shape[0], 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
    spread[:, ::2, ::2] = x
    full = correlate(np.pad(spread, ((0, 0), (2, 2), (2, 2))), kernel)
    whole = full[:, 1:-1, 1:-1]
    taps = np.outer([1, 2, 1], [1, 2, 1]) / 4
    return np.concatenate([correlate(channel[None], taps[None, None]) for channel in whole])


def modulated_by_hand(convolution, x, style):
    """Convolves one sample with its own weight, modulated and demodulated as in the StyleGAN2 paper."""
    affine = convolution.affine
    weight = convolution.weight.numpy() / math.sqrt(convolution.weight[0].numel())
    scale = affine.weight.numpy() @ style / math.sqrt(len(style)) + affine.bias.numpy()
    weight = weight * scale[None, :, None, None]
    if convolution.demodulate:
        weight = weight / np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    return up_by_zeros(x, weight) if convolution.up else correlate(x, weight)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("kernel", "up"), [(1, False), (3, False), (7, False), (3, True)])
def test_a_modulated_convolution_equals_one_weight_a_sample_written_out(kernel, up, demodulate):
    torch.manual_seed(1)
    convolution = ModulatedConvolution(5, 4, kernel, 6, up=up, demodulate=demodulate).double().requires_grad_(False)
    x, style = torch.randn(3, 5, 9, 11).double(), 2 * torch.randn(3, 6).double()
    y = convolution(x, style)
    if up:
        y = blur(y)
    for n in range(3):
        expected = modulated_by_hand(convolution, x[n].numpy(), style[n].numpy())
        assert y[n].shape == expected.shape
        assert np.abs(y[n].numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("up", [False, True])
def test_a_folded_weight_is_the_modulated_convolution_of_its_style(up):
    torch.manual_seed(2)
    convolution = ModulatedConvolution(5, 4, 3, 6, up=up).double().requires_grad_(False)
    x, style = torch.randn(1, 5, 8, 9).double(), torch.randn(1, 6).double()
    folded = StyledConvolution(convolution, torch.zeros(4).double(), [style].__getitem__, gain=1.0, dtype=torch.float64)
    assert (folded(x, 0, 0) - convolution(x, style)).abs().max() < 1e-12


@pytest.mark.parametrize("strength", [1e-2, 1.0, 1e2])
def test_demodulation_gives_outputs_of_unit_variance_whatever_the_style(strength):
    torch.manual_seed(3)
    convolution = ModulatedConvolution(32, 16, 3, 8).requires_grad_(False)
    convolution.affine.bias.fill_(0)
    style = strength * torch.randn(2, 8)
    y = convolution(torch.randn(2, 32, 130, 130), style)
    assert torch.allclose(y.var(dim=(2, 3)), torch.ones(2, 16), atol=0.06)
    folded = StyledConvolution(convolution, torch.zeros(16), [style[:1]].__getitem__, gain=1.0, dtype=torch.float32)
    energy = folded.folded(0).square().sum(dim=(1, 2, 3))
    assert torch.allclose(energy, torch.ones(16), atol=1e-3)


def test_activation_is_leaky_and_keeps_the_variance():
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert activate(torch.tensor([-1.0, 0, 1])).tolist() == pytest.approx([-0.2 * math.sqrt(2), 0, math.sqrt(2)])
    assert activate(x).square().mean().item() == pytest.approx(1 + 0.2**2, abs=0.02)
    assert normalise(5 * x.view(100, 2000)).square().mean(dim=1).tolist() == pytest.approx([1] * 100, abs=1e-4)


def test_a_constant_stays_a_constant_through_an_up_layer():
    weight = torch.zeros(1, 1, 3, 3)
    weight[..., 1, 1] = 1
    assert torch.allclose(blur(convolve_up(torch.ones(1, 1, 6, 7), weight)), torch.ones(1, 1, 9, 11))
    assert torch.allclose(upsample_skip(torch.ones(1, 3, 6, 7)), torch.ones(1, 3, 7, 9))


@given(st.integers(-50, 50), st.integers(4, 12))
def test_up_layer_and_skip_put_position_p_at_2p(low, n):
    """A ramp of positions comes out as half of each output's position, at the positions that geometry gives."""
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[..., 1, 1] = 1
    window = (low, low + n - 1)
    ramp = torch.arange(low, low + n).double().expand(1, 1, n, n)
    up, pair = geometry.outputs(geometry.texture_layers(1), window)
    for y, positions in ((blur(convolve_up(ramp, weight)), up), (upsample_skip(ramp), pair)):
        expected = torch.arange(positions[0], positions[1] + 1).double() / 2
        assert y.shape[2:] == (len(expected), len(expected))
        assert (y[0, 0] - expected).abs().max() < 1e-12
        assert (y.transpose(2, 3)[0, 0] - y[0, 0].T).abs().max() == 0


def texture(generator, z_s, window):
    """Renders the picture of z_S at a window of cells, without noise, in float64."""
    sizes = [geometry.length(output) for output in geometry.outputs(generator.config.texture, window)]
    z_n = [torch.zeros(1, 1, size, size) for size in sizes]
    w = torch.zeros(1, generator.config.w_dim).double()
    return generator.texture(z_s, [w] * (2 * generator.config.pairs + 1), z_n)[0, 0]


def test_a_cell_shows_up_around_its_pixel(centred):
    """A delta of z_S at cell (r, k) gives a bump that is symmetric about pixel (16 r, 16 k), and highest there."""
    window = (-7, 7)
    rows = torch.arange(geometry.forward(centred.config.texture, window)[0], 10**6)
    for row, column in ((0, 0), (2, -1), (-2, 1)):
        z_s = torch.zeros(1, 1, 15, 15).double()
        z_s[0, 0, row + 7, column + 7] = 1
        picture = texture(centred, z_s, window)
        top, left = 16 * row - rows[0], 16 * column - rows[0]
        bump = picture[top - 18 : top + 19, left - 18 : left + 19]
        assert bump.max() == bump[18, 18] > 0
        assert torch.allclose(bump, bump.flip(0), atol=1e-12)
        assert torch.allclose(bump, bump.flip(1), atol=1e-12)


def test_a_ramp_of_cells_gives_a_ramp_of_pixels_sixteen_to_a_cell(centred):
    window = (3, 13)
    cells = torch.arange(3, 14).double()
    picture = texture(centred, (100 + cells).expand(1, 1, 11, 11), window)
    pixels = torch.arange(3 * 16 + 30, 13 * 16 - 30 + 1).double()
    assert picture.shape == (101, 101)
    ratio = picture / (100 + pixels / 16)
    assert (ratio / ratio[0, 0] - 1).abs().max() < 1e-12


@pytest.mark.parametrize("axis", [2, 3])
def test_every_block_of_the_structure_sees_the_coordinates_of_its_own_cells(centred, fold_float64, axis):
    """If only a ramp of coordinates is given, z_S at each cell is that cell's coordinate times one constant."""
    cells = torch.arange(1.0, 36.0).double()
    coordinates = torch.zeros(1, 3, 35, 35).double()
    coordinates[:, 0] = cells[:, None] if axis == 2 else cells
    z_l, z_g = torch.zeros(1, 1, 35, 35).double(), torch.zeros(1, 1).double()
    for z_s in (centred.structure(z_l, coordinates, z_g), fold_float64(centred, 0).z_s(z_l, coordinates)):
        ratio = z_s / coordinates[:, :1, 12:-12, 12:-12]
        assert z_s.min() > 0
        assert (ratio / ratio[0, 0, 0, 0] - 1).abs().max() < 1e-12


def test_a_cell_of_z_s_changes_all_within_45_px_and_nothing_beyond(spreading):
    window = (-8, 8)
    z_s = torch.ones(1, 1, 17, 17).double()
    before = texture(spreading, z_s, window)
    z_s[0, 0, 8, 8] = 1000
    after = texture(spreading, z_s, window)
    assert changed(before, after, geometry.forward(spreading.config.texture, window)) == (-45, 45)


def test_a_cell_of_z_l_changes_all_within_237_px_and_nothing_beyond(spreading, latents_of):
    window = (-19, 19)
    config = spreading.config
    z_l, coordinates, _ = latents_of(config, 0, window, window)
    z_l, coordinates = torch.ones_like(z_l), torch.ones_like(coordinates)
    z_g = torch.zeros(1, 1).double()
    z_s = spreading.structure(z_l, coordinates, z_g)
    before = texture(spreading, z_s, window)
    z_l[0, 0, 31, 31] = 1000
    changed_z_s = spreading.structure(z_l, coordinates, z_g)
    after = texture(spreading, changed_z_s, window)
    assert changed(z_s[0, 0], changed_z_s[0, 0], window) == (-12, 12)
    assert changed(before, after, geometry.forward(config.texture, window)) == (-237, 237)


@pytest.mark.parametrize("cell", [(0, 0), (-3, 5)])
def test_in_a_real_network_nothing_beyond_the_receptive_field_changes(tiny, fold_float64, latents_of, cell):
    rows = columns = (-18, 18)
    network = fold_float64(tiny, 4)
    z_l, coordinates, z_n = latents_of(tiny.config, 4, rows, columns)
    before = network.picture(network.z_s(z_l, coordinates), z_n)[0]
    row, column = cell
    z_l[0, :, row + 30, column + 30] += 50
    difference = (network.picture(network.z_s(z_l, coordinates), z_n)[0] - before).abs().amax(dim=0)
    low, high = geometry.forward(tiny.config.texture, rows)
    for position, profile in ((row, difference.amax(dim=1)), (column, difference.amax(dim=0))):
        pixels = torch.arange(low, high + 1)
        inside = (pixels - 16 * position).abs() <= 237
        assert profile[~inside].max() == 0 if (~inside).any() else True
        assert (profile[(pixels - 16 * position).abs() <= 200] > 1e-9).all()


def changed(before, after, window):
    """Returns the bounding box of the positions that differ, after checking that all in it do."""
    pixels = torch.arange(window[0], window[1] + 1)
    different = before != after
    rows, columns = pixels[different.any(dim=1)], pixels[different.any(dim=0)]
    assert different.sum() == len(rows) * len(columns)
    assert torch.equal(rows, columns)
    return rows.min().item(), rows.max().item()


@pytest.mark.parametrize("network", ["tiny", "five_pairs"])
@pytest.mark.parametrize(("rows", "columns"), [((-1, 5), (3, 9)), ((-4, 8), (0, 10)), ((6, 11), (12, 17))])
def test_in_float64_windows_agree_to_rounding_with_noise_at_every_layer(
    request, network, rows, columns, fold_float64, latents_of
):
    """So differences in float32 are rounding, and every position is where the design puts it."""
    generator = request.getfixturevalue(network)
    folded = fold_float64(generator, 9)
    whole_rows, whole_columns = (-4, 11), (0, 17)

    def picture(rows, columns):
        z_l, coordinates, z_n = latents_of(generator.config, 9, rows, columns)
        return folded.picture(folded.z_s(z_l, coordinates), z_n)[0]

    whole, alone = picture(whole_rows, whole_columns), picture(rows, columns)
    layers = generator.config.texture
    (top, bottom), (left, right) = geometry.forward(layers, rows), geometry.forward(layers, columns)
    first_row, first_column = geometry.forward(layers, whole_rows)[0], geometry.forward(layers, whole_columns)[0]
    part = whole[:, top - first_row : bottom - first_row + 1, left - first_column : right - first_column + 1]
    assert alone.shape == part.shape
    assert alone.std() > 0.05
    assert (part - alone).abs().max() < 1e-13


@pytest.mark.parametrize("layer", range(8))
def test_the_noise_of_every_layer_matters(tiny, fold_float64, latents_of, layer):
    network = fold_float64(tiny, 2)
    z_l, coordinates, z_n = latents_of(tiny.config, 2, (0, 6), (0, 6))
    z_s = network.z_s(z_l, coordinates)
    before = network.picture(z_s, z_n)
    z_n[layer] = -z_n[layer]
    assert (network.picture(z_s, z_n) - before).abs().mean() > 1e-3


def batch_for(config, n, cells, seed=0):
    random = torch.Generator().manual_seed(seed)
    side = geometry.length(geometry.backward(config.structure, (0, cells - 1)))
    z_l = torch.randn(n, config.z_l_dim, side, side, generator=random)
    coordinates = torch.randn(n, 3, side, side, generator=random).clamp(-1, 1)
    z_g = torch.randn(n, config.z_g_dim, generator=random)
    z_n = [torch.randn(n, 1, size, size, generator=random) for size in noise_sizes(config, cells)]
    return z_l, coordinates, z_g, z_n


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_styles_equals_each_alone(request, name):
    generator = request.getfixturevalue(name)
    z_l, coordinates, z_g, z_n = batch_for(generator.config, 3, 6)
    pictures, z_s = generator(z_l, coordinates, z_g, z_n)
    for n in range(3):
        one = slice(n, n + 1)
        alone, z_s_alone = generator(z_l[one], coordinates[one], z_g[one], [noise[one] for noise in z_n])
        assert (pictures[one] - alone).abs().max() < 5e-5
        assert (z_s[one] - z_s_alone).abs().max() < 5e-5
    assert (pictures[0] - pictures[1]).abs().mean() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_the_folded_path_equals_the_batched_path_for_the_same_latents(request, one_style, name):
    generator = request.getfixturevalue(name)
    z_l, coordinates, z_g, z_n = batch_for(generator.config, 2, 6, seed=1)
    pictures, z_s = generator(z_l, coordinates, z_g, z_n)
    for n in range(2):
        one = slice(n, n + 1)
        w = generator.mapping(z_g[one])
        folded = one_style(generator, z_g[one], [w] * (2 * generator.config.pairs + 1))
        folded_z_s = folded.z_s(z_l[one], coordinates[one])
        assert (folded_z_s - z_s[one]).abs().max() < 5e-5
        assert (folded.picture(folded_z_s, [noise[one] for noise in z_n]) - pictures[one]).abs().max() < 5e-5


def test_each_layer_has_its_own_style_and_a_torgb_that_of_the_layer_after_it(tiny, one_style):
    """With a different w at each place, batched and folded paths still agree, and every w changes the picture."""
    z_l, coordinates, z_g, z_n = batch_for(tiny.config, 1, 6, seed=2)
    ws = [tiny.mapping(z_g_vector(seed, tiny.config.z_g_dim)) for seed in range(9)]
    z_s = tiny.structure(z_l, coordinates, z_g)
    picture = tiny.texture(z_s, ws, z_n)
    assert (one_style(tiny, z_g, ws).picture(z_s, z_n) - picture).abs().max() < 5e-5
    for place in range(9):
        others = [*ws[:place], -ws[place], *ws[place + 1 :]]
        assert (tiny.texture(z_s, others, z_n) - picture).abs().max() > 1e-4


@settings(max_examples=15)
@given(st.sampled_from(["tiny", "five_pairs"]), st.integers(6, 14))
def test_sizes_of_the_network_are_those_of_the_formulas(tiny, five_pairs, name, cells):
    generator = {"tiny": tiny, "five_pairs": five_pairs}[name]
    config = generator.config
    z_l, coordinates, z_g, z_n = batch_for(config, 1, cells)
    picture, z_s = generator(z_l, coordinates, z_g, z_n)
    assert z_l.shape[2] == cells + 24
    assert z_s.shape == (1, config.structure_channels, cells, cells)
    side = 2**config.pairs * cells - 5 * (2**config.pairs - 1)
    assert picture.shape == (1, 3, side, side)


def test_noise_of_a_training_patch_fits_its_network(tiny):
    noise = draw_noise(tiny.config, 2, torch.Generator().manual_seed(0))
    assert [x.shape for x in noise] == [(2, 1, n, n) for n in (19, 17, 31, 29, 55, 53, 103, 101)]


def test_the_papers_network_has_the_papers_layers():
    """The numbers are those of Section B: channels, kernels, CoordConv inputs, eight mapping layers."""
    with torch.device("meta"):
        generator = Generator(PRESETS["paper"])
    structure = [tuple(block.convolution.weight.shape) for block in generator.structure.blocks]
    assert structure == [(256, 259, 7, 7)] * 4
    texture = [(tuple(layer.convolution.weight.shape), layer.convolution.up) for layer in generator.texture.layers]
    up, plain = ((512, 512, 3, 3), True), ((512, 512, 3, 3), False)
    assert texture == [((512, 256, 3, 3), True), plain, up, plain, up, plain, up, plain]
    assert [tuple(x.convolution.weight.shape) for x in generator.texture.to_rgb] == [(3, 512, 1, 1)] * 4
    assert not any(x.convolution.demodulate for x in generator.texture.to_rgb)
    assert [tuple(x.weight.shape) for x in generator.mapping.layers] == [(512, 512)] * 8


def test_styles_do_not_depend_on_the_length_of_z_g(tiny):
    z_g = z_g_vector(3, tiny.config.z_g_dim)
    assert torch.allclose(tiny.mapping(z_g), tiny.mapping(3 * z_g), atol=1e-5)
    assert (tiny.mapping(z_g) - tiny.mapping(-z_g)).abs().max() > 1e-3


def test_noise_strength_starts_at_zero_so_that_training_decides():
    generator = Generator(dataclasses.replace(PRESETS["tiny"]))
    assert all(layer.noise_strength == 0 for layer in generator.texture.layers)
