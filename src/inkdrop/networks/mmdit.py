"""The transformer of text and image, in any number of spatial dimensions.

B batch, C channels, * spatial sizes, N patches, W width, L tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias

import torch
from annotated_types import Ge, Gt, Len, Lt
from torch import Tensor, nn

from inkdrop.networks.dit import grid_of, modulated, patches_of
from inkdrop.networks.layers import Attend, check_doors, doors, scaled_dot_product, waves, zeroed
from inkdrop.networks.positions import MakePositions, SineCosine

MakeNorm: TypeAlias = Callable[[int], nn.Module]
_NUM_FREQUENCIES = 256  # of the time


class _Side(nn.Module):
    """The layers of a block on one of both sequences, of patches or of tokens (B, *, W); the identity at first.

    In the last block nothing reads the tokens any more, and their side only makes queries, keys and values.
    """

    def __init__(self, width: int, hidden: int, num_heads: int, dropout: float, make_norm: MakeNorm | None, ends: bool):
        super().__init__()
        self.num_heads = num_heads
        self.modulation = zeroed(nn.Linear(width, (2 if ends else 6) * width))
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q = make_norm(width // num_heads) if make_norm else None
        self.norm_k = make_norm(width // num_heads) if make_norm else None
        self.dropout = nn.Dropout(dropout)
        self.out = None if ends else nn.Linear(width, width)
        self.layers = None
        if not ends:
            self.layers = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def heads(self, h: Tensor, shift: Tensor, scale: Tensor) -> list[Tensor]:
        """Returns queries, keys and values (B, H, *, W / H)."""
        y = modulated(h, shift, scale)
        q, k, v = (layer(y).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        return [q, k, v]

    def changed(self, h: Tensor, attended: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Returns h after what it attended to and after its own layers, or h itself where the side ends."""
        if self.out is None or self.layers is None:
            return h
        _, _, gate, shift_2, scale_2, gate_2 = parts
        h = h + gate * self.dropout(self.out(attended))
        return h + gate_2 * self.dropout(self.layers(modulated(h, shift_2, scale_2)))


class _Block(nn.Module):
    """Patches and tokens, each with its own layers, attend together to both."""

    def __init__(self, attend: Attend, image: _Side, text: _Side):
        super().__init__()
        self.attend, self.is_cross = attend, False
        self.image: Any = image
        self.text: Any = text

    def forward(
        self,
        h: Tensor,
        tokens: Tensor,
        embedding: Tensor,
        mask: Tensor | None,
        rotate: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        ours, theirs = (
            side.modulation(embedding)[:, None].chunk(side.modulation.out_features // embedding.shape[1], dim=2)
            for side in (self.image, self.text)
        )
        q, k, v = self.image.heads(h, ours[0], ours[1])
        beside = self.text.heads(tokens, theirs[0], theirs[1])
        q, k, v = (torch.cat(pair, dim=2) for pair in zip((rotate(q), rotate(k), v), beside, strict=True))
        attended = self.attend(q, k, v, mask).transpose(1, 2).flatten(2)
        count = h.shape[1]
        h = self.image.changed(h, attended[:, :count], ours)
        return h, self.text.changed(tokens, attended[:, count:], theirs)


class MMDiT(nn.Module):
    """The transformer of text and image, as in Stable Diffusion 3, which is made for schedule=linear prediction=flow.

    `network(x (B, C, *), c_noise (B), vector, tokens, concat, mask) -> (B, out_channels, *)`. Initially the output is 0
    and each block is the identity.

    - `shape`: [C, *] of x.
    - `patch_size`: length of a patch along every axis.
    - `width`: features of a patch, and of a token within the network.
    - `depth`: number of blocks.
    - `num_heads`: attention heads, which share the features.
    - `token_dim`: width of the tokens, which are needed.
    - `mlp_ratio`: width of the layers on each patch and token, relative to `width`.
    - `dropout`: dropout of what a block adds.
    - `positions`: makes the encoding of positions from the patches per axis, the width, and the width of a head.
    - `out_channels`: channels of the output; None is C.
    - `vector_dim`, `concat_channels`: widths of the conditions, 0 for none.
    - `shown_channels`: channels that the denoiser adds to x, such as its last estimate.
    - `attend`: attention function of all layers.
    - `qk_norm`: makes the normalisations of queries and keys from the width of a head; None for none.

    Raises `ValueError` if the sizes do not fit each other, or for a condition that the network was not built for.
    Source: Esser et al. 2024, arXiv 2403.03206, section 4.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2)],
        patch_size: Annotated[int, Ge(1)],
        width: Annotated[int, Ge(4)],
        depth: Annotated[int, Ge(1)],
        num_heads: Annotated[int, Ge(1)],
        token_dim: Annotated[int, Ge(0)],
        mlp_ratio: Annotated[float, Gt(0)] = 4.0,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        positions: MakePositions = SineCosine,
        out_channels: Annotated[int, Ge(1)] | None = None,
        vector_dim: Annotated[int, Ge(0)] = 0,
        concat_channels: Annotated[int, Ge(0)] = 0,
        shown_channels: Annotated[int, Ge(0)] = 0,
        attend: Attend = scaled_dot_product,
        qk_norm: MakeNorm | None = None,
    ):
        super().__init__()
        in_channels, *sizes = shape
        if any(size % patch_size for size in sizes):
            raise ValueError(
                f"network.patch_size={patch_size} does not divide the sizes {sizes} of the data: change one of them"
            )
        if width % num_heads:
            raise ValueError(f"network.num_heads={num_heads} does not divide network.width={width}: change one of them")
        if not token_dim:
            raise ValueError(
                "network=mmdit needs tokens: choose a conditioner that makes them, such as conditioner=words, or "
                "network=dit"
            )
        self.patch_size, self.grid = patch_size, [size // patch_size for size in sizes]
        self.doors = doors(vector_dim, token_dim, concat_channels + shown_channels)
        pixels = patch_size ** len(sizes)
        self.patch = nn.Linear((in_channels + self.doors["concat"]) * pixels, width)
        self.positions = positions(self.grid, width, width // num_heads)
        self.tokens = nn.Linear(token_dim, width)
        self.time = _embedder(_NUM_FREQUENCIES, width)
        self.vector = _embedder(vector_dim, width) if vector_dim else None
        hidden = int(mlp_ratio * width)
        sizes_of_side = width, hidden, num_heads, dropout, qk_norm
        self.blocks: Any = nn.ModuleList(
            _Block(attend, _Side(*sizes_of_side, False), _Side(*sizes_of_side, i == depth - 1)) for i in range(depth)
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
    ) -> Tensor:
        check_doors(self.doors, vector=vector, tokens=tokens, concat=concat, mask=mask)
        embedding = self.time(waves(c_noise, _NUM_FREQUENCIES).to(x.dtype))
        if self.vector is not None:
            embedding = embedding + self.vector(vector)
        embedding = nn.functional.silu(embedding)
        h = self.positions(
            self.patch(patches_of(x if concat is None else torch.cat([x, concat], dim=1), self.patch_size))
        )
        beside = self.tokens(tokens)
        if mask is not None:  # each patch counts
            mask = torch.cat([mask.new_ones(len(h), h.shape[1]), mask], dim=1)[:, None, None, :]
        for block in self.blocks:
            h, beside = block(h, beside, embedding, mask, self.positions.rotate)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=2)
        return grid_of(self.out(modulated(h, shift, scale)), self.grid, self.patch_size)


def _embedder(dim: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))
