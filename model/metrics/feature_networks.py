"""Networks that turn pictures into the features in which sets of pictures are compared.

A distance is named after its network: a Fréchet distance is called FID only for the standard Inception's features.
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
    """A frozen network and the size of its input.

    Attributes:
        network: Has a method `pooled`, from [N,3,side,side] in [-1, 1] to [N,d].
        side_px: The side to which pictures are scaled.
        resize: The interpolation; always antialiased.
    """

    network: Any
    side_px: int
    resize: str

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """Computes features of uint8 [N,3,h,w]: float32 [N,d], on the CPU."""
        parts, device = [], next(iter(self.network.buffers())).device
        for batch in pictures.split(BATCH):
            x = batch.to(device).float() / 127.5 - 1
            x = F.interpolate(x, size=(self.side_px, self.side_px), mode=self.resize, antialias=True).clamp(-1, 1)
            parts.append(self.network.pooled(x.contiguous(memory_format=torch.channels_last)).cpu())
        return torch.cat(parts)


def feature_networks(lpips: Lpips | None, inception: Inception | None, device: str) -> Mapping[str, FeatureNetwork]:
    """Returns the available networks, by the name that their distances carry.

    The `projected` recipe also trains against EfficientNet-Lite0, but not against AlexNet or Inception.

    Args:
        lpips: LPIPS, whose AlexNet is used.
        inception: The standard Inception, if its weights are given.
        device: The device to compute on.
    """
    networks = {"EffNetLite0": FeatureNetwork(EfficientNetLite0().to(device), 224, "bicubic")}
    if lpips is not None:
        networks["AlexNet"] = FeatureNetwork(lpips.to(device), 224, "bicubic")
    if inception is not None:
        networks["Inception"] = FeatureNetwork(inception.to(device), 299, "bilinear")
    return networks
