"""Statistics of single pictures: clipping, contrast, colour, fine grain and the position of the horizon.

Pictures are uint8 [N,3,H,W]. Results are float64 [N], in levels of 0 to 255 unless stated otherwise.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
STRIPS = 8
"""The number of strips into which columns are averaged; a horizon is found in each strip."""

LEAST_SHARE = 0.05
"""The smallest share of rows above a horizon, and below."""


def clipped(pictures: Tensor) -> Tensor:
    """Returns the share of pixels with a channel at 0, 1, 254 or 255."""
    return ((pictures <= 1) | (pictures >= 254)).any(dim=1).double().mean(dim=(1, 2))


def contrast(pictures: Tensor) -> Tensor:
    """Returns the standard deviation of all values."""
    return pictures.double().std(dim=(1, 2, 3))


def brightness(pictures: Tensor) -> Tensor:
    """Returns the mean luma."""
    return luma(pictures).mean(dim=(1, 2))


def saturation(pictures: Tensor) -> Tensor:
    """Returns the mean distance of the pixels from grey, in the opponent colours."""
    return opponents(pictures).square().sum(dim=1).sqrt().mean(dim=(1, 2))


def red_green(pictures: Tensor) -> Tensor:
    """Returns the mean of red minus green."""
    return opponents(pictures)[:, 0].mean(dim=(1, 2))


def yellow_blue(pictures: Tensor) -> Tensor:
    """Returns the mean of yellow minus blue."""
    return opponents(pictures)[:, 1].mean(dim=(1, 2))


def fine_power(pictures: Tensor) -> Tensor:
    """Returns the mean power of luma between half the Nyquist frequency and Nyquist, levels², with a Hann window."""
    return power_between(pictures, 0.25, 0.5)


def power_between(pictures: Tensor, low: float, high: float) -> Tensor:
    """Returns the mean power of luma between two frequencies in cycles per pixel, levels², with a Hann window."""
    grey = luma(pictures)
    height, width = grey.shape[1:]
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    window = window.double()
    power = torch.fft.rfft2((grey - grey.mean(dim=(1, 2), keepdim=True)) * window).abs().square()
    power = power / window.square().sum()
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    frequency = (rows.square() + columns.square()).sqrt()
    return power[:, (frequency >= low) & (frequency <= high)].mean(dim=1)


def horizon_height(pictures: Tensor) -> Tensor:
    """Returns the position of the horizon from 0 (top) to 1: the median over the strips."""
    return horizons(pictures).median(dim=1).values


def horizon_relief(pictures: Tensor) -> Tensor:
    """Returns how much the horizon varies: its standard deviation over the strips, as a share of the height."""
    return horizons(pictures).std(dim=1)


PATCH_STATISTICS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {f.__name__: f for f in (clipped, contrast, brightness, saturation, red_green, yellow_blue, fine_power)}
)

FRAME_STATISTICS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {f.__name__: f for f in (horizon_height, horizon_relief)}
)


def luma(pictures: Tensor) -> Tensor:
    """Maps [N,3,H,W] to [N,H,W]."""
    return torch.einsum("nchw,c->nhw", pictures.double(), torch.tensor(LUMA, dtype=torch.float64))


def opponents(pictures: Tensor) -> Tensor:
    """Returns red minus green and yellow minus blue (Hasler and Süsstrunk 2003): [N,3,H,W] -> [N,2,H,W]."""
    red, green, blue = pictures.double().unbind(dim=1)
    return torch.stack([red - green, (red + green) / 2 - blue], dim=1)


def horizons(pictures: Tensor) -> Tensor:
    """Returns the row, from 0 to 1, that best splits each strip into two of one colour each: [N,STRIPS].

    It is the split with the largest variance between its sides: n₁·n₂·|mean₁ - mean₂|². A picture without a horizon
    gets some row too, for photographs and generated pictures alike.
    """
    n, _, height, width = pictures.shape
    width -= width % STRIPS
    colours = pictures[..., :width].double().reshape(n, 3, height, STRIPS, -1).mean(dim=4)
    above = torch.arange(1, height, dtype=torch.float64)[:, None]
    sums = colours.cumsum(dim=2)
    before, total = sums[:, :, :-1], sums[:, :, -1:]
    between = (before / above - (total - before) / (height - above)).square().sum(dim=1) * above * (height - above)
    least = round(LEAST_SHARE * height)
    return (between[:, least : height - 1 - least].argmax(dim=1) + least + 1).double() / height
