"""The diffusion transformer, in any number of spatial dimensions.

B batch, C channels, * spatial sizes, N patches, W width, L tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.layers import Attend, check_doors, doors, scaled_dot_product, sinusoidal, zeroed
from inkdrop.networks.positions import MakePositions, SineCosine

# Sines and cosines of the time. Their rates are those of DDPM, exp(-i ln(1e4) / 127), as in diffusers; the code of the
# authors has 128 in place of 127.
_NUM_FREQUENCIES = 256


def patches_of(x: Tensor, size: int) -> Tensor:
    """Returns the patches (B, N, C size^axes) of x (B, C, *).

    A linear layer on them is a convolution that steps from patch to patch.
    """
    axes = x.dim() - 2
    x = x.reshape(*x.shape[:2], *(part for length in x.shape[2:] for part in (length // size, size)))
    return x.permute(0, *range(2, x.dim(), 2), 1, *range(3, x.dim(), 2)).flatten(1, axes).flatten(2)


def grid_of(patches: Tensor, grid: Sequence[int], size: int) -> Tensor:
    """Returns x (B, C, *) of its patches (B, N, C size^axes), the inverse of `patches_of`."""
    axes = len(grid)
    x = patches.unflatten(2, (-1, *(size,) * axes)).unflatten(1, grid)
    x = x.permute(0, axes + 1, *(axis for i in range(1, axes + 1) for axis in (i, axes + 1 + i)))
    return x.reshape(*x.shape[:2], *(size * length for length in grid))


def modulated(h: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 0.0) -> Tensor:
    """Returns h (B, N, W) normalised over its features, then scaled by `1 + scale` and shifted."""
    return nn.functional.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift


class _Attention(nn.Module):
    """Attention from each of h (B, N, W) to each of h, or of tokens (B, L, token_dim) if `token_dim` is not 0."""

    def __init__(self, width: int, num_heads: int, attend: Attend, token_dim: int = 0):
        super().__init__()
        self.num_heads, self.attend, self.is_cross = num_heads, attend, token_dim > 0
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(token_dim or width, width)
        self.v = nn.Linear(token_dim or width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self, h: Tensor, keys: Tensor, mask: Tensor | None = None, rotate: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        q, k, v = (
            layer(y).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, y in ((self.q, h), (self.k, keys), (self.v, keys))
        )
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        attended = self.attend(q, k, v, None if mask is None else mask[:, None, None, :])
        return self.out(attended.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    """Attention, attention to the tokens, and two layers on each patch, with shortcuts; the identity at first.

    The embedding shifts and scales the inputs of the first and the last, and gates their outputs (adaLN-zero).
    """

    def __init__(self, width: int, hidden: int, num_heads: int, dropout: float, attend: Attend, token_dim: int):
        super().__init__()
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.attention = _Attention(width, num_heads, attend)
        self.cross_attention = _Attention(width, num_heads, attend, token_dim) if token_dim else None
        if self.cross_attention is not None:
            zeroed(self.cross_attention.out)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        h: Tensor,
        embedding: Tensor,
        tokens: Tensor | None,
        mask: Tensor | None,
        rotate: Callable[[Tensor], Tensor],
    ) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(embedding)[:, None].chunk(6, dim=2)
        y = modulated(h, shift, scale)
        h = h + gate * self.dropout(self.attention(y, y, rotate=rotate))
        if self.cross_attention is not None:
            h = h + self.dropout(self.cross_attention(modulated(h), tokens, mask))
        return h + gate_2 * self.dropout(self.layers(modulated(h, shift_2, scale_2)))


class DiT(nn.Module):
    """The diffusion transformer, for data on a grid of any number of dimensions; it needs longer training than a UNet.

    `network(x (B, C, *), c_noise (B), vector, tokens, concat, mask, residuals) -> (B, out_channels, *)`. Initially the
    output is 0 and each block is the identity. `residuals` (B, N, W) are added to the outputs of the first blocks.

    - `shape`: [C, *] of x.
    - `patch_size`: length of a patch along every axis.
    - `width`: features of a patch.
    - `depth`: number of blocks.
    - `num_heads`: attention heads, which share the features.
    - `mlp_ratio`: width of the layers on each patch, relative to `width`.
    - `dropout`: dropout of what a block adds.
    - `positions`: makes the encoding of positions from the patches per axis, the width, and the width of a head.
    - `out_channels`: channels of the output; None is C.
    - `vector_dim`, `token_dim`, `concat_channels`: widths of the conditions, 0 for none. A vector as wide as the
      network is added to the embedding of the time without a layer, as the published label is.
    - `shown_channels`: channels that the denoiser adds to x, such as its last estimate.
    - `attend`: attention function of all layers.

    Raises `ValueError` if the sizes do not fit each other, or for a condition that the network was not built for.
    Sources: Peebles and Xie 2023, arXiv 2212.09748, section 3.2;
    Chen et al. 2023, arXiv 2310.00426, section 2.3 (attention to tokens).
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2)],
        patch_size: Annotated[int, Ge(1)],
        width: Annotated[int, Ge(4)],
        depth: Annotated[int, Ge(1)],
        num_heads: Annotated[int, Ge(1)],
        mlp_ratio: Annotated[float, Gt(0)] = 4.0,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        positions: MakePositions = SineCosine,
        out_channels: Annotated[int, Ge(1)] | None = None,
        vector_dim: Annotated[int, Ge(0)] = 0,
        token_dim: Annotated[int, Ge(0)] = 0,
        concat_channels: Annotated[int, Ge(0)] = 0,
        shown_channels: Annotated[int, Ge(0)] = 0,
        attend: Attend = scaled_dot_product,
    ):
        super().__init__()
        in_channels, *sizes = shape
        if any(size % patch_size for size in sizes):
            raise ValueError(
                f"network.patch_size={patch_size} does not divide the sizes {sizes} of the data: change one of them"
            )
        if width % num_heads:
            raise ValueError(f"network.num_heads={num_heads} does not divide network.width={width}: change one of them")
        self.feature_axis = -1
        self.patch_size, self.grid = patch_size, [size // patch_size for size in sizes]
        self.doors = doors(vector_dim, token_dim, concat_channels + shown_channels)
        pixels = patch_size ** len(sizes)
        self.patch = nn.Linear((in_channels + self.doors["concat"]) * pixels, width)
        self.positions = positions(self.grid, width, width // num_heads)
        self.time = nn.Sequential(nn.Linear(_NUM_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.vector = nn.Identity() if vector_dim in (0, width) else nn.Linear(vector_dim, width)
        hidden = int(mlp_ratio * width)
        self.blocks: Any = nn.ModuleList(
            _Block(width, hidden, num_heads, dropout, attend, token_dim) for _ in range(depth)
        )
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.out = zeroed(nn.Linear(width, (out_channels or in_channels) * pixels))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        concat: Tensor | None = None,
        mask: Tensor | None = None,
        residuals: Sequence[Tensor] | None = None,
    ) -> Tensor:
        h, embedding = self._enter(x, c_noise, vector, tokens, concat, mask)
        for number, block in enumerate(self.blocks):
            h = block(h, embedding, tokens, mask, self.positions.rotate)
            if residuals is not None and number < len(residuals):
                h = h + residuals[number]
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=2)
        return grid_of(self.out(modulated(h, shift, scale)), self.grid, self.patch_size)

    def _enter(
        self,
        x: Tensor,
        c_noise: Tensor,
        vector: Tensor | None,
        tokens: Tensor | None,
        concat: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The patches (B, N, W) with their positions, and the embedding (B, W)."""
        check_doors(self.doors, vector=vector, tokens=tokens, concat=concat, mask=mask)
        embedding = self.time(sinusoidal(c_noise, _NUM_FREQUENCIES).to(x.dtype))
        if vector is not None:
            embedding = embedding + self.vector(vector)
        h = self.patch(patches_of(x if concat is None else torch.cat([x, concat], dim=1), self.patch_size))
        return self.positions(h), nn.functional.silu(embedding)

    def encode(
        self,
        x: Tensor,
        c_noise: Tensor,
        vector: Tensor | None = None,
        tokens: Tensor | None = None,
        concat: Tensor | None = None,
        mask: Tensor | None = None,
        hint: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Runs the first half of the blocks: the last features (B, N, W), those before, and the embedding (B, W).

        `hint` (B, W, *), of the sizes of the grid of patches, is added to the patches.
        """
        h, embedding = self._enter(x, c_noise, vector, tokens, concat, mask)
        h = h if hint is None else h + hint.flatten(2).transpose(1, 2)
        features = []
        for block in self.blocks[: (len(self.blocks) + 1) // 2]:
            h = block(h, embedding, tokens, mask, self.positions.rotate)
            features.append(h)
        return h, features[:-1], embedding
