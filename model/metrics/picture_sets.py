"""Sets of pictures as numbers: the features of each picture and the statistics of single pictures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.metrics.distances import WeightedValues
from model.metrics.feature_networks import FeatureNetwork
from model.metrics.statistics import FRAME_STATISTICS, PATCH_STATISTICS

EXAMPLES = 8
"""The number of groups of which one picture is kept for display."""


@dataclass(frozen=True, slots=True)
class Described:
    """A set of pictures, described by features and statistics.

    Attributes:
        features: float32 [N,d], by the network's name.
        statistics: float64 [N], by name.
        groups: The photograph or world of each picture, int64 [N].
        examples: The first picture of each of the first groups, uint8 [n,3,h,w].
    """

    features: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]
    groups: Tensor
    examples: Tensor

    def weighted(self, name: str, weights: Tensor) -> WeightedValues:
        """Returns the features of a network, or a statistic, by name."""
        values = self.features[name] if name in self.features else self.statistics[name]
        return WeightedValues(values, self.groups, weights)


def describe(groups: Iterable[Mapping[str, Tensor]], networks: Mapping[str, FeatureNetwork]) -> dict[str, Described]:
    """Describes the sets of pictures that each photograph or world gives. Pictures are not kept.

    Args:
        groups: For each group, its pictures uint8 [n,3,h,w] by the name of their set. A group may lack some sets.
        networks: The feature networks by name.
    """
    parts: dict[str, list[Described]] = {}
    for number, sets in enumerate(groups):
        for name, pictures in sets.items():
            if not len(pictures):
                continue
            functions = FRAME_STATISTICS if "frame" in name else PATCH_STATISTICS
            part = Described(
                {key: network.features(pictures) for key, network in networks.items()},
                {key: function(pictures) for key, function in functions.items()},
                torch.full((len(pictures),), number),
                pictures[:1] if number < EXAMPLES else pictures[:0],
            )
            parts.setdefault(name, []).append(part)
    return {name: join(described) for name, described in parts.items()}


def join(parts: list[Described]) -> Described:
    """Joins several descriptions of one set."""
    return Described(
        {key: torch.cat([part.features[key] for part in parts]) for key in parts[0].features},
        {key: torch.cat([part.statistics[key] for part in parts]) for key in parts[0].statistics},
        torch.cat([part.groups for part in parts]),
        torch.cat([part.examples for part in parts if len(part.examples)]),
    )
