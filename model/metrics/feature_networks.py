"""Networks that turn pictures into the features in which sets of pictures are compared.

A distance is named by its network: a Fréchet distance is called FID only with the standard Inception's features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.efficientnet import EfficientNetLite0
from model.networks.inception import Inception
from model.networks.lpips import Lpips

BATCH = 16


@dataclass(frozen=True, slots=True)
class FeatureNetwork:
    """A frozen network and how pictures reach it.

    Attributes:
        network: has `pooled`, from [N,3,side,side] in [-1, 1] to [N,d].
        side_px: the side to which pictures are brought.
        resize: the interpolation; always antialiased.
    """

    network: Any
    side_px: int
    resize: str

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """Of uint8 [N,3,h,w]: float32 [N,d], on the CPU."""
        parts, device = [], next(iter(self.network.buffers())).device
        for batch in pictures.split(BATCH):
            x = batch.to(device).float() / 127.5 - 1
            x = F.interpolate(x, size=(self.side_px, self.side_px), mode=self.resize, antialias=True).clamp(-1, 1)
            parts.append(self.network.pooled(x.contiguous(memory_format=torch.channels_last)).cpu())
        return torch.cat(parts)


def feature_networks(lpips: Lpips | None, inception: Inception | None, device: str) -> Mapping[str, FeatureNetwork]:
    """The networks at hand, by the name that their distances carry.

    EfficientNet-Lite0 also judges in training by the `projected` recipe. AlexNet and Inception do not.

    Args:
        lpips: gives AlexNet; None leaves it out.
        inception: the standard Inception, if its weights are given.
        device: where to compute.
    """
    networks = {"EffNetLite0": FeatureNetwork(EfficientNetLite0().to(device), 224, "bicubic")}
    if lpips is not None:
        networks["AlexNet"] = FeatureNetwork(lpips.to(device), 224, "bicubic")
    if inception is not None:
        networks["Inception"] = FeatureNetwork(inception.to(device), 299, "bilinear")
    return networks
