"""Measures how much one network can vary a scene: other local latents, or other textures, with all else the same.

Each picture is one window of the photographs' full height, centred on the horizon (paper, Figures 5 and 17).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model import geometry
from model.metrics.distances import Estimate
from model.networks.coordinates import coordinate_field
from model.networks.generator import Generator, noise_sizes
from model.networks.lpips import Lpips


@torch.inference_mode()
def variations(generator: Generator, seed: int, latents: int, textures: int) -> Tensor:
    """Renders one global latent of G_S with several local latents and several textures.

    Args:
        generator: The generator in evaluation mode.
        seed: The seed of all latents and the noise.
        latents: The number of z_l, one per row.
        textures: The number of z_g of G_T, one per column; the first is that of G_S.

    Returns:
        Pictures [latents,textures,3,H,W], about -1 to 1. The noise is the same along a row.
    """
    config, random = generator.config, torch.Generator().manual_seed(seed)
    device = next(generator.parameters()).device
    cells = next(n for n in range(1, config.full_px) if geometry.size(config.texture, n) >= config.full_px)
    low, high = geometry.backward(config.structure, (0, cells - 1))
    side = high - low + 1
    z_g = torch.randn(textures, config.z_g_dim, generator=random).to(device)
    offsets = torch.arange(side) - (side - 1) / 2
    coordinates = coordinate_field(config, offsets, offsets)[None].to(device)
    rows = []
    for _ in range(latents):
        z_l = torch.randn(1, config.z_l_dim, side, side, generator=random).to(device)
        z_n = [torch.randn(1, 1, n, n, generator=random).to(device) for n in noise_sizes(config, cells)]
        z_s = generator.structure(z_l, coordinates, z_g[:1])
        styles = [generator.mapping(style[None]) for style in z_g]
        rows.append(torch.cat([generator.texture(z_s, [w] * (2 * config.pairs + 1), z_n) for w in styles]))
    return torch.stack(rows)


@dataclass(frozen=True, slots=True)
class Diversity:
    """Mean LPIPS of pairs of pictures, with the standard error over global latents.

    Attributes:
        local_latents: Pairs that differ in z_l and the noise.
        textures: Pairs that differ in the style of the textures.
        worlds: Pairs that differ in everything.
    """

    local_latents: Estimate
    textures: Estimate
    worlds: Estimate


@torch.inference_mode()
def diversity(lpips: Lpips, pictures: Tensor) -> Diversity:
    """Measures pictures [worlds,latents,textures,3,H,W], which `variations` makes for several seeds."""
    worlds, latents, textures = pictures.shape[:3]
    features = lpips.features(pictures.flatten(0, 2).clamp(-1, 1))
    place = torch.arange(worlds * latents * textures).reshape(worlds, latents, textures)

    def between(first: Tensor, second: Tensor) -> Estimate:
        """Estimates the mean distance of pairs at places [worlds,...], by world."""
        distances = lpips.between([x[first.flatten()] for x in features], [x[second.flatten()] for x in features])
        means = distances.cpu().double().reshape(worlds, -1).mean(dim=1)
        return Estimate(float(means.mean()), float(means.std() / worlds**0.5))

    return Diversity(
        local_latents=between(place, place.roll(1, dims=1)),
        textures=between(place, place.roll(1, dims=2)),
        worlds=between(place[:, :, 0], place[:, :, 0].roll(1, dims=0)),
    )
