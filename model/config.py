"""What a network and a training run are made of, as frozen dataclasses; presets and recipes differ in numbers only."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from model import geometry
from model.errors import InputError

MOST, MOST_LAYERS = 2**16, 64
"""No number of a network is larger, so that a forged file cannot ask for endless memory or time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """The generator's numbers (paper, Sections 3 and B). Sizes in pixels and cells follow from them."""

    z_g_dim: int
    """Length of the global latent."""
    z_l_dim: int
    """Channels of the field of local latents."""
    structure_channels: int
    """Channels of z_S and of each block of G_S."""
    structure_layers: int = 4
    structure_kernel: int = 7
    w_dim: int
    mapping_layers: int
    texture_channels: tuple[int, ...]
    """Output channels of each (up, plain) pair of G_T; as many as there are pairs."""
    visible_cells: int = 11
    """M: rows and columns of z_S in one training patch."""
    full_px: int
    """Height of the whole photograph from which a training patch is cropped."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            limit = MOST_LAYERS if field.name.endswith("_layers") else MOST
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if type(number) is not int or not 1 <= number <= limit:
                    raise InputError(f"generator {field.name} is {value!r}; give whole numbers from 1 to {limit}")
        if not 1 <= len(self.texture_channels) <= 10:
            raise InputError(f"generator texture_channels has {len(self.texture_channels)} pairs; 1 to 10 are possible")
        if self.structure_kernel % 2 == 0:
            raise InputError(f"generator structure_kernel is {self.structure_kernel}; it must be odd")
        if self.patch_px < 1:
            raise InputError(f"generator visible_cells is {self.visible_cells}; so few give no pixel")
        if self.full_px <= self.patch_px:
            raise InputError(f"generator full_px is {self.full_px}; it must exceed the patch, {self.patch_px} px")

    @property
    def pairs(self) -> int:
        """L, the number of (up, plain) pairs of G_T."""
        return len(self.texture_channels)

    @property
    def cell_px(self) -> int:
        """Pixels from one cell of the latent grid to the next, 2^L."""
        return geometry.stride(self.texture)

    @property
    def structure(self) -> tuple[geometry.Layer, ...]:
        """The layers of G_S."""
        return geometry.structure_layers(self.structure_layers, self.structure_kernel)

    @property
    def texture(self) -> tuple[geometry.Layer, ...]:
        """The layers of G_T."""
        return geometry.texture_layers(self.pairs)

    @property
    def latent_cells(self) -> int:
        """R: rows and columns of z_l for one training patch."""
        low, high = geometry.backward(self.structure, (0, self.visible_cells - 1))
        return high - low + 1

    @property
    def patch_px(self) -> int:
        """Side of a training patch."""
        return geometry.size(self.texture, self.visible_cells)

    @property
    def travel_cells(self) -> float:
        """V: how far, in cells, a window travels from t = -1 to t = 1; the same way in pixels as a crop."""
        return (self.full_px - self.patch_px) / self.cell_px

    @property
    def vertical_step(self) -> float:
        """d: what one row adds to v. The rows that G_T sees in training end at v = ±3, tanh ±0.995."""
        return 2 * 3 / (self.visible_cells + self.travel_cells - 1)

    @property
    def period_cells(self) -> int:
        """T: columns after which the horizontal coordinate repeats, 4R (paper, Appendix B)."""
        return 4 * self.latent_cells


PRESETS: Mapping[str, GeneratorConfig] = MappingProxyType(
    {
        "paper": GeneratorConfig(
            z_g_dim=512,
            z_l_dim=256,
            structure_channels=256,
            w_dim=512,
            mapping_layers=8,
            texture_channels=(512, 512, 512, 512),
            full_px=197,
        ),
        "small": GeneratorConfig(
            z_g_dim=128,
            z_l_dim=48,
            structure_channels=48,
            w_dim=128,
            mapping_layers=4,
            texture_channels=(128, 96, 64, 32),
            full_px=197,
        ),
        "tiny": GeneratorConfig(
            z_g_dim=16,
            z_l_dim=8,
            structure_channels=8,
            w_dim=16,
            mapping_layers=2,
            texture_channels=(16, 12, 8, 8),
            full_px=197,
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The numbers of a training run (paper, Sections 3.4 and C)."""

    recipe: Literal["paper", "projected"]
    batch: int = 16
    generator_lr: float
    discriminator_lr: float
    beta2: float = 0.99
    """Adam's second beta; the first is 0."""
    vertical_weight: float = 1.0
    """λ_ar, of the task of telling a patch's vertical position."""
    diversity_weight: float
    """λ_div."""
    r1_weight: float
    """λ_R1; 0 where the recipe does without."""
    r1_every: int = 16
    augment_colour: float
    """Share of the pictures whose colours are augmented."""
    augment_shift_px: int
    """Largest shift of a picture by augmentation, in pixels."""
    beyond_share: float = 0.0
    """q: share of the draws that lie beyond the photographs' frame and are judged as its top or bottom."""
    beyond_after: int = 0
    """Images seen before these draws begin: a network that knows the frame learns more from them."""
    ema_images: tuple[int, int]
    """Half-life of the averaged generator: a tenth of the images seen, but within these two numbers of images."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.recipe not in ("paper", "projected"):
            raise InputError(f"recipe is {self.recipe!r}; choose paper or projected")
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}; it must be at least 1")
        if not 0 <= self.beyond_share < 1:
            raise InputError(f"beyond_share is {self.beyond_share}; it must be from 0 to less than 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; it must be from 0 to 2^63 - 1")


RECIPES: Mapping[str, TrainingConfig] = MappingProxyType(
    {
        "paper": TrainingConfig(
            recipe="paper",
            generator_lr=2e-3,
            discriminator_lr=2e-3,
            diversity_weight=1.0,
            r1_weight=10.0,
            augment_colour=0.0,
            augment_shift_px=0,
            ema_images=(10_000, 10_000),
        ),
        "projected": TrainingConfig(
            recipe="projected",
            generator_lr=2e-3,
            discriminator_lr=4e-4,
            diversity_weight=0.1,
            r1_weight=0.0,
            augment_colour=0.5,
            augment_shift_px=12,
            beyond_share=0.3,
            beyond_after=100_000,
            ema_images=(500, 5_000),
        ),
    }
)

DEFAULT_RECIPE: Mapping[str, str] = MappingProxyType({"paper": "paper", "small": "projected", "tiny": "paper"})
"""The recipe of each preset, unless another is asked for."""


def generator_config(values: Mapping[str, Any]) -> GeneratorConfig:
    """A generator's configuration from its JSON form.

    Raises:
        InputError: a field is unknown, missing or out of range.
    """
    try:
        return GeneratorConfig(**{**values, "texture_channels": tuple(values["texture_channels"])})
    except (TypeError, KeyError) as error:
        raise InputError(f"this is no generator's configuration: {error}") from None
