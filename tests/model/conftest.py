import dataclasses

import pytest
import torch

from model import geometry
from model.config import PRESETS, GeneratorConfig, ablation
from model.networks.ablations import build_generator
from model.networks.coordinates import coordinate_field
from model.networks.generator import Generator
from model.world.engine import Engine, StyleVectors
from model.world.fields import z_g_vector, z_l_field, z_n_fields
from model.world.fusion import StyleMap

ONE_CHANNEL = GeneratorConfig(
    z_g_dim=1, z_l_dim=1, structure_channels=1, w_dim=1, mapping_layers=1, texture_channels=(1, 1, 1, 1), full_px=197
)


@pytest.fixture(scope="session")
def tiny(build):
    return build(PRESETS["tiny"])


@pytest.fixture(scope="session")
def small(build):
    return build(PRESETS["small"])


@pytest.fixture(scope="session")
def paper(build):
    return build(PRESETS["paper"])


@pytest.fixture(scope="session")
def five_pairs(build):
    """Returns the tiny network with one pair more."""
    tiny = PRESETS["tiny"]
    return build(dataclasses.replace(tiny, texture_channels=(*tiny.texture_channels, 6), full_px=389))


@pytest.fixture(scope="session", params=["nci", "nci-fcg"])
def ablated(request):
    """The tiny network as each of the ablations without G_S, with noise."""
    torch.manual_seed(0)
    generator = build_generator(ablation(PRESETS["tiny"], request.param)).eval().requires_grad_(False)
    for layer in generator.texture.layers:
        layer.noise_strength.fill_(0.3)
    return generator


@pytest.fixture(scope="session")
def centred():
    """Sets all kernels of one channel to their centre alone, so that each layer passes values on at their position."""
    return one_channel(centre_tap)


@pytest.fixture(scope="session")
def spreading():
    """Sets all kernels of one channel to equal weights, so that a value reaches all it can, in one direction."""
    return one_channel(torch.ones_like)


def centre_tap(weight):
    kernel = torch.zeros_like(weight)
    kernel[..., weight.shape[2] // 2, weight.shape[3] // 2] = 1
    return kernel


def one_channel(kernel_like):
    generator = Generator(ONE_CHANNEL).double()
    for module in (*generator.structure.blocks, *generator.texture.layers, *generator.texture.to_rgb):
        module.convolution.weight.data = kernel_like(module.convolution.weight.data)
        module.convolution.affine.weight.data.zero_()
    return generator.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def latents_of():
    """Returns the network's inputs for windows of z_S: z_l, coordinates and each layer's noise, in float64."""

    def latents_of(config, seed, rows, columns):
        z_l_rows, z_l_columns = (geometry.backward(config.structure, window) for window in (rows, columns))
        z_l = z_l_field(seed, z_l_rows, z_l_columns, config.z_l_dim).double()
        y, x = (torch.arange(low, high + 1) for low, high in (z_l_rows, z_l_columns))
        coordinates = coordinate_field(config, y, x)[None].double()
        outputs = zip(*(geometry.outputs(config.texture, window) for window in (rows, columns)), strict=True)
        z_n = z_n_fields(seed, [(layer, *windows) for layer, windows in enumerate(outputs)])
        return z_l, coordinates, [noise.double() for noise in z_n]

    return latents_of


class OneStyle:
    """The engine of a single style, given any window."""

    def __init__(self, generator, z_g, ws):
        self.engine = Engine(generator, [StyleVectors(z_g, ws)].__getitem__)

    def z_s(self, z_l, coordinates):
        return self.engine.z_s(z_l, coordinates, map_of(z_l))

    def picture(self, z_s, z_n):
        style_map = map_of(z_s)
        return self.engine.picture(z_s, z_n, style_map.rows, style_map.columns, style_map)


def map_of(field):
    """Returns the map of the only style over a field, whose rows and columns are counted from 0."""
    rows, columns = ((0, n - 1) for n in field.shape[2:])
    return StyleMap((0,), None, rows, columns, 1)


@pytest.fixture(scope="session")
def one_style():
    return OneStyle


@pytest.fixture(scope="session")
def fold_float64():
    """Returns a generator folded for a style's seed, in float64."""

    def fold(generator, seed):
        copy = Generator(generator.config).double().requires_grad_(False)
        copy.load_state_dict(generator.state_dict())
        z_g = z_g_vector(seed, generator.config.z_g_dim).double()
        return OneStyle(copy, z_g, [copy.mapping(z_g)] * (2 * generator.config.pairs + 1))

    return fold
