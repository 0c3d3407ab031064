"""The training step of the detail stage, and the state from which a run resumes exactly.

Half of a batch are photographs, reduced by four: there the original is known, so pixels and features should agree with
it. The other half are windows of the base generator's own worlds, of which no original exists: the result, reduced
again, should agree with them. In both, a discriminator compares the results with photographs at full resolution.

Randomness is a function of (seed, step, process), as in `trainer`.
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import DetailConfig, DetailTrainingConfig, GeneratorConfig
from model.errors import DivergenceError, InputError, one_line
from model.networks.coordinates import draw_windows
from model.networks.detail import FACTOR, DetailStage, draw_noise, output_window
from model.networks.generator import Generator
from model.networks.generator import draw_noise as draw_base_noise
from model.networks.projected import ProjectedDiscriminator
from model.training.losses import hinge_discriminator, hinge_generator
from model.training.optimizer_state import below, check_names, load_second_moments, state_of
from model.training.processes import ALONE, Processes
from model.training.reduction import reduce
from model.training.trainer import placed, step_generator, update_average

MAX_GRADIENT_NORM = 50.0


class DetailTrainer:
    """The detail stage, its moving average, the discriminator and the optimisers.

    Args:
        generator_config: The configuration of the base generator. It is not trained; `load_state` gives its weights.
        detail_config: The network's configuration.
        config: The recipe's configuration.
        processes: The processes that train together; by default a single one on the CPU.

    Raises:
        InputError: The batch cannot be split evenly.
    """

    def __init__(
        self,
        generator_config: GeneratorConfig,
        detail_config: DetailConfig,
        config: DetailTrainingConfig,
        processes: Processes = ALONE,
    ):
        self.generator_config, self.detail_config, self.config = generator_config, detail_config, config
        self.processes = processes
        if config.batch % processes.count:
            raise InputError(
                f"a batch of {config.batch} cannot be split evenly over {processes.count} processes; give a multiple"
            )
        self.device = str(processes.device)
        torch.manual_seed(config.seed)
        self.base = placed(Generator(generator_config), self.device).eval().requires_grad_(False)
        self.detail = placed(DetailStage(detail_config), self.device)
        self.ema = copy.deepcopy(self.detail).eval().requires_grad_(False)
        self.discriminator = placed(ProjectedDiscriminator(self.seen_px, by_position=False), self.device)
        self.discriminator.vertical.requires_grad_(False)
        betas = (0.0, config.beta2)
        self.g_optimizer = torch.optim.Adam(self.detail.parameters(), config.detail_lr, betas)
        learns = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.d_optimizer = torch.optim.Adam(learns, config.discriminator_lr, betas)
        self.steps = 0
        self.images_before = 0
        """The images that an earlier run had seen when this one took over its networks."""

    @property
    def seen(self) -> slice:
        """The pixels of a photograph that a window of its base determines, along either side."""
        low, high = output_window(self.detail_config, (0, self.config.patch_px // FACTOR - 1))
        return slice(low, high + 1)

    @property
    def seen_px(self) -> int:
        """The side of the pictures that are compared."""
        return self.seen.stop - self.seen.start

    @property
    def images(self) -> int:
        """The photographs seen so far by all processes, including earlier runs."""
        return self.images_before + self.steps * self.config.batch

    @property
    def share(self) -> int:
        """The number of photographs of each batch that this process takes."""
        return self.config.batch // self.processes.count

    def step(self, photographs: Tensor) -> dict[str, float]:
        """Takes one step of the discriminator and one of the detail stage.

        Args:
            photographs: This process's patches [N,3,patch,patch] in [-1, 1] at full resolution.

        Returns:
            The losses by name, averaged over all processes.

        Raises:
            DivergenceError: A loss is not finite. The average does not include this step.
        """
        random = step_generator(self.config.seed, self.steps, self.processes.rank)
        photographs = photographs.to(self.device)
        bases = torch.cat([reduce(photographs, random), self.draw_worlds(len(photographs), random)])
        noise = [x.to(self.device) for x in draw_noise(self.detail_config, bases.shape, random)]
        real = photographs[:, :, self.seen, self.seen].contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            real_features = self.discriminator.features(real)
            fakes = self.detail(bases, noise).float()
            losses = {"discriminator": self.discriminator_step(real, real_features, fakes.detach())}
            losses |= self.generator_step(bases, real, real_features, fakes)
        means = self.processes.mean(torch.stack(list(losses.values()))).tolist()
        values = dict(zip(losses, means, strict=True))
        if not all(np.isfinite(value) for value in values.values()):
            raise DivergenceError(
                f"training diverged at image {self.images}: {values}; resume from the last checkpoint"
            )
        self.steps += 1
        update_average(self.ema, self.detail, self.images, self.config.batch, self.config.ema_images)
        return values

    def draw_worlds(self, n: int, random: torch.Generator) -> Tensor:
        """Renders windows [n,3,h,h] of random worlds, cropped to the size of a reduced patch."""
        config, side = self.base.config, self.config.patch_px // FACTOR
        coordinates, _ = draw_windows(config, n, random, self.config.beyond_share)
        z_l = torch.randn(n, config.z_l_dim, *coordinates.shape[2:], generator=random)
        z_g = torch.randn(n, config.z_g_dim, generator=random)
        z_n = [noise.to(self.device) for noise in draw_base_noise(config, n, random)]
        top, left = torch.randint(0, config.patch_px - side + 1, (2,), generator=random).tolist()
        with torch.no_grad():
            pictures, _ = self.base(z_l.to(self.device), coordinates.to(self.device), z_g.to(self.device), z_n)
        return pictures[:, :, top : top + side, left : left + side]

    def discriminator_step(self, real: Tensor, real_features: list[Tensor], fakes: Tensor) -> Tensor:
        """Takes one step of the discriminator; returns its loss."""
        position = real.new_zeros(())
        verdicts = self.discriminator.judge(real, real_features, position)[0]
        loss = hinge_discriminator(floats(verdicts), floats(self.discriminator(fakes, position)[0]))
        self.d_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(self.d_parameters)
        self.d_optimizer.step()
        return loss.detach()

    def generator_step(
        self, bases: Tensor, real: Tensor, real_features: list[Tensor], fakes: Tensor
    ) -> dict[str, Tensor]:
        """Takes one step of the detail stage; returns its losses."""
        config, n = self.config, len(real)
        for parameter in self.d_parameters:
            parameter.requires_grad_(False)
        features = self.discriminator.features(fakes)
        verdicts = self.discriminator.judge(fakes, features, real.new_zeros(()))[0]
        weights = {
            "generator": config.adversarial_weight if self.images >= config.adversarial_after else 0.0,
            "pixels": config.pixel_weight,
            "features": config.feature_weight,
            "consistency": config.consistency_weight,
        }
        losses = {
            "generator": hinge_generator(floats(verdicts)),
            "pixels": F.l1_loss(fakes[:n], real),
            "features": relative_distance([x[:n].float() for x in features], [x.float() for x in real_features]),
            "consistency": self.consistency(fakes[n:], bases[n:]),
        }
        loss = torch.stack([weights[name] * x for name, x in losses.items()]).sum()
        self.g_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for parameter in self.d_parameters:
            parameter.requires_grad_(True)
        self.processes.average_gradients(self.detail.parameters())
        nn.utils.clip_grad_norm_(self.detail.parameters(), MAX_GRADIENT_NORM)
        self.g_optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    @property
    def d_parameters(self) -> list[nn.Parameter]:
        """Returns the discriminator's parameters that are trained."""
        return list(self.d_optimizer.param_groups[0]["params"])

    def consistency(self, pictures: Tensor, bases: Tensor) -> Tensor:
        """Returns the mean distance between pictures, reduced by averaging, and the base that they were drawn from."""
        first, last = -(-self.seen.start // FACTOR), self.seen.stop // FACTOR
        whole = slice(first * FACTOR - self.seen.start, last * FACTOR - self.seen.start)
        return F.l1_loss(F.avg_pool2d(pictures[:, :, whole, whole], FACTOR), bases[:, :, first:last, first:last])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by the names that their tensors have in a state."""
        return {"base": self.base, "detail": self.detail, "ema": self.ema, "discriminator": self.discriminator}

    @property
    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """The optimisers, by the names that their tensors have in a state."""
        return {"g_optimizer": self.g_optimizer, "d_optimizer": self.d_optimizer}

    def state(self) -> dict[str, Tensor]:
        """Returns all tensors from which training resumes."""
        return state_of(self.networks, self.optimizers)

    def load_state(self, tensors: Mapping[str, Tensor], steps: int, images_before: int) -> None:
        """Resumes from the `state` of a trainer of the same configuration.

        Raises:
            InputError: The tensors are not those of such a trainer.
        """
        check_names(tensors, (*self.networks, *self.optimizers))
        try:
            for name, network in self.networks.items():
                network.load_state_dict(below(name, tensors))
            for name, optimizer in self.optimizers.items():
                load_second_moments(optimizer, below(name, tensors))
        except (RuntimeError, KeyError) as error:
            raise InputError(f"the training state does not fit this configuration: {one_line(error)}") from None
        self.steps, self.images_before = steps, images_before


def relative_distance(features: list[Tensor], target: list[Tensor]) -> Tensor:
    """Returns the mean distance of features, each scale in units of its target's mean magnitude."""
    pairs = zip(features, target, strict=True)
    return torch.stack([F.l1_loss(x, y) / y.abs().mean() for x, y in pairs]).mean()


def floats(verdicts: list[Tensor]) -> list[Tensor]:
    """Returns verdicts in float32."""
    return [x.float() for x in verdicts]
