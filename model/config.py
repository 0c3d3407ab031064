"""The configurations of networks and training runs. Presets and recipes differ only in numbers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from model import geometry
from model.errors import InputError

Config = TypeVar("Config")

MOST, MOST_LAYERS = 2**16, 64
"""Upper limits for every number of a network, so that a forged file cannot demand endless memory or time."""

KINDS = ("infinitygan", "nci", "nci-fcg")
VERTICAL_LAWS = ("crop", "paper")
PAPER_TRAVEL_CELLS = 10
"""V in the paper (Appendix B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """The configuration of a generator (paper, Sections 3 and B). Sizes in pixels and cells are derived from it."""

    z_g_dim: int
    """The length of the global latent."""
    z_l_dim: int
    """The number of channels of the local latents."""
    structure_channels: int
    """The number of channels of z_S and of each block of G_S."""
    structure_layers: int = 4
    structure_kernel: int = 7
    w_dim: int
    mapping_layers: int
    texture_channels: tuple[int, ...]
    """The output channels of each (up, plain) pair of G_T; one number per pair."""
    visible_cells: int = 11
    """M: the number of rows and columns of z_S in a training patch."""
    full_px: int
    """The height of the whole photograph from which a training patch is cropped."""
    kind: str = "infinitygan"
    """The paper's network, or one of its ablations without G_S: StyleGAN2 with z_l as a non-constant input, padded
    like StyleGAN2 or fully convolutional (paper, Section 4.1)."""
    vertical_law: str = "crop"
    """The range and steps of training windows along the height: "crop", like crops of photographs, or "paper"."""

    def __post_init__(self) -> None:
        self._check_fields()
        if not 1 <= len(self.texture_channels) <= 10:
            raise InputError(f"generator texture_channels has {len(self.texture_channels)} pairs; give 1 to 10")
        if self.structure_kernel % 2 == 0:
            raise InputError(f"generator structure_kernel is {self.structure_kernel}; it must be odd")
        if not self.tileable and self.structure_channels != self.z_l_dim:
            raise InputError(f"generator structure_channels is {self.structure_channels}; without G_S use z_l_dim")
        if self.patch_px < 1:
            raise InputError(f"generator visible_cells is {self.visible_cells}; this is too small to give a pixel")
        if self.full_px <= self.patch_px:
            raise InputError(f"generator full_px is {self.full_px}; it must exceed the patch, {self.patch_px} px")

    def _check_fields(self) -> None:
        choices = {"kind": KINDS, "vertical_law": VERTICAL_LAWS}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in choices:
                if value not in choices[field.name]:
                    known = " or ".join(choices[field.name])
                    raise InputError(f"generator {field.name} is {value!r}; choose {known}")
                continue
            limit = MOST_LAYERS if field.name.endswith("_layers") else MOST
            for number in value if isinstance(value, tuple) else (value,):
                if type(number) is not int or not 1 <= number <= limit:
                    raise InputError(f"generator {field.name} is {value!r}; give whole numbers from 1 to {limit}")

    @property
    def tileable(self) -> bool:
        """Whether the network has G_S and coordinates, so it renders tile by tile; ablations render in one shot."""
        return self.kind == "infinitygan"

    @property
    def pairs(self) -> int:
        """L: the number of (up, plain) pairs of G_T."""
        return len(self.texture_channels)

    @property
    def cell_px(self) -> int:
        """The number of pixels per cell of the latent grid, 2^L."""
        return geometry.stride(self.texture)

    @property
    def structure(self) -> tuple[geometry.Layer, ...]:
        """The layers of G_S; empty for an ablation."""
        if not self.tileable:
            return ()
        return geometry.structure_layers(self.structure_layers, self.structure_kernel)

    @property
    def texture(self) -> tuple[geometry.Layer, ...]:
        """The layers of G_T."""
        return geometry.texture_layers(self.pairs, padded=self.kind == "nci")

    @property
    def latent_cells(self) -> int:
        """R: the number of rows and columns of z_l for a training patch."""
        low, high = geometry.backward(self.structure, (0, self.visible_cells - 1))
        return high - low + 1

    @property
    def patch_px(self) -> int:
        """The side of a training patch."""
        return geometry.size(self.texture, self.visible_cells)

    @property
    def frame_cells(self) -> int:
        """The number of rows and columns of z_S whose picture is as high as a whole photograph."""
        return next(n for n in range(self.visible_cells, MOST) if geometry.size(self.texture, n) >= self.full_px)

    @property
    def travel_cells(self) -> float:
        """V: how far, in cells, a window moves from t = -1 to t = 1; by "crop", as far as a crop of a photograph."""
        if self.vertical_law == "paper":
            return PAPER_TRAVEL_CELLS
        return (self.full_px - self.patch_px) / self.cell_px

    @property
    def vertical_step(self) -> float:
        """d: the step of v from row to row. By "crop", the rows that G_T sees in training end at v = ±3 (tanh ±0.995).

        By "paper", the rows that G_S sees do.
        """
        if self.vertical_law == "paper":
            return 2 * 3 / (self.latent_cells + self.travel_cells)
        return 2 * 3 / (self.visible_cells + self.travel_cells - 1)

    @property
    def period_cells(self) -> int:
        """T: the number of columns after which the horizontal coordinate repeats, 4R (paper, Appendix B)."""
        return 4 * self.latent_cells


PAPER = GeneratorConfig(
    z_g_dim=512,
    z_l_dim=256,
    structure_channels=256,
    w_dim=512,
    mapping_layers=8,
    texture_channels=(512, 512, 512, 512),
    full_px=197,
)
SMALL = GeneratorConfig(
    z_g_dim=128,
    z_l_dim=48,
    structure_channels=48,
    w_dim=128,
    mapping_layers=4,
    texture_channels=(128, 96, 64, 32),
    full_px=197,
)
TINY = GeneratorConfig(
    z_g_dim=16,
    z_l_dim=8,
    structure_channels=8,
    w_dim=16,
    mapping_layers=2,
    texture_channels=(16, 12, 8, 8),
    full_px=197,
)
PADDED_CELLS = 6
"""The number of cells that gives a padded network a patch of 96 px, about the size of the other networks' patches."""


def ablation(config: GeneratorConfig, kind: str) -> GeneratorConfig:
    """Returns the network without G_S, in which z_l is the input of G_T."""
    cells = PADDED_CELLS if kind == "nci" else config.visible_cells
    return dataclasses.replace(config, kind=kind, structure_channels=config.z_l_dim, visible_cells=cells)


PRESETS: Mapping[str, GeneratorConfig] = MappingProxyType(
    {
        "paper": PAPER,
        "paper-197": dataclasses.replace(PAPER, texture_channels=(512, 512, 512, 512, 256), full_px=389),
        "paper-389": dataclasses.replace(PAPER, texture_channels=(512, 512, 512, 512, 256, 128), full_px=773),
        "stylegan2-nci": ablation(PAPER, "nci"),
        "stylegan2-nci-fcg": ablation(PAPER, "nci-fcg"),
        "small": SMALL,
        "small-nci": ablation(SMALL, "nci"),
        "small-nci-fcg": ablation(SMALL, "nci-fcg"),
        "tiny": TINY,
    }
)


HEAD_KERNEL = 5
"""The side of the kernels of a detail stage's first layer; all others are 3×3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailConfig:
    """The configuration of a detail stage, which enlarges the generator's pictures by four."""

    channels: int = 48
    """The number of channels of the body, at the base's resolution."""
    blocks: int = 3
    """The number of residual blocks of two convolutions each."""
    up_channels: tuple[int, int] = (32, 16)
    """The output channels of the two (up, plain) pairs."""

    def __post_init__(self) -> None:
        if type(self.blocks) is not int or not 1 <= self.blocks <= MOST_LAYERS:
            raise InputError(f"detail blocks is {self.blocks!r}; give a whole number from 1 to {MOST_LAYERS}")
        if len(self.up_channels) != 2:
            raise InputError(f"detail up_channels has {len(self.up_channels)} numbers; give 2")
        for number in (self.channels, *self.up_channels):
            if type(number) is not int or not 1 <= number <= MOST:
                raise InputError(f"a detail stage has {number!r} channels; give whole numbers from 1 to {MOST}")

    @property
    def layers(self) -> tuple[geometry.Layer, ...]:
        """The layers, in order: the head, the blocks, the pairs and to-RGB."""
        head, plain, up = geometry.Layer(kernel=HEAD_KERNEL), geometry.Layer(), geometry.Layer(up=True, halfway=True)
        return (head,) + (plain,) * 2 * self.blocks + (up, plain) * len(self.up_channels) + (plain,)

    @property
    def noise_layers(self) -> tuple[int, ...]:
        """The layers whose outputs receive noise: the first of each block and of each pair."""
        return tuple(range(1, len(self.layers) - 1, 2))


PRECISIONS: Mapping[str, str] = MappingProxyType({"float32": "float32", "tf32": "tf32", "bfloat16": "bf16"})
"""The precisions that a network can be trained in, and what a run's ``config.json`` calls each of them."""

SHORT_NAMES: Mapping[str, str] = MappingProxyType({"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"})


def precision_name(name: str) -> str:
    """The full name of a precision, such as bfloat16 for bf16; a name that is not known stays as it is."""
    return SHORT_NAMES.get(name, name)


def check_settings(config: "TrainingConfig | DetailTrainingConfig") -> None:
    """Raises InputError if a setting that all training runs have is out of range."""
    if config.precision not in PRECISIONS.values():
        raise InputError(f"precision is {config.precision!r}; choose {' or '.join(PRECISIONS.values())}")
    if config.batch < 1:
        raise InputError(f"batch is {config.batch}; it must be at least 1")
    if not 0 <= config.beyond_share < 1:
        raise InputError(f"beyond_share is {config.beyond_share}; it must be from 0 to less than 1")
    if not 0 <= config.seed < 2**63:
        raise InputError(f"seed is {config.seed}; it must be from 0 to 2^63 - 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The configuration of a training run (paper, Sections 3.4 and C)."""

    recipe: Literal["paper", "projected"]
    batch: int = 16
    generator_lr: float
    discriminator_lr: float
    beta2: float = 0.99
    """Adam's second beta; the first is 0."""
    vertical_weight: float = 1.0
    """λ_ar: the weight of predicting a patch's vertical position."""
    diversity_weight: float
    """λ_div."""
    r1_weight: float
    """λ_R1; 0 to disable it."""
    r1_every: int = 16
    path_weight: float = 0.0
    """λ_path; 0 to disable it."""
    path_every: int = 4
    style_mixing: float = 0.0
    """The share of pictures whose later layers take the style of another z_g."""
    iterations: int = 0
    """The number of steps after which a run ends by default; 0 for no limit."""
    augment_colour: float
    """The share of pictures whose colours are augmented."""
    augment_shift_px: int
    """The largest shift of a picture by augmentation, in pixels."""
    beyond_share: float = 0.0
    """q: the share of windows that lie beyond the photographs' frame and are judged as their sky or ground."""
    beyond_after: int = 0
    """The number of images seen before such windows begin; a network that knows the frame learns more from them."""
    frame_every: int = 0
    """One in this many steps judges whole frames instead of patches; 0 for never."""
    ema_images: tuple[int, int]
    """Bounds, in images, on the half-life of the averaged generator, which is a tenth of the images seen."""
    accumulate: int = 1
    """The number of parts into which each process splits its share of a batch to save memory."""
    precision: str = "float32"
    """The precision of convolutions and matrix products. R1 and path length always use float32."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.recipe not in ("paper", "projected"):
            raise InputError(f"recipe is {self.recipe!r}; choose paper or projected")
        check_settings(self)
        for name in ("accumulate", "r1_every", "path_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch % self.accumulate:
            raise InputError(f"accumulate is {self.accumulate}; it must divide the batch, {self.batch}")
        if self.frame_every < 0 or self.frame_every == 1:
            raise InputError(f"frame_every is {self.frame_every}; it must be 0 (never) or at least 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetailTrainingConfig:
    """The configuration of a training run of a detail stage."""

    batch: int = 4
    """The number of photographs per step; as many windows of worlds are added."""
    patch_px: int = 256
    """The side of a photograph's patch; what its reduced form determines is smaller."""
    detail_lr: float = 5e-4
    discriminator_lr: float = 4e-4
    beta2: float = 0.99
    """Adam's second beta; the first is 0."""
    adversarial_weight: float = 0.4
    adversarial_after: int = 800
    """The number of images seen before the adversarial loss begins."""
    pixel_weight: float = 1.0
    feature_weight: float = 1.0
    consistency_weight: float = 4.0
    beyond_share: float = 0.3
    """The share of the worlds' windows that lie beyond the photographs' frame."""
    ema_images: tuple[int, int] = (500, 5_000)
    """Bounds, in images, on the half-life of the averaged network, which is a tenth of the images seen."""
    precision: str = "float32"
    """The precision of convolutions and matrix products."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self)


DETAIL = "detail"
"""The name by which a detail stage is trained, in place of a preset."""
DETAIL_STAGE, DETAIL_RECIPE = DetailConfig(), DetailTrainingConfig()


RECIPES: Mapping[str, TrainingConfig] = MappingProxyType(
    {
        "paper": TrainingConfig(
            recipe="paper",
            generator_lr=2e-3,
            discriminator_lr=2e-3,
            diversity_weight=1.0,
            r1_weight=10.0,
            path_weight=2.0,
            style_mixing=0.9,
            iterations=800_000,
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
            frame_every=4,
            ema_images=(500, 20_000),
        ),
    }
)


def default_recipe(preset: str) -> str:
    """Returns the default recipe of a preset."""
    return "projected" if preset.startswith("small") else "paper"


def recipe_for(network: GeneratorConfig, recipe: str) -> TrainingConfig:
    """Returns a recipe's settings, without the vertical and diversity losses if the network lacks coordinates."""
    settings = RECIPES[recipe]
    if network.tileable:
        return settings
    return dataclasses.replace(settings, vertical_weight=0.0, diversity_weight=0.0, beyond_share=0.0, frame_every=0)


def check_tileable(config: GeneratorConfig, name: str) -> None:
    """Raises InputError for a checkpoint whose pictures are not windows of a world."""
    if not config.tileable:
        reason = f"a {config.kind} network renders in one shot only; use an infinitygan one"
        raise InputError(f"checkpoint {name}: {reason}")


def generator_config(values: Mapping[str, Any]) -> GeneratorConfig:
    """Returns a generator's configuration; see `_from_json`."""
    return _from_json(GeneratorConfig, values, "texture_channels", "generator")


def training_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Returns a training run's configuration; see `_from_json`."""
    return _from_json(TrainingConfig, values, "ema_images", "training run")


def detail_config(values: Mapping[str, Any]) -> DetailConfig:
    """Returns a detail stage's configuration; see `_from_json`."""
    return _from_json(DetailConfig, values, "up_channels", "detail stage")


def detail_training_config(values: Mapping[str, Any]) -> DetailTrainingConfig:
    """Returns the configuration of a detail stage's training run; see `_from_json`."""
    return _from_json(DetailTrainingConfig, values, "ema_images", "training run")


def _from_json(kind: type[Config], values: Mapping[str, Any], listed: str, what: str) -> Config:
    """Returns a configuration from its JSON form. Fields that earlier versions lacked get defaults.

    Args:
        kind: Its class.
        values: The JSON object.
        listed: The name of the field that is a tuple.
        what: What it configures, for the error.

    Raises:
        InputError: A field is unknown, missing or out of range.
    """
    try:
        return kind(**{**values, listed: tuple(values[listed])})
    except (TypeError, KeyError) as error:
        raise InputError(f"not a {what}'s configuration: {error}") from None
