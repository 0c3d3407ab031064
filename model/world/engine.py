"""The generator as used for rendering: one window at a time, without repeated work.

A style's modulation and demodulation are folded into the weights once, so that a layer is a plain convolution. Only
where a layer's window meets several styles is its input scaled pixel by pixel, by s(p) = Σ m_k(p) s_k, and its output
demodulated by demod(p)⁻² = Σ_{j≤k} m_j m_k D_jk + ε. For a single style both ways agree up to rounding.

The gain √2 of the activation is folded in too, since leaky ReLU commutes with positive factors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
"""Each layer keeps the folded weights of this many styles, those used last."""

SCALES_KEPT = 256
"""Each layer keeps its modulation by this many styles."""

PAIRS_KEPT = 64
"""Each layer keeps the demodulation vectors of this many pairs of styles."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions of the texture synthesizer's convolutions; everything else is float32."""


@dataclass(frozen=True, slots=True)
class StyleVectors:
    """The vectors of a style: z_g [1,z_g_dim] for G_S, and a w [1,w_dim] for each layer of G_T and the last to-RGB."""

    z_g: Tensor
    ws: Sequence[Tensor]


Vector = Callable[[int], Tensor]
"""Returns the vector [1,style_dim] of a style for one layer, by its number."""


class StyledWeights:
    """The weights of a modulated convolution for each of several styles.

    Args:
        convolution: The network's modulated convolution.
        styles: Returns the vector [1,style_dim] of a style, by its number.
        gain: The factor of the output; 1 or √2.
        dtype: The data type of the convolution.
    """

    def __init__(self, convolution: ModulatedConvolution, styles: Vector, gain: float, dtype: torch.dtype):
        self.convolution, self.gain, self.dtype = convolution, gain, dtype
        self.scale = lru_cache(maxsize=SCALES_KEPT)(partial(modulation, convolution, styles))
        self.pointwise = convolution.weight.shape[2] == 1

    def folded(self, style: int) -> Tensor:
        """Returns the weight with the modulation and demodulation of a style, and the gain."""
        weight = self.convolution.weight * self.convolution.gain * self.scale(style)[:, None, None]
        factor = self.pair(style, style).rsqrt()[:, None, None, None] if self.convolution.demodulate else self.gain
        return self._laid_out(weight * factor)

    def shared(self) -> Tensor:
        """Returns the weight without any style; the gain is in the demodulation, if there is one."""
        factor = 1.0 if self.convolution.demodulate else self.gain
        return self._laid_out(self.convolution.weight * (self.convolution.gain * factor))

    def pair(self, one: int, other: int) -> Tensor:
        """Returns D of two styles, including ε, divided by the squared gain: [O]."""
        energy = products((self.scale(one) * self.scale(other))[None], self.convolution.energy())[0]
        return (energy + EPSILON) / self.gain**2

    def _laid_out(self, weight: Tensor) -> Tensor:
        """Returns a weight [O,I,k,k] in the layout that the convolution uses.

        A 1×1 weight is embedded in 1×3: on some processors the rounding of 1×1 depends on the number of threads.
        """
        weight = weight.transpose(0, 1).flip(2, 3) if self.convolution.up else weight
        weight = F.pad(weight, (1, 1)) if self.pointwise else weight
        return weight.to(self.dtype).contiguous(memory_format=torch.channels_last)


class StyledConvolution:
    """A modulated convolution for each of several styles and for their mixtures.

    Args:
        convolution: The network's modulated convolution.
        bias: The bias [O].
        styles: Returns the vector [1,style_dim] of a style, by its number.
        gain: The factor of the output; 1 or √2.
        dtype: The data type of the convolution.
    """

    def __init__(
        self, convolution: ModulatedConvolution, bias: Tensor, styles: Vector, gain: float, dtype: torch.dtype
    ):
        self.convolution, self.dtype = convolution, dtype
        self.bias = (bias * gain).to(dtype)
        taps = self.bias.new_tensor([1.0, 2.0, 1.0])
        self.blur = (taps[:, None] * taps / 4).expand(len(bias), 1, 3, 3)
        # The weights are an object of their own, so that caches do not refer to their owner: a world that a job needs
        # no more, with all its weights, is then freed at once, not when the garbage collector comes by.
        weights = StyledWeights(convolution, styles, gain, dtype)
        self.scale, self.pointwise = weights.scale, weights.pointwise
        self.folded = lru_cache(maxsize=STYLES_KEPT)(weights.folded)
        self.shared = lru_cache(maxsize=1)(weights.shared)
        self.pair = lru_cache(maxsize=PAIRS_KEPT)(weights.pair)

    def __call__(self, x: Tensor, before: int | Mixture, after: int | Mixture) -> Tensor:
        """Maps [1,I,H,W] to [1,O,H',W'], bias added; for an up layer, call `blurred` next, which adds the bias.

        Args:
            x: The input, channels last.
            before: The style or styles at the input's positions.
            after: The style or styles at the output's positions.
        """
        bias = None if self.convolution.up else self.bias
        if isinstance(before, int):
            return self.convolve(x, self.folded(before), bias)
        scales = torch.stack([self.scale(style) for style in before.styles])
        y = self.convolve(x * mixed(before.weights, scales).to(self.dtype), self.shared(), None)
        if self.convolution.demodulate:
            y = y.mul_(self.demodulation(after).to(self.dtype))
        return y if bias is None else y.add_(bias[:, None, None])

    def blurred(self, x: Tensor) -> Tensor:
        """Maps [1,O,H,W] to [1,O,H-2,W-2]: applies the blur and the bias of an up layer in one pass."""
        return F.conv2d(x, self.blur, self.bias, groups=len(self.bias))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Applies the convolution, with a weight from `_laid_out`."""
        if self.convolution.up:
            return F.conv_transpose2d(x, weight, stride=2, padding=1)
        return F.conv2d(x, weight, bias, padding=(0, 1) if self.pointwise else 0)

    def demodulation(self, styles: int | Mixture) -> Tensor:
        """Returns demod(p) times the gain, [1,O,h,w]; [1,O,1,1] for one style.

        The weights sum to 1, and so do those of all pairs. So ε and the gain can be included in each pair's D.
        """
        if isinstance(styles, int):
            return self.pair(styles, styles).rsqrt()[None, :, None, None]
        pairs = list(combinations_with_replacement(range(len(styles.styles)), 2))
        energies = torch.stack([self.pair(styles.styles[j], styles.styles[k]) for j, k in pairs])
        weights = [styles.weights[j] * styles.weights[k] * (1 if j == k else 2) for j, k in pairs]
        return mixed(torch.stack(weights), energies).rsqrt_()


class Engine:
    """G_S and G_T for the styles of a world.

    Args:
        generator: The network.
        styles: Returns the vectors of a style of the world, by its number.
        precision: One of PRECISIONS.
    """

    def __init__(self, generator: Generator, styles: Callable[[int], StyleVectors], precision: str = "float32"):
        texture = generator.texture
        self.config = generator.config
        self.full = next(generator.parameters()).dtype
        self.dtype = self.full if precision == "float32" else PRECISIONS[precision]
        ws = [partial(w_of, styles, layer) for layer in range(len(texture.layers) + 1)]
        z_g = partial(z_g_of, styles)
        self.structure = [styled(block, z_g, GAIN, self.full) for block in generator.structure.blocks]
        self.texture = [styled(layer, w, GAIN, self.dtype) for layer, w in zip(texture.layers, ws[:-1], strict=True)]
        self.to_rgb = [styled(to_rgb, w, 1.0, self.dtype) for to_rgb, w in zip(texture.to_rgb, ws[2::2], strict=True)]
        self.noise_strengths = [strength * GAIN for strength in noise_strengths(texture)]

    def z_s(self, z_l: Tensor, coordinates: Tensor, styles: StyleMap) -> Tensor:
        """Maps z_l [1,C,H,W] and coordinates [1,3,H,W] to z_S [1,C',H-24,W-24].

        Args:
            z_l: The local latents of a window of cells.
            coordinates: The coordinates at the same cells.
            styles: The styles at the same cells, one position per cell.
        """
        x, windows = z_l, (styles.rows, styles.columns)
        for block, layer in zip(self.structure, self.config.structure, strict=True):
            x = torch.cat([x, crop_to(coordinates, x)], dim=1).contiguous(memory_format=torch.channels_last)
            before = styles.at(*windows)
            windows = layer.forward(windows[0]), layer.forward(windows[1])
            x = F.leaky_relu_(block(x, before, styles.at(*windows)), LEAK)
        return x

    def picture(self, z_s: Tensor, z_n: Sequence[Tensor], rows: Window, columns: Window, styles: StyleMap) -> Tensor:
        """Maps z_S and the noise [1,1,h_l,w_l] of each layer to the picture [1,3,h,w], about -1 to 1.

        Args:
            z_s: z_S of a window of cells.
            z_n: The noise at each layer's output.
            rows: The rows of z_S, in cells.
            columns: The columns of z_S, in cells.
            styles: The styles at every pixel from the first of these cells to the last.
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


def z_g_of(styles: Callable[[int], StyleVectors], number: int) -> Tensor:
    """Returns the vector of a style for G_S."""
    return styles(number).z_g


def w_of(styles: Callable[[int], StyleVectors], layer: int, number: int) -> Tensor:
    """Returns the vector of a style for a layer of G_T."""
    return styles(number).ws[layer]


def modulation(convolution: ModulatedConvolution, styles: Vector, number: int) -> Tensor:
    """Returns the factor of each input channel for a style: [I]."""
    return convolution.affine.exact(styles(number))[0]


def styled(module: Any, styles: Vector, gain: float, dtype: torch.dtype) -> StyledConvolution:
    """Returns a block of G_S, a layer of G_T or a to-RGB for all styles."""
    return StyledConvolution(module.convolution, module.bias, styles, gain, dtype)


def noise_strengths(texture: Any) -> list[Tensor]:
    """Returns the noise strength of each layer of G_T."""
    return [layer.noise_strength for layer in texture.layers]


def mixed(weights: Tensor, vectors: Tensor) -> Tensor:
    """Returns Σ_k weights_k vectors_k, channels last: [K,h,w], [K,C] -> [1,C,h,w].

    Written out, because a matrix product rounds differently with another number of threads.
    """
    terms = (weight[:, :, None] * vector for weight, vector in zip(weights.to(vectors), vectors, strict=True))
    total = next(terms)
    for term in terms:
        total.add_(term)
    return total[None].permute(0, 3, 1, 2)
