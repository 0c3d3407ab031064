"""The measures of an evaluation: generated pictures compared with held-out photographs.

Each is given for photographs of the training split too: the floor of a distance, which a perfect model would reach.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from model.config import GeneratorConfig
from model.metrics.distances import (
    WeightedValues,
    bootstrap_weights,
    deviation,
    estimate,
    frechet_distance,
    kernel_distance,
    mean,
    precision,
    recall,
    shift_distance,
)
from model.metrics.picture_sets import Described
from transforms.evaluation.settings import PATCH, Evaluation, band, beyond_frame, clamp_to_frame, frame, paper

DescribedSets = Mapping[str, Described]
Measure = Callable[[WeightedValues, WeightedValues], Tensor]

COLOURS = ("brightness", "red_green", "yellow_blue", "saturation", "contrast")


Figures = dict[str, float]
"""Numbers by name, such as a value, its error and the value for the training split."""

Findings = dict[str, Any]
"""Numbers and `Figures` by name. Which there are depends on the feature networks."""


class HorizonSpread(TypedDict):
    """How far horizons spread, as a share of the frame's height, in four ways.

    Attributes:
        generated: the spread of the worlds.
        photographs: that of the held-out photographs.
        ratio: the first as a share of the second.
        trained: the spread of the training photographs.
    """

    generated: float
    photographs: float
    ratio: Figures
    trained: float


Measured = TypedDict(
    "Measured",
    {
        "sets": dict[str, Findings],
        "bands": dict[str, Findings],
        "mean KID": dict[str, dict[str, Figures]],
        "colours": dict[str, Figures],
        "horizon": dict[str, HorizonSpread],
    },
)
"""All distances of worlds from photographs: by picture set, by band, as means over bands, and by statistic."""


class Results(Measured):
    """The results of an evaluation.

    Attributes:
        repetition: how far panoramas repeat with the coordinate's period.
        LPIPS: how far pictures of one place differ that have other latents or textures, and how far photographs do.
    """

    repetition: Findings
    LPIPS: Findings


@dataclass(frozen=True, slots=True)
class Compared:
    """Two sets of pictures, generated or trained on (x) and held out (y), with the weights of the bootstrap draws."""

    x: Described
    y: Described
    x_weights: Tensor
    y_weights: Tensor

    def weighted(self, name: str) -> tuple[WeightedValues, WeightedValues]:
        """Returns the features of a network, or a statistic, of both sets."""
        return self.x.weighted(name, self.x_weights), self.y.weighted(name, self.y_weights)

    def of(self, name: str, measure: Measure) -> Tensor:
        """Applies a measure from `model.metrics.distances` to these features or this statistic."""
        return measure(*self.weighted(name))


@dataclass(frozen=True, slots=True)
class BandDistance:
    """How far a band of worlds is from photographs.

    Attributes:
        px: how far below the horizon the middle row of the band's patches lies.
        beyond: what the photographs show, sky or ground, if the band is compared with these alone; otherwise empty.
        kid: the draws of the distance, by network.
    """

    px: int
    beyond: str
    kid: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class References:
    """The photographs, described once for any number of generators.

    Attributes:
        held_out: the sets of the val and test splits.
        trained: the sets of the training split.
        config: the configuration of the generators that they are compared with.
        evaluation: the numbers of the evaluation.
    """

    held_out: DescribedSets
    trained: DescribedSets
    config: GeneratorConfig
    evaluation: Evaluation

    def compare(self, worlds: DescribedSets, name: str, held_out: str) -> tuple[Compared, Compared]:
        """Pairs a set of worlds, and (without errors) photographs of the training split, with held-out photographs."""
        x, y, trained = worlds[name], self.held_out[held_out], self.trained[held_out]
        x_weights, y_weights, trained_weights = (
            bootstrap_weights(groups_of(sets), self.evaluation.bootstraps, self.evaluation.seed + number)
            for number, sets in enumerate((worlds, self.held_out, self.trained))
        )
        return Compared(x, y, x_weights, y_weights), Compared(trained, y, trained_weights[:1], y_weights[:1])


def groups_of(sets: DescribedSets) -> int:
    """Returns the number of photographs or worlds that the sets come from."""
    return 1 + max(int(described.groups.max()) for described in sets.values())


def measure(worlds: DescribedSets, references: References) -> Measured:
    """Computes all measures of worlds against the references, as JSON values."""
    evaluation = references.evaluation
    frames = {frame(scale): frame() for scale in evaluation.scales}
    if evaluation.protocol == "paper":
        frames |= {paper(frame(scale)): paper(frame()) for scale in evaluation.scales}
    sets = {PATCH: PATCH} | frames
    by_band, mean_kids = bands(worlds, references)
    return {
        "sets": {name: distances(*references.compare(worlds, name, reals)) for name, reals in sets.items()},
        "bands": by_band,
        "mean KID": mean_kids,
        "colours": colours(*references.compare(worlds, PATCH, PATCH)),
        "horizon": horizon(*references.compare(worlds, frame(min(evaluation.scales)), frame())),
    }


def distances(compared: Compared, trained: Compared) -> Findings:
    """Computes distances between whole sets, in every network's features."""
    results: Findings = {"pictures": len(compared.x.groups), "photographs' pictures": len(compared.y.groups)}
    for network in compared.x.features:
        measures = {
            f"KID-{network}": kernel_distance,
            frechet_name(network): frechet_distance,
            f"precision-{network}": precision,
            f"recall-{network}": recall,
        }
        results |= {name: with_trained(compared, trained, network, measure) for name, measure in measures.items()}
    return results


def frechet_name(network: str) -> str:
    """Returns the name of a Fréchet distance: it is called FID only in the standard Inception's features."""
    return "FID" if network == "Inception" else f"FD-{network}"


def bands(worlds: DescribedSets, references: References) -> tuple[dict[str, Findings], dict[str, dict[str, Figures]]]:
    """Computes distances by height, and their means over bands as far above as below.

    A band beyond the frame has two rows: one for the photographs' edge as it is, and one for their sky or ground alone.
    """
    networks = list(worlds[PATCH].features)
    rows: dict[str, Findings] = {}
    measured: list[BandDistance] = []
    for band_px in references.evaluation.bands_px:
        for beyond, photographs in photographs_of(band_px, references).items():
            compared, trained = references.compare(worlds, band(band_px), photographs)
            distance = BandDistance(band_px, beyond, {name: compared.of(name, kernel_distance) for name in networks})
            measured.append(distance)
            rows[f"{band_px:+d} {beyond}".strip()] = band_row(distance, compared, trained)
    return rows, {name: band_means(name, measured, references) for name in networks}


def band_row(distance: BandDistance, compared: Compared, trained: Compared) -> Findings:
    """Returns what is said of one band."""
    kids = {f"KID-{name}": beside_trained(kid, trained.of(name, kernel_distance)) for name, kid in distance.kid.items()}
    return kids | {
        "clipped": both_means(compared, "clipped"),
        "contrast": {**both_means(compared, "contrast"), "ratio": ratio(compared, "contrast")},
        "fine power": {**both_means(compared, "fine_power"), "ratio": ratio(compared, "fine_power")},
        "colours": colours(compared, trained),
    }


def photographs_of(band_px: int, references: References) -> dict[str, str]:
    """Returns the sets of photographs that a band is compared with, by what they show if it is beyond the frame."""
    names = {"": band(clamp_to_frame(band_px, references.config))}
    beyond = beyond_frame(band_px, references.config)
    if beyond in references.held_out and beyond in references.trained:
        names[beyond] = beyond
    return names


def band_means(network: str, measured: Sequence[BandDistance], references: References) -> dict[str, Figures]:
    """Computes KID within the photographs' frame, of each pair of bands beyond it, and of those below and above."""
    edge = {one.px: one.kid[network] for one in measured if not one.beyond}
    clear = {one.px: one.kid[network] for one in measured if one.beyond}
    inside = [kid for band_px, kid in edge.items() if not beyond_frame(band_px, references.config)]
    means = {"within the frame": inside} if inside else {}
    for far in sorted({abs(band_px) for band_px in edge if beyond_frame(band_px, references.config)}):
        means[f"±{far}"] = [kid for band_px, kid in edge.items() if abs(band_px) == far]
        means[f"±{far}, sky and ground"] = [kid for band_px, kid in clear.items() if abs(band_px) == far]
    results = {name: asdict(estimate(torch.stack(kids).mean(dim=0))) for name, kids in means.items() if kids}
    above, below = ([kid for band_px, kid in edge.items() if sign * band_px > 0] for sign in (-1, 1))
    if above and below:
        results["below / above"] = asdict(estimate(torch.stack(below).mean(dim=0) / torch.stack(above).mean(dim=0)))
    return results


def colours(compared: Compared, trained: Compared) -> dict[str, Figures]:
    """Computes how far the distributions of pictures' mean colours and contrasts are apart, in levels of 255."""
    return {
        name: {**with_trained(compared, trained, name, shift_distance), **both_means(compared, name)}
        for name in COLOURS
    }


def horizon(compared: Compared, trained: Compared) -> dict[str, HorizonSpread]:
    """Computes how far horizons spread between frames and along them, as a share of the frame's height."""
    results: dict[str, HorizonSpread] = {}
    for name, statistic, spread in (
        ("between frames", "horizon_height", deviation),
        ("along a frame", "horizon_relief", mean),
    ):
        x, y = (spread(sample) for sample in compared.weighted(statistic))
        results[name] = {
            "generated": float(x[0]),
            "photographs": float(y[0]),
            "ratio": asdict(estimate(x / y)),
            "trained": float(spread(trained.weighted(statistic)[0])[0]),
        }
    return results


def with_trained(compared: Compared, trained: Compared, name: str, distance: Measure) -> Figures:
    """Returns a distance with its error, and the same distance for the training split."""
    return beside_trained(compared.of(name, distance), trained.of(name, distance))


def beside_trained(draws: Tensor, trained: Tensor) -> Figures:
    """Returns a value with its error, and the value for the training split."""
    return {**asdict(estimate(draws)), "trained": float(trained[0])}


def both_means(compared: Compared, name: str) -> Figures:
    """Returns the mean of a statistic in both sets."""
    generated, photographs = (float(mean(sample)[0]) for sample in compared.weighted(name))
    return {"generated": generated, "photographs": photographs}


def ratio(compared: Compared, name: str) -> Figures:
    """Returns the mean of a statistic as a share of the photographs'."""
    generated, photographs = (mean(sample) for sample in compared.weighted(name))
    return asdict(estimate(generated / photographs))
