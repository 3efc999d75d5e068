"""Filters between resolutions, and modules that lead the input to lower ones.

B batch, C channels, * spatial sizes, K taps of the filter along each dimension.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from inkdrop.networks.layers import CONVOLUTION, convolution, initialised

_FILTER = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}
_SPREAD = {
    1: nn.functional.conv_transpose1d,
    2: nn.functional.conv_transpose2d,
    3: nn.functional.conv_transpose3d,
}


class Downsample(nn.Module):
    """Filters x (B, C, *) along each dimension and halves it, (B, C, * / 2).

    y_i = sum_k taps_k x_(2 i + k + 1 - K / 2) along each dimension. The K taps are scaled to the sum 1, and x is 0
    beyond its border. Raises `ValueError` if K is odd.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float], dims: int):
        super().__init__()
        self.register_buffer("kernel", _kernel(taps, dims), persistent=False)
        self.filter, self.padding = _FILTER[dims], len(taps) // 2 - 1

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(x, _each(self.kernel, x), stride=2, padding=self.padding, groups=x.shape[1])


class Upsample(nn.Module):
    """The transpose of `Downsample` times 2 per dimension: (B, C, *) -> (B, C, 2 *)."""

    kernel: Tensor

    def __init__(self, taps: Sequence[float], dims: int):
        super().__init__()
        self.register_buffer("kernel", 2**dims * _kernel(taps, dims), persistent=False)
        self.spread, self.padding = _SPREAD[dims], len(taps) // 2 - 1

    def forward(self, x: Tensor) -> Tensor:
        return self.spread(x, _each(self.kernel, x), stride=2, padding=self.padding, groups=x.shape[1])


class SkipInput(nn.Module):
    """A pyramid of inputs: the input, halved for each resolution, is added to the features by a 1 x 1 convolution.

    `(pyramid (B, in_channels, *), h (B, out_channels, * / 2)) -> pyramid (B, channels, * / 2), h`.
    """

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[float], dims: int):
        super().__init__()
        self.channels = in_channels
        self.downsample = Downsample(taps, dims)
        self.conv = convolution(in_channels, out_channels, 1, dims)

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.downsample(pyramid)
        return pyramid, h + self.conv(pyramid)


class ResidualInput(nn.Module):
    """A residual pyramid: its state, filtered and halved by a 3 x 3 convolution, is added to the features.

    The sum is the next state.

    `(pyramid (B, in_channels, *), h (B, out_channels, * / 2)) -> pyramid (B, channels, * / 2), h`.
    """

    kernel: Tensor

    def __init__(self, in_channels: int, out_channels: int, taps: Sequence[float], dims: int):
        super().__init__()
        self.channels = out_channels
        self.register_buffer("kernel", _kernel(taps, dims), persistent=False)
        self.filter, self.padding = _FILTER[dims], len(taps) // 2
        self.conv = initialised(CONVOLUTION[dims](in_channels, out_channels, 3, stride=2))

    def forward(self, pyramid: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        smooth = self.filter(pyramid, _each(self.kernel, pyramid), padding=self.padding, groups=pyramid.shape[1])
        h = (h + self.conv(smooth)) * math.sqrt(0.5)
        return h, h


def _kernel(taps: Sequence[float], dims: int) -> Tensor:
    """The filter with these taps along each dimension, (1, 1, K, ...), with the sum 1."""
    if len(taps) % 2 or not sum(taps):
        raise ValueError(f"network.resample={list(taps)} must be an even number of taps whose sum is not 0")
    line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
    return functools.reduce(lambda kernel, line: kernel[..., None] * line, [line] * dims)[None, None]


def _each(kernel: Tensor, x: Tensor) -> Tensor:
    """The kernel once for each channel of x."""
    return kernel.to(x.dtype).expand(x.shape[1], *kernel.shape[1:])
