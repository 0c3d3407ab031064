"""The ablations without G_S: how they differ from the network that tiles."""

import torch
import torch.nn.functional as F

from model.checkpoint import load_checkpoint, save_checkpoint
from model.config import PRESETS
from model.networks.ablations import PaddedLayer
from model.networks.generator import draw_noise
from model.world.one_shot import render_once

TINY = PRESETS["tiny"]


def latents(config, batch=2):
    random = torch.Generator().manual_seed(1)
    z_l = torch.randn(batch, config.z_l_dim, config.latent_cells, config.latent_cells, generator=random)
    return z_l, torch.zeros(()), torch.randn(batch, config.z_g_dim, generator=random), draw_noise(config, batch, random)


def test_a_patch_has_the_presets_size(ablated):
    pictures, z_s = ablated(*latents(ablated.config))
    assert pictures.shape == (2, 3, ablated.config.patch_px, ablated.config.patch_px)
    assert z_s.shape[1] == ablated.config.z_l_dim


def test_only_a_padded_network_knows_where_its_picture_ends(ablated):
    """With constant inputs and no noise, a network without padding paints one colour; zeros beyond the frame show."""
    config = ablated.config
    z_l, coordinates, z_g, z_n = latents(config)
    pictures, _ = ablated(torch.ones_like(z_l), coordinates, z_g, [torch.zeros_like(x) for x in z_n])
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


def test_a_checkpoint_of_an_ablation_is_read_back(ablated):
    content = save_checkpoint(ablated.state_dict(), ablated.config, {}, "CC0-1.0")
    loaded = load_checkpoint(content, "file").generator
    assert loaded.config == ablated.config
    assert torch.equal(render_once(loaded, 1, (0, 7), (0, 7)), render_once(ablated, 1, (0, 7), (0, 7)))
