"""The layers of both synthesizers and the discriminator (StyleGAN2, with equalised learning rates)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.2
GAIN = math.sqrt(2.0)
EPSILON = 1e-8


def activate(x: Tensor) -> Tensor:
    """Applies a leaky ReLU with slope 0.2, scaled by √2 to keep the variance."""
    return F.leaky_relu(x, LEAK) * GAIN


def normalise(x: Tensor) -> Tensor:
    """Applies pixel norm: scales each vector of [N,C] to a root mean square of 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def blur(x: Tensor) -> Tensor:
    """Applies [1,2,1]⊗[1,2,1]/4 without padding: [N,C,H,W] -> [N,C,H-2,W-2]. Its sum is 4: inputs alternate with 0."""
    kernel = x.new_tensor([1.0, 2.0, 1.0])
    weight = (kernel[:, None] * kernel[None, :] / 4).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, weight, groups=x.shape[1])


def smooth_up(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Applies StyleGAN2's blur after an up convolution, [1,3,3,1]⊗[1,3,3,1]/16: [N,C,H,W] -> [N,C,H-3,W-3]."""
    kernel = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / 4
    weight = (kernel[:, None] * kernel[None, :]).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, weight, bias, groups=x.shape[1])


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Applies a convolution without padding: [N,I,H,W], [O,I,k,k] -> [N,O,H-k+1,W-k+1]."""
    return F.conv2d(x, weight)


def convolve_up(x: Tensor, weight: Tensor) -> Tensor:
    """Applies a transposed 3×3 convolution with stride 2, less its incomplete border: [N,I,H,W] -> [N,O,2H-1,2W-1]."""
    return F.conv_transpose2d(x, weight.transpose(0, 1).flip(2, 3), stride=2, padding=1)


def upsample_skip(rgb: Tensor) -> Tensor:
    """Upsamples bilinearly by 2, [N,3,n,m] -> [N,3,2n-1,2m-1], and drops the border that a pair of layers loses."""
    return halfway(halfway(rgb, 2), 3)[:, :, 2:-1, 2:-1]


def halfway(x: Tensor, dim: int) -> Tensor:
    """Inserts the mean of each two neighbours between them: n values become 2n - 2, the last of which is a mean.

    Written out, because torch's interpolation rounds differently with another number of threads.
    """
    n = x.shape[dim] - 1
    left = x.narrow(dim, 0, n)
    return torch.stack([left, (left + x.narrow(dim, 1, n)) / 2], dim=dim + 1).flatten(dim, dim + 1)


def products(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Computes inner products [N,O] of [N,I] and [O,I] in float64: matrix products vary with the number of threads."""
    return torch.stack([(matrix.double() * vector.double()).sum(dim=1) for vector in vectors]).to(matrix)


def random_weight(*shape: int, divisor: float = 1.0) -> Tensor:
    """Returns a weight's random start: normally distributed values over `divisor`.

    On the meta device it has no values. They are not asked for there, because torch then imports its compiler, which
    takes longer than loading a checkpoint does.
    """
    weight = torch.empty(shape)
    return weight if weight.is_meta else weight.normal_().div_(divisor)


class Linear(nn.Module):
    """A fully connected layer with equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, lr_multiplier: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(random_weight(outputs, inputs, divisor=lr_multiplier))
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,inputs] to [N,outputs]."""
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)

    def exact(self, x: Tensor) -> Tensor:
        """Does the same, rounded once from float64, so that the result does not depend on the number of threads."""
        return products(x, self.weight * self.weight_gain) + self.bias * self.bias_gain


class Convolution(nn.Module):
    """A plain convolution with equalised learning rate and, by default, a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(random_weight(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N,inputs,H,W] to [N,outputs,H',W']."""
        return F.conv2d(x, self.weight * self.gain, self.bias, self.stride, self.padding)


class ModulatedConvolution(nn.Module):
    """A convolution without padding whose input channels a style scales (StyleGAN2, Section 2.2).

    Each output channel is then scaled back to unit variance (demodulation). Both scalings are applied to the
    activations, so that one dense convolution serves a batch of styles.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style_dim: int, up: bool = False, demodulate: bool = True
    ):
        super().__init__()
        self.weight = nn.Parameter(random_weight(outputs, inputs, kernel, kernel))
        self.affine = Linear(style_dim, inputs, bias=1.0)
        self.gain = 1 / math.sqrt(inputs * kernel * kernel)
        self.up, self.demodulate = up, demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps [N,I,H,W], [N,style_dim] to [N,O,H',W']; the output of an up layer is not blurred yet."""
        scale = self.affine(style)  # [N,I]
        weight = self.weight * self.gain
        y = (convolve_up if self.up else convolve)(x * scale[:, :, None, None].to(x.dtype), weight)
        if self.demodulate:
            y = y * self.demodulation(scale)[:, :, None, None].to(y.dtype)
        return y

    def demodulation(self, scale: Tensor) -> Tensor:
        """Returns 1/√(Σ (w·s)² + ε) of each output channel: [N,I] -> [N,O]."""
        return torch.rsqrt(scale.square() @ self.energy().T + EPSILON)

    def energy(self) -> Tensor:
        """Returns what each input channel adds to each output channel's variance, Σ w² over the kernel: [O,I]."""
        return (self.weight * self.gain).square().sum(dim=(2, 3))
