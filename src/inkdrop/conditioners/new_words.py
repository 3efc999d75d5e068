"""Words that a trained text model learns later, each of several vectors.

B batch, L tokens, D width of a vector, V vectors of new words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Extended(nn.Module):
    """A table of vectors with further rows that are trained alone: numbers (B, L) to vectors (B, L, D).

    - `base`: the table.
    - `name`: the name of the further rows in the state.
    - `vectors`: the further rows (V, D), whose numbers follow those of the table.
    """

    def __init__(self, base: Any, name: str, vectors: Tensor):
        super().__init__()
        self.base, self.words, self.first = base, nn.ParameterDict({name: nn.Parameter(vectors)}), base.num_embeddings
        self.num_embeddings = self.first + len(vectors)

    @property
    def weight(self) -> Tensor:
        """The vectors of all rows."""
        (added,) = self.words.values()
        return torch.cat([self.base.weight, added])

    def forward(self, numbers: Tensor) -> Tensor:
        (added,) = self.words.values()
        known = self.base(numbers.clamp(max=self.first - 1))
        new = added[(numbers - self.first).clamp(min=0)]
        return torch.where((numbers >= self.first)[..., None], new.to(known.dtype), known)


def extended(
    table: Any, name: str, words: Mapping[str, Sequence[int] | None], num_vectors: int
) -> tuple[Extended, dict[str, list[int]]]:
    """Returns a table with rows for new words, and the numbers of each word.

    - `table`: the table of known words.
    - `name`: the name of the rows in the state.
    - `words`: the numbers of the known words whose mean each new word begins with; None is the mean of all words.
    - `num_vectors`: vectors of a word, which begin alike but for small noise.
    """
    weight = table.weight.detach()
    rows, numbers, first = [], {}, table.num_embeddings
    for place, (word, like) in enumerate(words.items()):
        mean = weight[list(like)].mean(0) if like else weight.mean(0)
        noise = weight.std() * torch.randn(num_vectors, weight.shape[1]).to(weight)
        rows.append(mean + 0.1 * noise * (num_vectors > 1))
        numbers[word] = [first + place * num_vectors + each for each in range(num_vectors)]
    return Extended(table, name, torch.cat(rows)), numbers
