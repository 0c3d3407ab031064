"""The texture synthesizer G_T: StyleGAN2's synthesis network without any padding (paper, Section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.config import GeneratorConfig
from model.networks.layers import Linear, ModulatedConvolution, activate, blur, normalise, upsample_skip


class MappingNetwork(nn.Module):
    """Maps z_g to w: pixel norm, then fully connected layers at a hundredth of the learning rate (StyleGAN).

    Attributes:
        mean: The mean of w [1,w_dim], for truncation, once it is known. It belongs to finished weights: a checkpoint
            has it, a state dict does not.
    """

    mean: Tensor | None

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        inputs = [config.z_g_dim] + [config.w_dim] * (config.mapping_layers - 1)
        self.layers = nn.ModuleList(Linear(n, config.w_dim, lr_multiplier=0.01) for n in inputs)
        self.register_buffer("mean", None, persistent=False)

    def forward(self, z_g: Tensor) -> Tensor:
        """Maps [N,z_g_dim] to w [N,w_dim]."""
        x = normalise(z_g)
        for layer in self.layers:
            x = activate(layer(x))
        return x

    def exact(self, z_g: Tensor) -> Tensor:
        """Does the same in a way that does not depend on the number of threads."""
        x = normalise(z_g)
        for layer in self.layers:
            assert isinstance(layer, Linear)
            x = activate(layer.exact(x))
        return x


class TextureLayer(nn.Module):
    """A modulated 3×3 convolution, plain or up, followed by noise, bias and activation."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool):
        super().__init__()
        self.convolution = ModulatedConvolution(inputs, outputs, 3, w_dim, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, z_n: Tensor) -> Tensor:
        """Maps [N,I,n,m], [N,w_dim], noise [N,1,n',m'] to [N,O,n',m'] with n' = 2n - 3 (up) or n - 2 (plain)."""
        x = self.convolution(x, w)
        if self.convolution.up:
            x = blur(x)
        return activate(x + (self.noise_strength * z_n).to(x.dtype) + self.bias[:, None, None].to(x.dtype))


class ToRGB(nn.Module):
    """A modulated 1×1 convolution to three channels, without demodulation."""

    def __init__(self, inputs: int, w_dim: int):
        super().__init__()
        self.convolution = ModulatedConvolution(inputs, 3, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps [N,I,n,m], [N,w_dim] to [N,3,n,m]."""
        return self.convolution(x, w) + self.bias[:, None, None]


class TextureSynthesizer(nn.Module):
    """G_T: z_S of n cells gives a picture of 2^L·n - 5·(2^L - 1) pixels, by L pairs of (up, plain) with skips."""

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.layers = nn.ModuleList()
        self.to_rgb = nn.ModuleList()
        inputs = config.structure_channels
        for outputs in config.texture_channels:
            self.layers.append(TextureLayer(inputs, outputs, config.w_dim, up=True))
            self.layers.append(TextureLayer(outputs, outputs, config.w_dim, up=False))
            self.to_rgb.append(ToRGB(outputs, config.w_dim))
            inputs = outputs

    def forward(self, z_s: Tensor, ws: Sequence[Tensor], z_n: Sequence[Tensor]) -> Tensor:
        """Renders the picture.

        Args:
            z_s: z_S [N,structure_channels,n,m].
            ws: w [N,w_dim] of each of the 2L layers, and of the last to-RGB.
            z_n: The noise [N,1,n_l,m_l] of each layer, at its output's positions.

        Returns:
            The picture [N,3,H,W], about -1 to 1.
        """
        x, rgb = z_s, None
        for pair, to_rgb in enumerate(self.to_rgb):
            x = self.layers[2 * pair](x, ws[2 * pair], z_n[2 * pair])
            x = self.layers[2 * pair + 1](x, ws[2 * pair + 1], z_n[2 * pair + 1])
            new = to_rgb(x, ws[2 * pair + 2])
            rgb = new if rgb is None else upsample_skip(rgb) + new
        assert rgb is not None
        return rgb
