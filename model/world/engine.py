"""The generator as rendering runs it: one window at a time, with nothing done twice.

A style's modulation and demodulation are folded into the weights once, so that a layer is a plain convolution. Only
where a layer's window meets several styles is its input scaled pixel by pixel, by s(p) = Σ m_k(p) s_k, and its output
demodulated by demod(p)⁻² = Σ_{j≤k} m_j m_k D_jk + ε. Both ways agree to rounding where a style is alone.

The gain √2 of the activation is folded in too: leaky ReLU keeps a positive factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.geometry import Window
from model.networks.generator import Generator
from model.networks.layers import EPSILON, GAIN, LEAK, ModulatedConvolution, products, upsample_skip
from model.networks.structure import crop_to
from model.world.fusion import Mixture, StyleMap

STYLES_KEPT = 4
"""Of the folded weights of as many styles each layer keeps those used last."""

PAIRS_KEPT = 64
"""Of the demodulation of pairs of styles, which is a vector each."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Of the texture synthesizer's convolutions; all else is float32."""


@dataclass(frozen=True, slots=True)
class StyleVectors:
    """A style as the network takes it: z_g [1,z_g_dim] for G_S; a w [1,w_dim] for each layer of G_T, and one more."""

    z_g: Tensor
    ws: Sequence[Tensor]


class StyledConvolution:
    """A modulated convolution for each of several styles and for their mixtures.

    Args:
        convolution: the network's.
        bias: [O].
        styles: its style vector [1,style_dim] for each style.
        gain: by which the output is multiplied; 1 or √2.
        dtype: of the convolution.
    """

    def __init__(
        self, convolution: ModulatedConvolution, bias: Tensor, styles: Sequence[Tensor], gain: float, dtype: torch.dtype
    ):
        self.convolution, self.gain, self.dtype = convolution, gain, dtype
        self.scales = convolution.affine.exact(torch.cat(list(styles)))  # [K,I]
        self.bias = (bias * gain).to(dtype)
        taps = self.bias.new_tensor([1.0, 2.0, 1.0])
        self.blur = (taps[:, None] * taps / 4).expand(len(bias), 1, 3, 3)
        self.pointwise = convolution.weight.shape[2] == 1
        self.folded = lru_cache(maxsize=STYLES_KEPT)(self._folded)
        self.shared = lru_cache(maxsize=1)(self._shared)
        self.pair = lru_cache(maxsize=PAIRS_KEPT)(self._pair)

    def __call__(self, x: Tensor, before: int | Mixture, after: int | Mixture) -> Tensor:
        """[1,I,H,W] -> [1,O,H',W'], bias added; an up layer's output still awaits its blur, and its bias: `blurred`.

        Args:
            x: input, channels last.
            before: the style or styles at the input's positions.
            after: the style or styles at the output's positions.
        """
        bias = None if self.convolution.up else self.bias
        if isinstance(before, int):
            return self.convolve(x, self.folded(before), bias)
        scales = self.scales[list(before.styles)]
        y = self.convolve(x * mixed(before.weights, scales).to(self.dtype), self.shared(), None)
        if self.convolution.demodulate:
            y = y.mul_(self.demodulation(after).to(self.dtype))
        return y if bias is None else y.add_(bias[:, None, None])

    def blurred(self, x: Tensor) -> Tensor:
        """[1,O,H,W] -> [1,O,H-2,W-2], bias added: what an up layer still awaits, in one pass."""
        return F.conv2d(x, self.blur, self.bias, groups=len(self.bias))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution itself, with a weight as `_laid_out` gives it."""
        if self.convolution.up:
            return F.conv_transpose2d(x, weight, stride=2, padding=1)
        return F.conv2d(x, weight, bias, padding=(0, 1) if self.pointwise else 0)

    def demodulation(self, styles: int | Mixture) -> Tensor:
        """demod(p) times the gain, [1,O,h,w]; [1,O,1,1] for one style.

        As the weights sum to 1, so do those of all pairs, and ε and the gain can be put into each pair's D.
        """
        if isinstance(styles, int):
            return self.pair(styles, styles).rsqrt()[None, :, None, None]
        pairs = list(combinations_with_replacement(range(len(styles.styles)), 2))
        energies = torch.stack([self.pair(styles.styles[j], styles.styles[k]) for j, k in pairs])
        weights = [styles.weights[j] * styles.weights[k] * (1 if j == k else 2) for j, k in pairs]
        return mixed(torch.stack(weights), energies).rsqrt_()

    def _pair(self, one: int, other: int) -> Tensor:
        """D of two styles, with ε, over the gain squared: [O]."""
        energy = products((self.scales[one] * self.scales[other])[None], self.convolution.energy())[0]
        return (energy + EPSILON) / self.gain**2

    def _folded(self, style: int) -> Tensor:
        weight = self.convolution.weight * self.convolution.gain * self.scales[style, :, None, None]
        factor = self.demodulation(style)[0, :, :, None] if self.convolution.demodulate else self.gain
        return self._laid_out(weight * factor)

    def _shared(self) -> Tensor:
        factor = 1.0 if self.convolution.demodulate else self.gain
        return self._laid_out(self.convolution.weight * (self.convolution.gain * factor))

    def _laid_out(self, weight: Tensor) -> Tensor:
        """A weight [O,I,k,k] as the convolution takes it.

        One of 1×1 is put into 1×3: with another number of threads, some processors round a 1×1 convolution differently.
        """
        weight = weight.transpose(0, 1).flip(2, 3) if self.convolution.up else weight
        weight = F.pad(weight, (1, 1)) if self.pointwise else weight
        return weight.to(self.dtype).contiguous(memory_format=torch.channels_last)


class Engine:
    """G_S and G_T for the styles of a world.

    Args:
        generator: the network.
        styles: all styles of the world.
        precision: one of PRECISIONS.
    """

    def __init__(self, generator: Generator, styles: Sequence[StyleVectors], precision: str = "float32"):
        texture = generator.texture
        self.config = generator.config
        self.full = next(generator.parameters()).dtype
        self.dtype = self.full if precision == "float32" else PRECISIONS[precision]
        z_gs = [style.z_g for style in styles]
        ws = list(zip(*(style.ws for style in styles), strict=True))
        self.structure = [styled(block, z_gs, GAIN, self.full) for block in generator.structure.blocks]
        self.texture = [styled(layer, w, GAIN, self.dtype) for layer, w in zip(texture.layers, ws[:-1], strict=True)]
        self.to_rgb = [styled(to_rgb, w, 1.0, self.dtype) for to_rgb, w in zip(texture.to_rgb, ws[2::2], strict=True)]
        self.noise_strengths = [strength * GAIN for strength in noise_strengths(texture)]

    def z_s(self, z_l: Tensor, coordinates: Tensor, styles: StyleMap) -> Tensor:
        """z_l [1,C,H,W] and coordinates [1,3,H,W] to z_S [1,C',H-24,W-24].

        Args:
            z_l: local latents of a window of cells.
            coordinates: at the same cells.
            styles: at the same cells, one position in a cell.
        """
        x, windows = z_l, (styles.rows, styles.columns)
        for block, layer in zip(self.structure, self.config.structure, strict=True):
            x = torch.cat([x, crop_to(coordinates, x)], dim=1).contiguous(memory_format=torch.channels_last)
            before = styles.at(*windows)
            windows = layer.forward(windows[0]), layer.forward(windows[1])
            x = F.leaky_relu_(block(x, before, styles.at(*windows)), LEAK)
        return x

    def picture(self, z_s: Tensor, z_n: Sequence[Tensor], rows: Window, columns: Window, styles: StyleMap) -> Tensor:
        """z_S and the noise [1,1,h_l,w_l] of each layer to the picture [1,3,h,w], about -1 to 1.

        Args:
            z_s: of a window of cells.
            z_n: noise at each layer's output.
            rows: of z_S, cells.
            columns: of z_S, cells.
            styles: at every pixel from the first of these cells to the last.
        """
        x, rgb, windows, step = z_s.to(self.dtype), None, (rows, columns), self.config.cell_px
        for index, (layer, shape) in enumerate(zip(self.texture, self.config.texture, strict=True)):
            before = styles.at(*windows, step)
            if shape.up:
                step //= 2
                unblurred = [(2 * low, 2 * high) for low, high in windows]
                x = layer.blurred(layer(x, before, styles.at(unblurred[0], unblurred[1], step)))
            windows = shape.forward(windows[0]), shape.forward(windows[1])
            here = styles.at(*windows, step)
            if not shape.up:
                x = layer(x, before, here)
            x = F.leaky_relu_(x.add_((z_n[index] * self.noise_strengths[index]).to(self.dtype)), LEAK)
            if not shape.up:
                new = self.to_rgb[index // 2](x, here, here).to(self.full)
                rgb = new if rgb is None else upsample_skip(rgb).add_(new)
        assert rgb is not None
        return rgb


def styled(module: Any, styles: Sequence[Tensor], gain: float, dtype: torch.dtype) -> StyledConvolution:
    """A block of G_S, a layer of G_T or a to-RGB for all styles."""
    return StyledConvolution(module.convolution, module.bias, styles, gain, dtype)


def noise_strengths(texture: Any) -> list[Tensor]:
    """Of each layer of G_T."""
    return [layer.noise_strength for layer in texture.layers]


def mixed(weights: Tensor, vectors: Tensor) -> Tensor:
    """Σ_k weights_k vectors_k, channels last: [K,h,w], [K,C] -> [1,C,h,w].

    Written out, because a matrix product rounds differently with another number of threads.
    """
    terms = (weight[:, :, None] * vector for weight, vector in zip(weights.to(vectors), vectors, strict=True))
    total = next(terms)
    for term in terms:
        total.add_(term)
    return total[None].permute(0, 3, 1, 2)
