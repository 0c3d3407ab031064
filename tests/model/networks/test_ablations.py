"""The ablations without G_S: how they differ from the network that tiles."""

import pytest
import torch
import torch.nn.functional as F

from model import geometry
from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import PRESETS, ablation
from model.networks.ablations import PaddedLayer, build_generator
from model.networks.generator import draw_noise
from model.world.one_shot import render_once, render_part

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module", params=["nci", "nci-fcg"])
def generator(request):
    torch.manual_seed(0)
    generator = build_generator(ablation(TINY, request.param)).eval().requires_grad_(False)
    for layer in generator.texture.layers:
        layer.noise_strength.fill_(0.3)
    return generator


def latents(config, batch=2):
    random = torch.Generator().manual_seed(1)
    z_l = torch.randn(batch, config.z_l_dim, config.latent_cells, config.latent_cells, generator=random)
    return z_l, torch.zeros(()), torch.randn(batch, config.z_g_dim, generator=random), draw_noise(config, batch, random)


def test_a_patch_has_the_presets_size(generator):
    pictures, z_s = generator(*latents(generator.config))
    assert pictures.shape == (2, 3, generator.config.patch_px, generator.config.patch_px)
    assert z_s.shape[1] == generator.config.z_l_dim


def test_one_shot_renders_any_number_of_cells(generator):
    cells = (-3, 8), (5, 21)
    sizes = {"nci": (16 * 12, 16 * 17), "nci-fcg": (16 * 12 - 75, 16 * 17 - 75)}
    assert render_once(generator, 5, *cells).shape == (3, *sizes[generator.config.kind])
    assert torch.equal(render_once(generator, 5, *cells), render_once(generator, 5, *cells))
    assert not torch.equal(render_once(generator, 5, *cells), render_once(generator, 6, *cells))
    assert not torch.equal(render_once(generator, 5, *cells), render_once(generator, 5, (-3, 8), (6, 22)))


ROWS, COLUMNS = (-7, 6), (20, 33)
"""Windows of cells: pixels -112 to 111 and 320 to 543. Without padding, 30 of them on each side are not computed."""


@pytest.mark.parametrize("columns", [(350, 365), (352, 480)])
@pytest.mark.parametrize("rows", [(-82, -70), (-1, 0), (-82, 66), (50, 66)])
def test_a_part_of_a_picture_is_what_the_whole_has_there(generator, rows, columns):
    whole = render_once(generator, 3, ROWS, COLUMNS)
    (top, _), (left, _) = (geometry.forward(generator.config.texture, cells) for cells in (ROWS, COLUMNS))
    expected = whole[:, rows[0] - top : rows[1] + 1 - top, columns[0] - left : columns[1] + 1 - left]
    extent = (ROWS, COLUMNS) if generator.config.kind == "nci" else None
    part = render_part(generator, 3, extent, rows, columns)
    assert part.shape == expected.shape
    assert torch.allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize("generator", ["nci"], indirect=True)
def test_a_padded_picture_ends_where_it_is_told_to(generator):
    """A longer picture differs only at the end."""
    longer = (ROWS[0], ROWS[1] + 5)
    for rows, same in (((100, 111), False), ((-50, -35), True)):
        one, other = (render_part(generator, 3, (extent, COLUMNS), rows, (380, 420)) for extent in (ROWS, longer))
        assert torch.allclose(one, other, atol=1e-5) == same


def test_only_a_padded_network_knows_where_its_picture_ends(generator):
    """With constant inputs and no noise, a network without padding paints one colour; zeros beyond the frame show."""
    config = generator.config
    z_l, coordinates, z_g, z_n = latents(config)
    pictures, _ = generator(torch.ones_like(z_l), coordinates, z_g, [torch.zeros_like(x) for x in z_n])
    deviation = pictures.std(dim=(2, 3)).max().item()
    assert (deviation > 1e-3) == (config.kind == "nci")


def test_a_padded_up_layer_is_stylegan2s():
    """It is the whole transposed convolution, then its 4-tap blur with a pixel of padding."""
    layer = PaddedLayer(TINY.z_l_dim, 16, TINY.w_dim, up=True).double().requires_grad_(False)
    x, w = torch.randn(2, TINY.z_l_dim, 6, 5).double(), torch.randn(2, TINY.w_dim).double()
    weight = layer.convolution.weight * layer.convolution.affine(w)[:, None, :, None, None]  # one per picture
    weight = weight / weight.square().sum(dim=(2, 3, 4), keepdim=True).sqrt()
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]).double() / 4
    blur = (taps[:, None] * taps).expand(weight.shape[1], 1, 4, 4)
    full = torch.cat([F.conv_transpose2d(x[i : i + 1], weight[i].transpose(0, 1).flip(2, 3), stride=2) for i in (0, 1)])
    expected = F.conv2d(F.pad(full, (1,) * 4), blur, groups=weight.shape[1])
    expected = F.leaky_relu(expected + layer.bias[:, None, None], 0.2) * 2**0.5
    assert expected.shape[2:] == (12, 10)
    assert torch.allclose(layer(x, w, torch.zeros(()).double()), expected)


def test_a_checkpoint_of_an_ablation_is_read_back(generator):
    content = save_checkpoint(generator.state_dict(), generator.config, {}, "CC0-1.0")
    loaded = load_checkpoint(content, "file").generator
    assert loaded.config == generator.config
    assert torch.equal(render_once(loaded, 1, (0, 7), (0, 7)), render_once(generator, 1, (0, 7), (0, 7)))
