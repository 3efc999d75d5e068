"""A chain of three letters whose law is known, its exact denoiser, and the codec of its words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import Codec
from inkdrop.randomness import Generators

LETTERS, LENGTH, MASK = 3, 4, 3
FIRST = torch.tensor([0.5, 0.3, 0.2]).double()
NEXT = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.1, 0.6]]).double()
WORDS = torch.tensor(list(itertools.product(range(LETTERS), repeat=LENGTH)))  # (81, 4)
LAW = FIRST[WORDS[:, 0]] * torch.stack([NEXT[WORDS[:, i], WORDS[:, i + 1]] for i in range(LENGTH - 1)]).prod(0)
ENTROPY = float(-(LAW * LAW.log()).sum())


def one_hot(letters: Tensor) -> Tensor:
    return nn.functional.one_hot(letters, LETTERS + 1).movedim(-1, 1).double()


class Letters(Codec):
    """Letters (B, L) as categories (B, 4, L), the last of which is the mask."""

    def shape(self, raw: Any) -> list[int]:
        return [LETTERS + 1, *raw]

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return one_hot(batch["x"])

    def reconstruct(self, x: Tensor) -> Tensor:
        return x.argmax(1)

    def lengths(self, batch: Mapping[str, Tensor]) -> Tensor:
        return torch.full((len(batch["x"]),), LENGTH)


class Exact(nn.Module):
    """The probabilities of each letter given those that are not masked."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        shown = x.argmax(1)  # (B, L)
        fits = ((shown[:, None] == WORDS) | (shown[:, None] == MASK)).all(2).double() * LAW  # (B, 81)
        weights = fits / fits.sum(1, keepdim=True)
        return torch.einsum("bw,wcl->bcl", weights, one_hot(WORDS))
