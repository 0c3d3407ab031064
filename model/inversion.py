"""Inversion: finds the fields of the world that reproduce a photograph (paper, Section 4.C and Appendix I).

z_g, z_l, W+ and the noise of every layer are optimised together, so that the window at the photograph's place looks
like the photograph and the fields still look random. Losses and weights follow the paper:

        L_pix and LPIPS        10 each     difference of pictures
        z_g, z_l               10          difference of their mean from 0 and of their deviation from 1
    W+                     0.01        Mahalanobis distance of v from the mean of 10,000 samples, per dimension, where
                                       v = leaky ReLU of slope 5 of w/√2, which is nearly normally distributed
        noise                  1000        correlation with its neighbours at each scale (StyleGAN2, Appendix D)

z_l is free at the photograph, and less and less so up to REACH_PX from it. Further out it stays as drawn, although the
photograph's border depends on it too. Where z_l is free but not seen, it takes whatever values help the border, and the
world around the photograph shows blots and torn strips.

The noise is normalised to mean 0 and variance 1 after each step. Adam's rate rises over the first twentieth of the
steps and falls to 0, along a cosine, over the last quarter.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model import geometry
from model.checks import check_seed, is_integer
from model.errors import DivergenceError, InputError
from model.networks.generator import Generator
from model.networks.layers import GAIN, LEAK
from model.networks.lpips import Lpips
from model.world.definition import Box, Definition, check_definition, check_integer
from model.world.fields import z_g_vector
from model.world.footprint import Footprint, Windows, footprint
from model.world.latents import Latents
from model.world.overlay import MOST_SIDE_PX, Overlay, box_windows, check_turn, reduced

W_SAMPLES = 10_000
LEAST_SIDE_PX = 32
"""LPIPS needs at least this many pixels per side."""

REACH_PX = 96
"""The distance from the photograph at which z_l stays as drawn. It was chosen by the look of outpainted photographs."""

COARSEST_NOISE = 8
"""The noise is compared with its neighbours at scales down to this many positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InversionConfig:
    """The configuration of an inversion.

    Attributes:
        steps: The number of Adam's steps.
        learning_rate: Adam's peak learning rate.
        pixel_weight: The weight of the mean squared difference of pixels in [-1, 1].
        lpips_weight: The weight of LPIPS.
        z_g_weight: The weight of the prior on z_g.
        z_l_weight: The weight of the prior on z_l.
        w_weight: The weight of the prior on W+.
        noise_weight: The weight of the noise's correlation.
        tile_px: The approximate side of the tiles into which larger photographs are split. Tiles are processed one at a
            time, so a step needs the memory of one tile.
        seed: The seed of the world from whose fields the optimisation starts.

    Raises:
        InputError: A number is out of range.
    """

    steps: int = 3000
    learning_rate: float = 0.1
    pixel_weight: float = 10.0
    lpips_weight: float = 10.0
    z_g_weight: float = 10.0
    z_l_weight: float = 10.0
    w_weight: float = 0.01
    noise_weight: float = 1000.0
    tile_px: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_integer(self.steps) or not 1 <= self.steps <= 10**6:
            raise InputError(f"steps is {self.steps!r}; give a whole number from 1 to 1000000")
        check_integer("seed", self.seed)
        check_seed(self.seed)
        if not is_integer(self.tile_px) or not 2 * LEAST_SIDE_PX <= self.tile_px <= 4096:
            raise InputError(f"tile is {self.tile_px!r}; give {2 * LEAST_SIDE_PX} to 4096 pixels")
        for name in ("learning_rate", "pixel_weight", "lpips_weight", "z_g_weight", "z_l_weight"):
            check_weight(name, getattr(self, name))
        for name in ("w_weight", "noise_weight"):
            check_weight(name, getattr(self, name))


def check_weight(name: str, value: object) -> None:
    """Raises InputError for a value that is not a valid weight."""
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{name} is {value!r}; give 0 or more")


def check_sides(width_px: int, height_px: int, scale: int = 1) -> None:
    """Raises InputError for a photograph that is too small or too large, or is not whole pixels at scale 1."""
    least_px = LEAST_SIDE_PX * scale
    if not least_px <= min(width_px, height_px) <= max(width_px, height_px) <= MOST_SIDE_PX:
        bounds = f"{least_px} to {MOST_SIDE_PX}"
        raise InputError(f"a photograph of {width_px}×{height_px} px: its sides must be {bounds}")
    if width_px % scale or height_px % scale:
        raise InputError(
            f"a photograph of {width_px}×{height_px} px: at scale {scale} its sides must be multiples of {scale}"
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A photograph and its place in the world.

    Attributes:
        photograph: uint8 [3,h,w]; both sides are multiples of the scale.
        x_px: The position of its left edge in the world at scale 1.
        y_px: The position of its top edge, likewise.
        cyclic_px: The circumference of a cyclic world at scale 1; None otherwise.
        sha256: The checksum of the photograph's file.
        scale: The scale of the photograph. It is inverted at scale 1, and kept as it is.

    Raises:
        InputError: The photograph is too small or too large.
    """

    photograph: Tensor
    x_px: int
    y_px: int
    cyclic_px: int | None = None
    sha256: str = ""
    scale: int = 1

    def __post_init__(self) -> None:
        check_sides(self.photograph.shape[2], self.photograph.shape[1], self.scale)

    @property
    def box_px(self) -> Box:
        """The box of the photograph in the world at scale 1."""
        _, height, width = self.photograph.shape
        return self.x_px, self.y_px, width // self.scale, height // self.scale


@dataclass(frozen=True, slots=True)
class InversionTile:
    """A part of the photograph and the fields it depends on."""

    place: Footprint
    windows: Windows
    pixels: Tensor
    features: list[Tensor]
    share: float


class Inversion:
    """An inversion in progress.

    Args:
        generator: The generator in evaluation mode, frozen, on the device to compute on.
        target: The photograph and its place.
        config: The configuration.

    Raises:
        InputError: A circle of the target's width is not possible, or the photograph does not fit it.
    """

    def __init__(self, generator: Generator, target: Target, config: InversionConfig):
        self.generator, self.target, self.config = generator, target, config
        self.device = str(next(generator.parameters()).device)
        self.pixels = reduced(target.photograph, target.scale)
        self.place = footprint(generator.config, *box_windows(target.box_px))
        check_turn(self.place, target.box_px, generator.config, target.cyclic_px)
        definition = Definition(config.seed, target.cyclic_px)
        check_definition(definition, generator.config)
        self.lpips = Lpips().to(self.device)
        self.prior = WPrior(generator, self.device)
        world = Latents(definition, generator.config, self.device)
        self.coordinates = world.coordinates(*self.place.latents)
        self.truncation = world.truncation_of(self.place.latents[0])
        untruncated = dataclasses.replace(definition, local_truncation=1)
        self.drawn = Latents(untruncated, generator.config, self.device).z_l(*self.place.latents)
        self.freedom = freedom(self.place.latents, target.box_px, generator.config.cell_px).to(self.device)
        z_n = world.z_n([(layer, *windows) for layer, windows in enumerate(self.place.noise)])
        self.variables: dict[str, Tensor] = {
            "z_g": z_g_vector(config.seed, generator.config.z_g_dim, self.device),
            "z_l": self.drawn.clone(),
            "v": self.prior.mean.repeat(2 * generator.config.pairs + 1, 1),
        } | {f"z_n.{layer}": normalised(noise) for layer, noise in enumerate(z_n)}
        for variable in self.variables.values():
            variable.requires_grad_(True)
        self.optimiser = torch.optim.Adam(self.variables.values(), lr=config.learning_rate, betas=(0.9, 0.999))
        self.tiles = list(self.cut())
        self.step = 0

    def cut(self) -> Iterator[InversionTile]:
        """Yields the tiles of the photograph, with LPIPS's features of each."""
        rows, columns = box_windows(self.target.box_px)
        for row in pieces(rows, self.config.tile_px):
            for column in pieces(columns, self.config.tile_px):
                part = self.pixels[:, geometry.part(row, rows), geometry.part(column, columns)]
                pixels = part[None].to(self.device) / 127.5 - 1
                with torch.no_grad():
                    features = self.lpips.features(pixels)
                share = part[0].numel() / self.pixels[0].numel()
                yield InversionTile(
                    footprint(self.generator.config, row, column), (row, column), pixels, features, share
                )

    def advance(self) -> dict[str, float]:
        """Takes one step; returns its weighted losses.

        Raises:
            DivergenceError: A loss is no longer finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * rate(self.step, self.config.steps)
        self.optimiser.zero_grad(set_to_none=True)
        losses = {"pixels": 0.0, "lpips": 0.0}
        for tile in self.tiles:
            picture = self.render(tile)
            pixel = (picture - tile.pixels).square().mean() * (self.config.pixel_weight * tile.share)
            features = self.lpips.features(picture)
            lpips = self.lpips.between(features, tile.features)[0] * (self.config.lpips_weight * tile.share)
            (pixel + lpips).backward()  # this frees the tile's graph
            losses["pixels"] += pixel.item()
            losses["lpips"] += lpips.item()
        priors = self.priors()
        torch.stack(list(priors.values())).sum().backward()
        losses |= {name: value.item() for name, value in priors.items()}
        if not math.isfinite(sum(losses.values())):
            raise DivergenceError(f"inversion diverged at step {self.step}; try a lower --learning-rate")
        self.optimiser.step()
        with torch.no_grad():
            for noise in self.z_n:
                noise.copy_(normalised(noise))
        self.step += 1
        return losses

    def priors(self) -> dict[str, Tensor]:
        """Returns the weighted priors, which measure how far the fields are from looking random."""
        config, values = self.config, self.variables
        return {
            "z_g": config.z_g_weight * moments(values["z_g"]),
            "z_l": config.z_l_weight * moments(self.untruncated_z_l[..., self.freedom[0, 0] > 0]),
            "w": config.w_weight * self.prior.distance(values["v"]),
            "noise": config.noise_weight * torch.stack([correlation(noise) for noise in self.z_n]).sum(),
        }

    @property
    def untruncated_z_l(self) -> Tensor:
        """Returns the local latents before their local truncation."""
        return torch.lerp(self.drawn, self.variables["z_l"], self.freedom)

    @property
    def z_l(self) -> Tensor:
        """Returns the local latents."""
        return self.truncation * self.untruncated_z_l

    @property
    def z_n(self) -> list[Tensor]:
        """Returns the noise of each layer."""
        return [self.variables[f"z_n.{layer}"] for layer in range(len(self.place.noise))]

    def render(self, tile: InversionTile) -> Tensor:
        """Renders a tile as a picture [1,3,h,w]."""
        z_l, coordinates = (
            cut_out(field, tile.place.latents, self.place.latents) for field in (self.z_l, self.coordinates)
        )
        windows = zip(self.z_n, tile.place.noise, self.place.noise, strict=True)
        z_n = [cut_out(noise, part, whole) for noise, part, whole in windows]
        z_s = self.generator.structure(z_l, coordinates, self.variables["z_g"])
        picture = self.generator.texture(z_s, from_gaussian(self.variables["v"]).split(1), z_n)
        return cut_out(picture, tile.windows, tile.place.pixels)

    @torch.no_grad()
    def picture(self) -> Tensor:
        """Renders the whole picture, [3,h,w], about -1 to 1."""
        rows, columns = box_windows(self.target.box_px)
        whole = torch.empty(3, geometry.length(rows), geometry.length(columns), device=self.device)
        for tile in self.tiles:
            row, column = tile.windows
            whole[:, geometry.part(row, rows), geometry.part(column, columns)] = self.render(tile)[0]
        return whole

    @torch.no_grad()
    def quality(self) -> dict[str, float]:
        """Returns the current PSNR in dB, and the mean LPIPS over the tiles."""
        pictures = [self.render(tile).clamp(-1, 1) for tile in self.tiles]
        pairs = list(zip(pictures, self.tiles, strict=True))
        error = sum((picture - tile.pixels).square().mean().item() * tile.share for picture, tile in pairs)
        lpips = sum(
            self.lpips.between(self.lpips.features(picture), tile.features).item() * tile.share
            for picture, tile in pairs
        )
        return {"psnr_db": 10 * math.log10(4 / max(error, 1e-10)), "lpips": lpips}

    def overlay(self, checkpoint_sha256: str, provenance: Mapping[str, Any]) -> Overlay:
        """Returns the current fields as an overlay."""
        place = (self.target.box_px, self.target.cyclic_px, checkpoint_sha256)
        z_g, *z_n = (field.detach().clone() for field in (self.variables["z_g"], *self.z_n))
        w, z_l = from_gaussian(self.variables["v"]).detach(), self.z_l.detach()
        return Overlay(*place, z_g, w, z_l, tuple(z_n), self.target.photograph, provenance)

    def state(self) -> dict[str, Tensor]:
        """Returns everything that the remaining steps depend on, as tensors."""
        state = {f"variables.{name}": value.detach() for name, value in self.variables.items()}
        for name, variable in self.variables.items():
            for key, value in self.optimiser.state[variable].items():
                state[f"adam.{key}.{name}"] = value
        return state | {"step": torch.tensor(self.step)}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Resumes from a state.

        Raises:
            InputError: The state belongs to another inversion.
        """
        try:
            for name, variable in self.variables.items():
                adam = {key: state[f"adam.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                variable.copy_(state[f"variables.{name}"])
                self.optimiser.state[variable] = {
                    "step": adam["step"],
                    **{key: adam[key].to(self.device).reshape(variable.shape) for key in ("exp_avg", "exp_avg_sq")},
                }
            step = int(state["step"])
            if step < 0:
                raise ValueError(f"step is {step}")
            self.step = step
        except (KeyError, RuntimeError, ValueError, OverflowError) as error:
            raise InputError(f"the state does not fit: {error}") from None


class WPrior:
    """The prior on W+: the mean and covariance of w in a space where it is nearly normally distributed."""

    def __init__(self, generator: Generator, device: str):
        random = torch.Generator().manual_seed(0)
        z_g = torch.randn(W_SAMPLES, generator.config.z_g_dim, generator=random).to(device)
        with torch.no_grad():
            v = to_gaussian(generator.mapping(z_g)).double()
        mean = v.mean(dim=0)
        centred = v - mean
        covariance = centred.T @ centred / (W_SAMPLES - 1)
        # Directions in which w hardly varies would otherwise dominate.
        ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(mean), device=device)
        self.mean = mean.float()
        self.whitening = torch.linalg.inv(torch.linalg.cholesky(covariance + ridge)).float()

    def distance(self, v: Tensor) -> Tensor:
        """Returns the squared Mahalanobis distance per dimension, averaged over layers: about 1 for random styles."""
        return ((v - self.mean) @ self.whitening.T).square().mean()


def to_gaussian(w: Tensor) -> Tensor:
    """Undoes the last activation of the mapping network, which makes w nearly normal."""
    return F.leaky_relu(w / GAIN, 1 / LEAK)


def from_gaussian(v: Tensor) -> Tensor:
    """Inverts `to_gaussian`."""
    return F.leaky_relu(v, LEAK) * GAIN


def freedom(latents: Windows, box_px: Box, cell_px: int) -> Tensor:
    """Returns how far local latents may change [1,1,H,W]: 1 at the photograph, falling to 0 at REACH_PX from it."""
    distances = []
    for (low, high), (first_px, last_px) in zip(latents, box_windows(box_px), strict=True):
        middle_px = (torch.arange(low, high + 1) + 0.5) * cell_px
        distances.append(torch.maximum(first_px - middle_px, middle_px - last_px - 1).clamp(min=0))
    distance_px = torch.maximum(distances[0][:, None], distances[1][None, :])
    return (1 - distance_px / REACH_PX).clamp(min=0)[None, None]


def moments(x: Tensor) -> Tensor:
    """Returns the distance of the mean from 0 plus that of the root mean square from 1."""
    return x.mean().abs() + (x.square().mean().sqrt() - 1).abs()


def correlation(noise: Tensor) -> Tensor:
    """Returns the squared correlation of noise [1,1,h,w] with its neighbours, summed over scales."""
    terms = []
    while True:
        terms += [(noise * noise.roll(1, dims=dim)).mean().square() for dim in (2, 3)]
        if min(noise.shape[2:]) <= COARSEST_NOISE:
            return torch.stack(terms).sum()
        noise = F.avg_pool2d(noise, 2)


def normalised(noise: Tensor) -> Tensor:
    """Returns noise scaled to mean 0 and variance 1."""
    centred = noise - noise.mean()
    return centred * centred.square().mean().rsqrt()


def rate(step: int, steps: int) -> float:
    """Returns the learning rate at a step as a share of its peak, 0 to 1."""
    t = (step + 1) / (steps + 1)
    return min(1.0, t / 0.05) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.25)))


def pieces(window: geometry.Window, side: int) -> Sequence[geometry.Window]:
    """Splits a window evenly into pieces of at most `side`."""
    low, length = window[0], geometry.length(window)
    count = -(-length // side)
    cuts = [low + length * k // count for k in range(count + 1)]
    return [(start, end - 1) for start, end in itertools.pairwise(cuts)]


def cut_out(field: Tensor, part: Windows, whole: Windows) -> Tensor:
    """Cuts the window `part` out of a field [1,C,H,W] of the window `whole`."""
    return field[:, :, geometry.part(part[0], whole[0]), geometry.part(part[1], whole[1])]
