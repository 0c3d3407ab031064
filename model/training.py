"""The training step (paper, Sections 3.4 and C), and all that a run must remember to go on as if never interrupted.

What is random in a step is a function of (seed, step), so no random state is ever stored. One forward pass of the
generator serves the discriminator's step and its own.
"""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from model.augment import augment
from model.config import GeneratorConfig, TrainingConfig
from model.coordinates import draw_windows, vertical_label
from model.discriminator import Discriminator
from model.errors import DivergenceError, InputError, one_line
from model.generator import Generator, draw_noise
from model.losses import ADVERSARIAL, diversity, r1_penalty, vertical_task
from model.projected import ProjectedDiscriminator, enlarge_at_random

MAX_GRADIENT_NORM = 50.0
TWIN_SHARE = 4
"""A quarter of the batch is enough to estimate the diversity loss."""


@dataclasses.dataclass(frozen=True, slots=True)
class Windows:
    """A batch of random windows of random worlds: what the generator is given, and their vertical positions."""

    z_l: Tensor
    coordinates: Tensor
    z_g: Tensor
    z_n: list[Tensor]
    t: Tensor


class Trainer:
    """Generator, its moving average, discriminator and optimisers.

    Args:
        generator_config: the network.
        config: the recipe.
        device: where to train.
    """

    def __init__(self, generator_config: GeneratorConfig, config: TrainingConfig, device: str = "cpu"):
        self.generator_config, self.config, self.device = generator_config, config, device
        torch.manual_seed(config.seed)
        self.generator = placed(Generator(generator_config), device)
        self.ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.discriminator = placed(build_discriminator(generator_config, config), device)
        betas = (0.0, config.beta2)
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), config.generator_lr, betas)
        self.judges = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.d_optimizer = torch.optim.Adam(self.judges, config.discriminator_lr, betas)
        self.steps = 0
        self.images_before = 0
        """Images that an earlier run had seen when this one took over its networks."""

    @property
    def images(self) -> int:
        """Photographs seen so far, with those of earlier runs."""
        return self.images_before + self.steps * self.config.batch

    def step(self, photographs: Tensor, t: Tensor) -> dict[str, float]:
        """One step of the discriminator and one of the generator.

        Args:
            photographs: patches [N,3,patch,patch] in [-1, 1].
            t: their vertical positions [N] in [-1, 1].

        Returns:
            The losses by name.

        Raises:
            DivergenceError: a loss is not finite; nothing of the step was kept in the average.
        """
        random = step_generator(self.config.seed, self.steps)
        windows = self.draw(len(photographs), random)
        fakes, z_s = self.generator(windows.z_l, windows.coordinates, windows.z_g, windows.z_n)
        losses = self.step_discriminator(photographs.to(self.device), t, fakes.detach(), windows.t, random)
        losses |= self.step_generator(fakes, z_s, windows, random)
        values = {name: loss.item() for name, loss in losses.items()}
        if not all(np.isfinite(value) for value in values.values()):
            raise DivergenceError(f"training diverged at image {self.images}: {values}; go on from the last checkpoint")
        self.steps += 1
        self.average()
        return values

    def draw(self, batch: int, random: torch.Generator) -> Windows:
        """Random windows of random worlds."""
        config = self.generator_config
        beyond_share = self.config.beyond_share if self.images >= self.config.beyond_after else 0.0
        coordinates, t = draw_windows(config, batch, random, beyond_share)
        cells = config.latent_cells
        z_l = torch.randn(batch, config.z_l_dim, cells, cells, generator=random)
        z_g = torch.randn(batch, config.z_g_dim, generator=random)
        z_n = [noise.to(self.device) for noise in draw_noise(config, batch, random)]
        z_l = z_l.to(self.device, memory_format=torch.channels_last)
        return Windows(z_l, coordinates.to(self.device), z_g.to(self.device), z_n, t)

    def judge(self, pictures: Tensor, t: Tensor, random: torch.Generator) -> tuple[list[Tensor], Tensor, Tensor]:
        """The discriminator's verdicts on augmented pictures, its prediction of their positions, and the labels."""
        pictures, t = augment(pictures, t, self.generator_config, self.config, random)
        if self.config.recipe == "projected":
            pictures = enlarge_at_random(pictures, random)
        verdicts, predicted = self.discriminator(pictures.contiguous(memory_format=torch.channels_last))
        return verdicts, predicted, vertical_label(self.generator_config, t).to(self.device)

    def step_discriminator(
        self, real: Tensor, real_t: Tensor, fake: Tensor, fake_t: Tensor, random: torch.Generator
    ) -> dict[str, Tensor]:
        """Improves the discriminator; returns its losses."""
        real_verdicts, real_predicted, real_label = self.judge(real, real_t, random)
        fake_verdicts, fake_predicted, fake_label = self.judge(fake, fake_t, random)
        losses = {
            "discriminator": ADVERSARIAL[self.config.recipe][0](real_verdicts, fake_verdicts),
            "vertical_real": vertical_task(real_predicted, real_label),
            "vertical_fake": vertical_task(fake_predicted, fake_label),
        }
        weight = self.config.vertical_weight
        loss = losses["discriminator"] + weight * (losses["vertical_real"] + losses["vertical_fake"])
        if self.config.r1_weight > 0 and self.steps % self.config.r1_every == 0:
            pictures = real.detach().requires_grad_()
            losses["r1"] = r1_penalty(self.discriminator(pictures)[0], pictures)
            loss = loss + self.config.r1_weight / 2 * self.config.r1_every * losses["r1"]
        self.d_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.d_optimizer.step()
        return losses

    def step_generator(
        self, fakes: Tensor, z_s: Tensor, windows: Windows, random: torch.Generator
    ) -> dict[str, Tensor]:
        """Improves the generator; returns its losses."""
        for parameter in self.judges:
            parameter.requires_grad_(False)
        verdicts, predicted, label = self.judge(fakes, windows.t, random)
        twins = max(1, len(fakes) // TWIN_SHARE)
        z_l = windows.z_l[:twins]
        twin_z_l = torch.randn(z_l.shape, generator=random).to(z_l)
        twin_z_s = self.generator.structure(twin_z_l, windows.coordinates[:twins], windows.z_g[:twins])
        losses = {
            "generator": ADVERSARIAL[self.config.recipe][1](verdicts),
            "diversity": diversity(z_s[:twins], twin_z_s, z_l, twin_z_l),
        }
        loss = losses["generator"] + self.config.diversity_weight * losses["diversity"]
        loss = loss + self.config.vertical_weight * vertical_task(predicted, label)
        self.g_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.generator.parameters(), MAX_GRADIENT_NORM)
        self.g_optimizer.step()
        for parameter in self.judges:
            parameter.requires_grad_(True)
        return losses

    def average(self) -> None:
        """Moves the averaged generator: its half-life is a tenth of the images seen, within the recipe's bounds."""
        low, high = self.config.ema_images
        half_life = min(max(self.images / 10, low), high)
        weight = 1 - 0.5 ** (self.config.batch / half_life)
        with torch.no_grad():
            for average, current in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
                average.lerp_(current, weight)

    def state(self) -> dict[str, Tensor]:
        """All tensors that training goes on from. Adam's first moment is not among them, as its beta is 0."""
        tensors = {f"generator.{name}": x for name, x in self.generator.state_dict().items()}
        tensors |= {f"ema.{name}": x for name, x in self.ema.state_dict().items()}
        tensors |= {f"discriminator.{name}": x for name, x in self.discriminator.state_dict().items()}
        tensors |= second_moments("g_optimizer", self.g_optimizer)
        tensors |= second_moments("d_optimizer", self.d_optimizer)
        return {name: x.detach().contiguous() for name, x in tensors.items()}

    def load_state(self, tensors: Mapping[str, Tensor], steps: int, images_before: int) -> None:
        """Goes on from `state` of a trainer of the same configuration, in whatever precision it was stored.

        Raises:
            InputError: the tensors are not those of such a trainer.
        """
        modules = {"generator": self.generator, "ema": self.ema, "discriminator": self.discriminator}
        optimizers = {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}
        try:
            for name, module in modules.items():
                module.load_state_dict(below(name, tensors))
            for name, optimizer in optimizers.items():
                load_second_moments(optimizer, below(name, tensors))
        except (RuntimeError, KeyError) as error:
            raise InputError(f"the training state does not fit this configuration: {one_line(error)}") from None
        self.steps, self.images_before = steps, images_before


Module = TypeVar("Module", bound=nn.Module)


def placed(module: Module, device: str) -> Module:
    """The module on a device, its convolutions laid out as convolutions there like them best."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_discriminator(generator: GeneratorConfig, config: TrainingConfig) -> nn.Module:
    """The discriminator of a recipe; the paper's is as wide as the generator."""
    if config.recipe == "projected":
        return ProjectedDiscriminator(generator.patch_px)
    return Discriminator(generator.patch_px, max(generator.texture_channels))


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all randomness of one step."""
    state = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


def second_moments(name: str, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Adam's running squares and number of steps, by the parameter's index."""
    tensors = {}
    for index, parameter in enumerate(parameters_of(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if key != "exp_avg":
                tensors[f"{name}.{index}.{key}"] = value
    return tensors


def load_second_moments(optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `second_moments`; an optimiser that has not stepped yet has none."""
    for index, parameter in enumerate(parameters_of(optimizer) if tensors else ()):
        step, square = tensors[f"{index}.step"], tensors[f"{index}.exp_avg_sq"].to(parameter)
        if step.shape or square.shape != parameter.shape:
            raise RuntimeError(f"moments of parameter {index} are {list(square.shape)}, not {list(parameter.shape)}")
        optimizer.state[parameter] = {
            "step": step.float(),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.empty_like(parameter).copy_(square),
        }


def parameters_of(optimizer: torch.optim.Adam) -> Iterable[nn.Parameter]:
    """The parameters of an optimiser with one group."""
    return optimizer.param_groups[0]["params"]


def below(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named below a prefix, by the rest of their names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
