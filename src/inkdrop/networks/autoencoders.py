"""Encoders and decoders without times: of autoencoders, and as the players of a GAN.

B batch, C channels, * spatial sizes, Z channels of a code, N numbers of a vector.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Len
from torch import Tensor, nn

from inkdrop.networks.bottlenecks import Bottleneck
from inkdrop.networks.layers import CONVOLUTION, Attention, resolutions, scaled_dot_product


class _Residual(nn.Module):
    """Two convolutions and a shortcut: (B, C, *) -> (B, C', *)."""

    def __init__(self, in_channels: int, out_channels: int, dims: int, norm_groups: int, norm_eps: float):
        super().__init__()
        convolution = CONVOLUTION[dims]
        self.norm_1 = nn.GroupNorm(norm_groups, in_channels, norm_eps)
        self.conv_1 = convolution(in_channels, out_channels, 3, padding=1)
        self.norm_2 = nn.GroupNorm(norm_groups, out_channels, norm_eps)
        self.conv_2 = convolution(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_1(nn.functional.silu(self.norm_1(x)))
        return self.shortcut(x) + self.conv_2(nn.functional.silu(self.norm_2(h)))


class _Downsample(nn.Module):
    """A convolution of stride 2 that pads only at the far side: (B, C, *) -> (B, C, * / 2)."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.padding = (0, 1) * dims
        self.conv = CONVOLUTION[dims](channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x, self.padding))


def _middle(width: int, dims: int, norm_groups: int, norm_eps: float, attends: bool) -> nn.ModuleList:
    """The blocks at the lowest resolution, with attention between them if they attend."""
    blocks: list[nn.Module] = [_Residual(width, width, dims, norm_groups, norm_eps) for _ in range(2)]
    if attends:
        blocks.insert(1, Attention(width, None, norm_groups, norm_eps, scaled_dot_product))
    return nn.ModuleList(blocks)


def _called(blocks: Sequence[nn.Module], h: Tensor) -> Tensor:
    for block in blocks:
        h = block(h)
    return h


def _check_groups(widths: Sequence[int], norm_groups: int) -> None:
    if any(width % norm_groups for width in widths):
        raise ValueError(
            f"network.norm_groups={norm_groups} does not divide the channels {list(widths)}: change one of them"
        )


class ConvolutionalEncoder(nn.Module):
    """Convolutions from data (B, C, *) to a map (B, out_channels, * / 2^k), where k + 1 is the number of resolutions.

    With `out_channels=1` it is a discriminator, whose output are the logits of overlapping parts. The options are those
    of `ConvolutionalAutoencoder`.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        out_channels: Annotated[int, Ge(1)],
        base_channels: Annotated[int, Ge(1)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)],
        num_blocks: Annotated[int, Ge(1)] = 1,
        attention: bool = False,
        norm_groups: Annotated[int, Ge(1)] = 8,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
    ):
        super().__init__()
        channels, *sizes = shape
        dims = len(sizes)
        widths, _ = resolutions(sizes, base_channels, channel_multipliers, [], None)
        _check_groups(widths, norm_groups)
        self.widths, self.num_blocks, self.sizes = widths, num_blocks, sizes
        self.conv_in = CONVOLUTION[dims](channels, widths[0], 3, padding=1)
        blocks: list[nn.Module] = []
        width = widths[0]
        for i, target in enumerate(widths):
            for _ in range(num_blocks):
                blocks.append(_Residual(width, target, dims, norm_groups, norm_eps))
                width = target
            if i < len(widths) - 1:
                blocks.append(_Downsample(width, dims))
        self.blocks = nn.ModuleList(blocks)
        self.middle = _middle(width, dims, norm_groups, norm_eps, attention)
        self.norm_out = nn.GroupNorm(norm_groups, width, norm_eps)
        self.conv_out = CONVOLUTION[dims](width, out_channels, 3, padding=1)
        self.mix = CONVOLUTION[dims](out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = _called([self.conv_in, *self.blocks, *self.middle], x)
        return self.mix(self.conv_out(nn.functional.silu(self.norm_out(h))))


class ConvolutionalDecoder(nn.Module):
    """Convolutions from a map (B, latent_channels, * / 2^k) to data (B, C, *); the generator of a GAN of images.

    - `latent_shape`: the shape of the map.
    - `last`: the weights of the last layer.

    The options are those of `ConvolutionalAutoencoder`.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        latent_channels: Annotated[int, Ge(1)],
        base_channels: Annotated[int, Ge(1)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)],
        num_blocks: Annotated[int, Ge(1)] = 1,
        attention: bool = False,
        norm_groups: Annotated[int, Ge(1)] = 8,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
    ):
        super().__init__()
        channels, *sizes = shape
        dims = len(sizes)
        widths, _ = resolutions(sizes, base_channels, channel_multipliers, [], None)
        _check_groups(widths, norm_groups)
        levels = len(widths) - 1
        self.num_blocks = num_blocks
        self.latent_shape = (latent_channels, *(size >> levels for size in sizes))
        self.mix = CONVOLUTION[dims](latent_channels, latent_channels, 1)
        width = widths[-1]
        self.conv_in = CONVOLUTION[dims](latent_channels, width, 3, padding=1)
        self.middle = _middle(width, dims, norm_groups, norm_eps, attention)
        blocks: list[nn.Module] = []
        for i in reversed(range(len(widths))):
            for _ in range(num_blocks + 1):
                blocks.append(_Residual(width, widths[i], dims, norm_groups, norm_eps))
                width = widths[i]
            if i > 0:
                blocks += [nn.Upsample(scale_factor=2), CONVOLUTION[dims](width, width, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = nn.GroupNorm(norm_groups, width, norm_eps)
        self.conv_out = CONVOLUTION[dims](width, channels, 3, padding=1)

    @property
    def last(self) -> nn.Parameter:
        return self.conv_out.weight  # type: ignore[return-value]

    def forward(self, z: Tensor) -> Tensor:
        h = _called([self.mix, self.conv_in, *self.middle, *self.blocks], z)
        return self.conv_out(nn.functional.silu(self.norm_out(h)))


class ConvolutionalAutoencoder(nn.Module):
    """The autoencoder of latent diffusion for images, series and volumes: data (B, C, *) <-> codes (B, Z, * / 2^k).

    - `shape`: [C, *] of the data.
    - `bottleneck`: what the output of the encoder becomes; it has Z channels.
    - `base_channels`, `channel_multipliers`: resolution i has `channel_multipliers[i] * base_channels` channels.
    - `num_blocks`: residual blocks of each resolution, and one more in the decoder.
    - `attention`: whether the lowest resolution attends to itself.
    - `norm_groups`, `norm_eps`: groups of the normalisations, and what they add to the variance.

    Raises `ValueError` if the sizes do not fit each other. Source: Rombach et al. 2022, arXiv 2112.10752, section 3.1.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        bottleneck: Bottleneck,
        base_channels: Annotated[int, Ge(1)],
        channel_multipliers: Annotated[list[Annotated[int, Ge(1)]], Len(1)],
        num_blocks: Annotated[int, Ge(1)] = 1,
        attention: bool = True,
        norm_groups: Annotated[int, Ge(1)] = 8,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
    ):
        super().__init__()
        options = base_channels, channel_multipliers, num_blocks, attention, norm_groups, norm_eps
        self.encoder = ConvolutionalEncoder(shape, bottleneck.in_channels, *options)
        self.decoder = ConvolutionalDecoder(shape, bottleneck.channels, *options)
        self.bottleneck = bottleneck

    @classmethod
    def joined(
        cls, encoder: ConvolutionalEncoder, decoder: ConvolutionalDecoder, bottleneck: Bottleneck
    ) -> ConvolutionalAutoencoder:
        """Returns the autoencoder of these parts."""
        whole = cls.__new__(cls)
        nn.Module.__init__(whole)
        whole.encoder, whole.decoder, whole.bottleneck = encoder, decoder, bottleneck
        return whole


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    """Linear layers between these numbers, with SiLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.SiLU(), nn.Linear(before, after)]
    return layers[1:]


class PerceptronEncoder(nn.Module):
    """Linear layers from data (B, *) to a vector (B, out_channels); with `out_channels=1` it is a discriminator.

    - `shape`: the shape of the data.
    - `width`, `depth`: the width of the hidden layers and their number; without any it is a linear map.
    """

    def __init__(
        self,
        shape: list[Annotated[int, Ge(1)]],
        out_channels: Annotated[int, Ge(1)],
        width: Annotated[int, Ge(1)],
        depth: Annotated[int, Ge(0)],
    ):
        super().__init__()
        self.layers = nn.Sequential(*_layers([math.prod(shape), *[width] * depth, out_channels]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


class PerceptronDecoder(nn.Module):
    """Linear layers from a vector (B, latent_channels) to data (B, *); the generator of a GAN of points.

    - `latent_shape`: the shape of the vector.
    - `last`: the weights of the last layer.

    The options are those of `PerceptronEncoder`.
    """

    def __init__(
        self,
        shape: list[Annotated[int, Ge(1)]],
        latent_channels: Annotated[int, Ge(1)],
        width: Annotated[int, Ge(1)],
        depth: Annotated[int, Ge(0)],
    ):
        super().__init__()
        self.shape, self.latent_shape = tuple(shape), (latent_channels,)
        self.layers = nn.Sequential(*_layers([latent_channels, *[width] * depth, math.prod(shape)]))

    @property
    def last(self) -> nn.Parameter:
        return self.layers[-1].weight  # type: ignore[return-value]

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).unflatten(1, self.shape)


class PerceptronAutoencoder(nn.Module):
    """An autoencoder of linear layers: data (B, *) <-> codes (B, Z); without hidden layers it is linear.

    - `shape`: the shape of the data.
    - `bottleneck`: what the output of the encoder becomes; it has Z channels.
    - `width`, `depth`: the width of the hidden layers and their number.

    Source: Kingma and Welling 2014, arXiv 1312.6114, appendix C.
    """

    def __init__(
        self,
        shape: list[Annotated[int, Ge(1)]],
        bottleneck: Bottleneck,
        width: Annotated[int, Ge(1)] = 512,
        depth: Annotated[int, Ge(0)] = 2,
    ):
        super().__init__()
        self.encoder = PerceptronEncoder(shape, bottleneck.in_channels, width, depth)
        self.decoder = PerceptronDecoder(shape, bottleneck.channels, width, depth)
        self.bottleneck = bottleneck
