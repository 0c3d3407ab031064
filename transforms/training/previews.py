"""Preview pictures of a training run: always of the same windows of the same worlds."""

import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model import geometry
from model.config import GeneratorConfig
from model.networks.coordinates import draw_windows
from model.networks.detail import DetailStage, base_window, output_window
from model.networks.detail import draw_noise as draw_detail_noise
from model.networks.generator import Generator, draw_noise
from model.quantise import quantise
from model.world.one_shot import render_once
from model.world.world import World

GRID = 8
SEED = 7
STRIP_PX = (1024, 256)
DETAIL_STRIP_PX = (1024, 768)


@torch.inference_mode()
def sample_grid(generator: Generator) -> npt.NDArray[np.uint8]:
    """Renders four rows of random windows of random worlds, uint8 [h,w,3]."""
    config, random = generator.config, torch.Generator().manual_seed(SEED)
    n = GRID * GRID // 2
    coordinates, _ = draw_windows(config, n, random)
    z_l = torch.randn(n, config.z_l_dim, config.latent_cells, config.latent_cells, generator=random)
    z_g = torch.randn(n, config.z_g_dim, generator=random)
    device = next(generator.parameters()).device
    z_n = [noise.to(device) for noise in draw_noise(config, n, random)]
    pictures, _ = generator(z_l.to(device), coordinates.to(device), z_g.to(device), z_n)
    return grid(pictures)


def strip(generator: Generator) -> npt.NDArray[np.uint8]:
    """Renders a wide window of one world around the horizon, uint8 [h,w,3]."""
    width, height = STRIP_PX
    if not generator.config.tileable:
        rows, columns = (cells_for(generator.config, px) for px in (height, width))
        pixels = render_once(generator, SEED, (0, rows - 1), (0, columns - 1))[:, :height, :width]
        return quantise(pixels).permute(1, 2, 0).cpu().numpy()
    pixels = World(generator, SEED).render((-height // 2, height // 2 - 1), (0, width - 1))
    return quantise(pixels).permute(1, 2, 0).cpu().numpy()


@torch.inference_mode()
def detail_strip(base: Generator, detail: DetailStage) -> npt.NDArray[np.uint8]:
    """Draws a window of one world around the horizon at four times the base's resolution, uint8 [h,w,3]."""
    width, height = DETAIL_STRIP_PX
    rows, columns = (-height // 2, height // 2 - 1), (0, width - 1)
    base_rows, base_columns = (base_window(detail.config, window) for window in (rows, columns))
    picture = World(base, SEED).render(base_rows, base_columns)[None]
    noise = draw_detail_noise(detail.config, picture.shape, torch.Generator().manual_seed(SEED))
    pixels = detail(picture, [x.to(picture.device) for x in noise])[0]
    place = [
        geometry.part(window, output_window(detail.config, whole))
        for window, whole in ((rows, base_rows), (columns, base_columns))
    ]
    return quantise(pixels[:, place[0], place[1]]).permute(1, 2, 0).cpu().numpy()


def cells_for(config: GeneratorConfig, px: int) -> int:
    """Returns the smallest number of cells that gives at least this many pixels in one pass."""
    return next(cells for cells in itertools.count(1) if geometry.size(config.texture, cells) >= px)


def grid(pictures: Tensor) -> npt.NDArray[np.uint8]:
    """Arranges pictures [N,3,h,w] in [-1, 1] in rows of eight, N a multiple of eight: uint8 [h·N/8,8w,3]."""
    n, channels, height, width = pictures.shape
    rows = quantise(pictures).reshape(n // GRID, GRID, channels, height, width)
    return rows.permute(0, 3, 1, 4, 2).reshape(n // GRID * height, GRID * width, channels).cpu().numpy()
