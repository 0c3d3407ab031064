"""The styles of a world: the vectors of each, by number, drawn or stored, and truncated.

Truncation moves each drawn style towards the average one: w becomes w̄ + ψ(w - w̄), and the z_g of G_S becomes ψ z_g
(StyleGAN, Appendix B). The style of an overlay stays as it is, because its fields were found for it.
"""

import copy
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import torch
from torch import Tensor

from model.checkpoint import W_MEAN
from model.networks.generator import Generator
from model.world.definition import Definition, Style
from model.world.engine import StyleVectors
from model.world.fields import journey_z_g, z_g_samples, z_g_vector
from model.world.journey import place_of
from model.world.overlay import Overlay

W_SAMPLES = 10_000
W_STEPS = 4096
"""The mean of w is rounded to multiples of 1/4096, so that it does not depend on how its sums were rounded."""

STYLES_KEPT = 64


def styles_of(
    definition: Definition, generator: Generator, device: str, overlays: Mapping[str, Overlay]
) -> Callable[[int], StyleVectors]:
    """Returns a function from the number of a style to its vectors. A journey's are made when they are needed.

    Args:
        definition: The world.
        generator: The network, on the device.
        device: The device to compute on.
        overlays: The world's overlays by name, on the device.
    """
    truncated = Truncated(generator, definition.truncation, device)
    journey = definition.journey
    if journey is not None:
        seed = definition.seed if journey.seed is None else journey.seed
        return lru_cache(maxsize=STYLES_KEPT)(partial(truncated.on_journey, seed))
    styles = definition.styles or (Style(seed=definition.seed),)
    return [truncated.style(style, overlays) for style in styles].__getitem__


class Truncated:
    """Makes the vectors of styles, truncated.

    Args:
        generator: The network, on the device.
        truncation: ψ; 1 leaves styles as they are drawn.
        device: The device to compute on.
    """

    def __init__(self, generator: Generator, truncation: float, device: str):
        self.generator, self.truncation, self.device = generator, truncation, device
        self.mean = None if truncation == 1 else kept_mean_w(generator).to(device)

    def on_journey(self, seed: int, number: int) -> StyleVectors:
        """Returns a style of a journey."""
        z_g = journey_z_g(seed, *place_of(number), self.generator.config.z_g_dim, self.device)
        return StyleVectors(self.z_g(z_g), self.ws(z_g))

    def style(self, style: Style, overlays: Mapping[str, Overlay]) -> StyleVectors:
        """Returns a style of a world's definition."""
        textured = None if style.texture_seed is None else self.ws(self.seeded(style.texture_seed))
        if style.overlay is not None:
            overlay = overlays[style.overlay]
            return StyleVectors(overlay.z_g, textured or list(overlay.w.split(1)))
        if style.z_g is not None:
            z_g = torch.tensor([style.z_g], dtype=torch.float32, device=self.device)
        else:
            assert style.seed is not None
            z_g = self.seeded(style.seed)
        return StyleVectors(self.z_g(z_g), textured or self.ws(z_g))

    def seeded(self, seed: int) -> Tensor:
        """Returns the z_g of a seed."""
        return z_g_vector(seed, self.generator.config.z_g_dim, self.device)

    def z_g(self, z_g: Tensor) -> Tensor:
        """Returns the z_g for G_S."""
        return z_g if self.mean is None else z_g * self.truncation

    def ws(self, z_g: Tensor) -> list[Tensor]:
        """Returns the w [1,w_dim] of each layer of G_T, and of the last to-RGB."""
        w = self.generator.mapping.exact(z_g)
        if self.mean is not None:
            w = self.mean + (w - self.mean) * self.truncation
        return [w] * (2 * self.generator.config.pairs + 1)


def kept_mean_w(generator: Generator) -> Tensor:
    """Returns the mean of w from the checkpoint; of one that lacks it, computes the mean, and keeps it from then on."""
    if generator.mapping.mean is None:
        generator.mapping.mean = mean_w(generator)
    return generator.mapping.mean


def with_mean_w(generator: Generator) -> dict[str, Tensor]:
    """Returns the tensors of a generator's checkpoint: its weights and the mean of w."""
    return {**generator.state_dict(), W_MEAN: mean_w(generator)}


def mean_w(generator: Generator) -> Tensor:
    """Returns the mean of w over 10,000 samples, float32 [1,w_dim] on the CPU; the same on every machine."""
    mapping = copy.deepcopy(generator.mapping).cpu().double()
    with torch.no_grad():
        parts = z_g_samples(W_SAMPLES, generator.config.z_g_dim).double().split(1000)
        total = torch.cat([mapping(part).sum(dim=0, keepdim=True) for part in parts]).sum(dim=0, keepdim=True)
    return (total / W_SAMPLES * W_STEPS).round().div(W_STEPS).float()
