"""The training step (paper, Sections 3.4 and C), and the state from which a run resumes exactly.

Randomness in a step is a function of (seed, step, process, part of the batch), so no random state is stored. One
forward pass of the generator serves both the discriminator's step and its own. If a batch is split into parts, their
pictures are generated twice, so that memory holds the graph of only one part.

Several processes each take a share of the batch and average their gradients, so all hold the same networks.

A patch says nothing about a landscape's composition. So in one of `frame_every` steps a separate discriminator
judges whole frames, as high as the photographs, reduced to the size of a patch.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import GeneratorConfig, TrainingConfig
from model.errors import DivergenceError, InputError, one_line
from model.networks.ablations import build_generator
from model.networks.coordinates import draw_frames, draw_windows, vertical_label
from model.networks.discriminator import Discriminator
from model.networks.generator import draw_noise
from model.networks.projected import ProjectedDiscriminator, enlarge_at_random
from model.training.augment import augment
from model.training.losses import ADVERSARIAL, diversity, path_length_penalty, r1_penalty, vertical_task
from model.training.optimizer_state import below, check_names, load_second_moments, state_of
from model.training.processes import ALONE, Processes

STATE_PARTS = (
    *("generator", "ema", "discriminator", "frame_discriminator"),
    *("g_optimizer", "d_optimizer", "frame_optimizer", "path_mean"),
)
"""The prefixes of the tensors' names in a training state."""

MAX_GRADIENT_NORM = 50.0
TWIN_SHARE = 4
"""A quarter of the batch is enough to estimate the diversity loss."""
PATH_SHARE = 2
"""Half of the batch is enough for path length regularisation (StyleGAN2)."""
FRAME_SHIFT_PX = 4
"""The largest shift of a reduced frame by augmentation, small enough that its border is not lost in a reflection."""
PATH_DECAY = 0.01
"""The weight of a new estimate in the mean path length."""

Losses = dict[str, Tensor]


@dataclasses.dataclass(frozen=True, slots=True)
class Windows:
    """A batch of random windows of random worlds: the generator's input and the vertical positions.

    With style mixing, the layers from `other_from` on, [N,1], take their style from `other_z_g`.
    """

    z_l: Tensor
    coordinates: Tensor
    z_g: Tensor
    z_n: list[Tensor]
    t: Tensor
    other_z_g: Tensor | None = None
    other_from: Tensor | None = None

    def first(self, n: int) -> "Windows":
        """Returns the first n windows."""
        return Windows(
            self.z_l[:n],
            self.coordinates[:n],
            self.z_g[:n],
            [noise[:n] for noise in self.z_n],
            self.t[:n],
            None if self.other_z_g is None else self.other_z_g[:n],
            None if self.other_from is None else self.other_from[:n],
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Critic:
    """A discriminator, its optimiser, and the recipe of the steps in which it judges."""

    discriminator: nn.Module
    optimizer: torch.optim.Adam
    config: TrainingConfig
    sees_frames: bool = False

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Returns the parameters that are trained."""
        return list(self.optimizer.param_groups[0]["params"])


@dataclasses.dataclass(slots=True)
class Part:
    """One pass through the networks: photographs, as many windows, and their source of randomness."""

    critic: Critic
    photographs: Tensor
    t: Tensor
    windows: Windows
    random: torch.Generator
    generated: tuple[Tensor, Tensor] | None = None
    """Pictures and z_S, with their graph, if the discriminator's step leaves them for the generator's."""


class Trainer:
    """The generator, its moving average, the discriminators and the optimisers.

    Args:
        generator_config: The network's configuration.
        config: The recipe's configuration.
        processes: The processes that train together; by default a single one on the CPU.

    Raises:
        InputError: The batch cannot be split evenly.
    """

    def __init__(self, generator_config: GeneratorConfig, config: TrainingConfig, processes: Processes = ALONE):
        self.generator_config, self.config = generator_config, config
        self.processes = processes
        if config.batch % (self.processes.count * config.accumulate):
            shares = f"{self.processes.count} processes of {config.accumulate} parts each"
            raise InputError(f"a batch of {config.batch} cannot be split evenly over {shares}; give a multiple of both")
        self.device = str(self.processes.device)
        torch.manual_seed(config.seed)
        self.generator = placed(build_generator(generator_config), self.device)
        self.ema = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.discriminator = placed(build_discriminator(generator_config, config), self.device)
        betas = (0.0, config.beta2)
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), config.generator_lr, betas)
        if config.vertical_weight == 0:
            self.discriminator.vertical.requires_grad_(False)  # never trained, so the optimiser has no state for it
        self.patch_critic = Critic(self.discriminator, self.optimizer_of(self.discriminator), config)
        self.frame_critic = self.build_frame_critic() if config.frame_every else None
        self.path_mean = torch.zeros(())
        self.steps = 0
        self.images_before = 0
        """The images that an earlier run had seen when this one took over its networks."""

    def optimizer_of(self, discriminator: nn.Module) -> torch.optim.Adam:
        """Returns Adam for the parameters that a discriminator learns."""
        learns = [p for p in discriminator.parameters() if p.requires_grad]
        return torch.optim.Adam(learns, self.config.discriminator_lr, (0.0, self.config.beta2))

    def build_frame_critic(self) -> Critic:
        """Builds the discriminator of whole frames, initialised with the patches' and sharing its frozen features."""
        features = getattr(self.discriminator, "features", None)
        discriminator = copy.deepcopy(self.discriminator, {id(features): features} if features is not None else {})
        shift_px = min(FRAME_SHIFT_PX, self.config.augment_shift_px)
        # z_S is larger here, and the diversity of worlds is left to the patches.
        config = dataclasses.replace(self.config, augment_shift_px=shift_px, diversity_weight=0.0, path_weight=0.0)
        return Critic(discriminator, self.optimizer_of(discriminator), config, sees_frames=True)

    @property
    def images(self) -> int:
        """The photographs seen so far by all processes, including earlier runs."""
        return self.images_before + self.steps * self.config.batch

    @property
    def critic(self) -> Critic:
        """The discriminator that judges in the next step."""
        if self.frame_critic is not None and (self.steps + 1) % self.config.frame_every == 0:
            return self.frame_critic
        return self.patch_critic

    def frame_steps(self, steps: int) -> int:
        """Returns how many of the first `steps` steps judge whole frames."""
        return steps // self.config.frame_every if self.config.frame_every else 0

    @property
    def patches_within_frame(self) -> int:
        """Returns how many patches this process sees before windows beyond the frame begin."""
        steps = max(0, -(-(self.config.beyond_after - self.images_before) // self.config.batch))
        return (steps - self.frame_steps(steps)) * self.share

    @property
    def share(self) -> int:
        """The number of photographs of each batch that this process takes."""
        return self.config.batch // self.processes.count

    def step(self, photographs: Tensor, t: Tensor) -> dict[str, float]:
        """Takes one step of a discriminator and one of the generator.

        Args:
            photographs: This process's patches [N,3,patch,patch] in [-1, 1]; whole frames [N,3,full,full] if
                `critic.sees_frames`.
            t: Their vertical positions [N] in [-1, 1]; 0 for frames.

        Returns:
            The losses by name, averaged over all processes; names of losses on frames begin with ``frame_``.

        Raises:
            DivergenceError: A loss is not finite. The average does not include this step.
        """
        critic = self.critic
        parts = self.parts(photographs, t)
        losses = [self.discriminator_backward(part, len(parts)) for part in parts]
        self.processes.average_gradients(critic.parameters)
        critic.optimizer.step()
        for parameter in critic.parameters:
            parameter.requires_grad_(False)
        for part, entry in zip(parts, losses, strict=True):
            entry |= self.generator_backward(part, len(parts))
        self.processes.average_gradients(self.generator.parameters())
        nn.utils.clip_grad_norm_(self.generator.parameters(), MAX_GRADIENT_NORM)
        self.g_optimizer.step()
        for parameter in critic.parameters:
            parameter.requires_grad_(True)
        values = self.mean_losses(losses)
        if not all(np.isfinite(value) for value in values.values()):
            raise DivergenceError(
                f"training diverged at image {self.images}: {values}; resume from the last checkpoint"
            )
        if "path_length" in values:
            self.path_mean.lerp_(torch.tensor(values["path_length"]), PATH_DECAY)
        self.steps += 1
        self.average()
        return {f"frame_{name}": value for name, value in values.items()} if critic.sees_frames else values

    def parts(self, photographs: Tensor, t: Tensor) -> list[Part]:
        """Splits this process's share of a batch, draws as many windows, and clears both optimisers' gradients."""
        critic = self.critic
        critic.optimizer.zero_grad(set_to_none=True)
        self.g_optimizer.zero_grad(set_to_none=True)
        n = len(photographs) // self.config.accumulate
        parts = []
        for number, (some_photographs, some_t) in enumerate(zip(photographs.split(n), t.split(n), strict=True)):
            random = step_generator(self.config.seed, self.steps, self.processes.rank, number)
            windows = self.draw(n, random, critic.sees_frames)
            parts.append(Part(critic, some_photographs, some_t, windows, random))
        return parts

    def draw(self, batch: int, random: torch.Generator, frames: bool = False) -> Windows:
        """Draws random windows of random worlds, as large as patches or as whole frames."""
        config = self.generator_config
        if frames:
            coordinates, t = draw_frames(config, batch, random)
        else:
            beyond_share = self.config.beyond_share if self.images >= self.config.beyond_after else 0.0
            coordinates, t = draw_windows(config, batch, random, beyond_share)
        z_l = torch.randn(batch, config.z_l_dim, *coordinates.shape[2:], generator=random)
        z_g = torch.randn(batch, config.z_g_dim, generator=random)
        cells = config.frame_cells if frames else config.visible_cells
        z_n = [noise.to(self.device) for noise in draw_noise(config, batch, random, cells)]
        z_l = z_l.to(self.device, memory_format=torch.channels_last)
        windows = Windows(z_l, coordinates.to(self.device), z_g.to(self.device), z_n, t)
        return self.mix(windows, random) if self.config.style_mixing > 0 else windows

    def mix(self, windows: Windows, random: torch.Generator) -> Windows:
        """Gives a share of the windows another style from a random layer on (StyleGAN, Section 3.1)."""
        batch, layers = len(windows.z_g), 2 * self.generator_config.pairs + 1
        other_z_g = torch.randn(windows.z_g.shape, generator=random)
        other_from = torch.randint(1, layers, (batch, 1), generator=random)
        mixed = torch.rand(batch, 1, generator=random) < self.config.style_mixing
        other_from = torch.where(mixed, other_from, layers)
        return dataclasses.replace(windows, other_z_g=other_z_g.to(self.device), other_from=other_from.to(self.device))

    def styles(self, windows: Windows) -> list[Tensor]:
        """Returns the w [N,w_dim] of each layer of G_T, and of the last to-RGB."""
        layers = 2 * self.generator_config.pairs + 1
        w = self.generator.mapping(windows.z_g)
        if windows.other_z_g is None or windows.other_from is None:
            return [w] * layers
        other = self.generator.mapping(windows.other_z_g)
        return [torch.where(windows.other_from > layer, w, other) for layer in range(layers)]

    def generate(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Returns pictures of the windows and their z_S, float32."""
        z_s = self.generator.structure(windows.z_l, windows.coordinates, windows.z_g)
        return self.generator.texture(z_s, self.styles(windows), windows.z_n).float(), z_s.float()

    def judge(
        self, critic: Critic, pictures: Tensor, t: Tensor, random: torch.Generator
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Returns a discriminator's verdicts on augmented pictures, the predicted positions, and the labels."""
        if critic.sees_frames:
            pictures = reduce_frames(pictures, self.generator_config)
        pictures, t = augment(pictures, t, self.generator_config, critic.config, random)
        label, told = vertical_label(self.generator_config, t).to(self.device), {}
        if critic.config.recipe == "projected":
            pictures, told = enlarge_at_random(pictures, random), {"position": label}
        verdicts, predicted = critic.discriminator(pictures.contiguous(memory_format=torch.channels_last), **told)
        return [x.float() for x in verdicts], predicted.float(), label

    def discriminator_backward(self, part: Part, parts: int) -> Losses:
        """Adds one of `parts` parts to the discriminator's gradients; returns its losses."""
        critic, config, real = part.critic, part.critic.config, part.photographs.to(self.device)
        with self.reduced_precision():
            with torch.set_grad_enabled(parts == 1):
                generated = self.generate(part.windows)
            real_verdicts, real_predicted, real_label = self.judge(critic, real, part.t, part.random)
            fakes = generated[0].detach()
            fake_verdicts, fake_predicted, fake_label = self.judge(critic, fakes, part.windows.t, part.random)
        losses = {"discriminator": ADVERSARIAL[config.recipe][0](real_verdicts, fake_verdicts)}
        loss = losses["discriminator"]
        if config.vertical_weight > 0:
            losses["vertical_real"] = vertical_task(real_predicted, real_label)
            losses["vertical_fake"] = vertical_task(fake_predicted, fake_label)
            loss = loss + config.vertical_weight * (losses["vertical_real"] + losses["vertical_fake"])
        if config.r1_weight > 0 and self.steps % config.r1_every == 0:
            pictures = real.detach().requires_grad_()
            losses["r1"] = r1_penalty(critic.discriminator(pictures)[0], pictures)
            loss = loss + config.r1_weight / 2 * config.r1_every * losses["r1"]
        (loss / parts).backward()
        part.generated = generated if parts == 1 else None
        return {name: loss.detach() for name, loss in losses.items()}

    def generator_backward(self, part: Part, parts: int) -> Losses:
        """Adds one of `parts` parts to the generator's gradients; returns its losses."""
        config, windows = part.critic.config, part.windows
        with self.reduced_precision():
            fakes, z_s = part.generated or self.generate(windows)
            verdicts, predicted, label = self.judge(part.critic, fakes, windows.t, part.random)
            losses = {"generator": ADVERSARIAL[config.recipe][1](verdicts)}
            loss = losses["generator"]
            if config.diversity_weight > 0:
                losses["diversity"] = self.diversity(windows, z_s, part.random)
                loss = loss + config.diversity_weight * losses["diversity"]
        if config.vertical_weight > 0:
            loss = loss + config.vertical_weight * vertical_task(predicted, label)
        (loss / parts).backward()
        part.generated = None
        if config.path_weight > 0 and self.steps % config.path_every == 0:
            losses["path"], losses["path_length"] = self.path_length(part)
            (config.path_weight * config.path_every * losses["path"] / parts).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def diversity(self, windows: Windows, z_s: Tensor, random: torch.Generator) -> Tensor:
        """Computes the diversity loss, from structures of other z_l with the same z_g and coordinates."""
        some = windows.first(max(1, len(z_s) // TWIN_SHARE))
        twin_z_l = torch.randn(some.z_l.shape, generator=random).to(some.z_l)
        twin_z_s = self.generator.structure(twin_z_l, some.coordinates, some.z_g)
        return diversity(z_s[: len(twin_z_s)], twin_z_s.float(), some.z_l, twin_z_l)

    def path_length(self, part: Part) -> tuple[Tensor, Tensor]:
        """Computes path length regularisation on some windows: the penalty and the mean length."""
        windows = part.windows.first(max(1, len(part.t) // PATH_SHARE))
        ws = torch.stack(self.styles(windows), dim=1)
        z_s = self.generator.structure(windows.z_l, windows.coordinates, windows.z_g)
        pictures = self.generator.texture(z_s, ws.unbind(1), windows.z_n)
        noise = torch.randn(pictures.shape, generator=part.random).to(self.device)
        penalty, lengths = path_length_penalty(pictures, ws, self.path_mean.to(self.device), noise)
        return penalty, lengths.mean()

    def reduced_precision(self) -> AbstractContextManager[None]:
        """Computes the networks' products in bfloat16 within its block, if the recipe says so."""
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def mean_losses(self, losses: Sequence[Losses]) -> dict[str, float]:
        """Averages the losses over parts and processes; all processes get the same result."""
        values = torch.stack([torch.stack(list(entry.values())).detach() for entry in losses]).mean(dim=0)
        return dict(zip(losses[0], self.mean(values).tolist(), strict=True))

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean over all processes."""
        return self.processes.mean(values)

    def average(self) -> None:
        """Updates the averaged generator. Its half-life is a tenth of the images seen, within the recipe's bounds."""
        update_average(self.ema, self.generator, self.images, self.config.batch, self.config.ema_images)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by the names that their tensors have in a state."""
        networks = {"generator": self.generator, "ema": self.ema, "discriminator": self.discriminator}
        if self.frame_critic is not None:
            networks["frame_discriminator"] = self.frame_critic.discriminator
        return networks

    @property
    def optimizers(self) -> dict[str, torch.optim.Adam]:
        """The optimisers, by the names that their tensors have in a state."""
        optimizers = {"g_optimizer": self.g_optimizer, "d_optimizer": self.patch_critic.optimizer}
        if self.frame_critic is not None:
            optimizers["frame_optimizer"] = self.frame_critic.optimizer
        return optimizers

    def state(self) -> dict[str, Tensor]:
        """Returns all tensors from which training resumes."""
        return {**state_of(self.networks, self.optimizers), "path_mean": self.path_mean}

    def load_state(self, tensors: Mapping[str, Tensor], steps: int, images_before: int) -> None:
        """Resumes from the `state` of a trainer of the same configuration, stored in any precision.

        Raises:
            InputError: The tensors are not those of such a trainer.
        """
        check_names(tensors, STATE_PARTS)
        try:
            for name, network in self.networks.items():
                stored = below(name, tensors)
                if name == "frame_discriminator" and not stored:
                    stored = self.discriminator.state_dict()  # loaded just before; a state without one starts from it
                network.load_state_dict(stored)
            for name, optimizer in self.optimizers.items():
                load_second_moments(optimizer, below(name, tensors))
            self.path_mean.copy_(tensors.get("path_mean", torch.zeros(())))  # earlier versions stored none
        except (RuntimeError, KeyError) as error:
            raise InputError(f"the training state does not fit this configuration: {one_line(error)}") from None
        self.steps, self.images_before = steps, images_before


def reduce_frames(frames: Tensor, config: GeneratorConfig) -> Tensor:
    """Crops whole frames [N,3,h,w] to the middle full_px and reduces them to the size of a patch."""
    top, left = ((side - config.full_px) // 2 for side in frames.shape[2:])
    middle = frames[:, :, top : top + config.full_px, left : left + config.full_px]
    size = (config.patch_px, config.patch_px)
    return F.interpolate(middle, size=size, mode="bilinear", align_corners=False, antialias=True)


def update_average(average: nn.Module, current: nn.Module, images: int, batch: int, bounds: tuple[int, int]) -> None:
    """Updates a network's moving average after a step; its half-life is a tenth of the images seen, within bounds."""
    low, high = bounds
    weight = 1 - 0.5 ** (batch / min(max(images / 10, low), high))
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), current.parameters(), strict=True):
            mean.lerp_(parameter, weight)


Module = TypeVar("Module", bound=nn.Module)


def placed(module: Module, device: str) -> Module:
    """Moves a module to a device, with weights in channels-last order, which convolutions run fastest on."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_discriminator(generator: GeneratorConfig, config: TrainingConfig) -> nn.Module:
    """Builds the discriminator of a recipe; the paper's is as wide as the generator."""
    if config.recipe == "projected":
        return ProjectedDiscriminator(generator.patch_px, by_position=config.vertical_weight > 0)
    return Discriminator(generator.patch_px, max(generator.texture_channels))


def step_generator(seed: int, step: int, rank: int = 0, part: int = 0) -> torch.Generator:
    """Returns the source of all randomness in one step, for one process and part of its batch."""
    state = int(np.random.SeedSequence((seed, step, rank, part)).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)
