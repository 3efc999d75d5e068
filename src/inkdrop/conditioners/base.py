"""What every conditioner promises: it turns a description of samples into inputs of a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import Batches
from inkdrop.denoiser import Condition
from inkdrop.randomness import Generators


class Conditioner(nn.Module):
    """Computes some of `vector (B, D)`, `tokens (B, L, D)`, `concat (B, C, *)`, `mask (B, L)` for the network.

    It determines the condition, the dropout of the condition in training, and the null condition.

    - `names`: the keys that it reads from a raw batch. Each of them can be emptied alone.
    - `dim`: the width D of its vector, 0 for none.
    - `concat_channels`: the C of its concat, 0 for none.
    - `token_dim`: the width D of its tokens, 0 for none.
    - `images`: those of `names` that are images (B, C, *), which a cascade takes from the stage before.
    """

    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    dim: int = 0
    concat_channels: int = 0
    token_dim: int = 0

    @property
    def emptied(self) -> tuple[str, ...]:
        """Those of `names` that classifier-free guidance empties unless it names others."""
        return self.names

    @property
    def dropouts(self) -> Mapping[str, float]:
        """The probability with which training empties each of `names`; the null value of 0 is untrained."""
        return dict.fromkeys(self.names, 0.0)

    def empties(self, names: Collection[str]) -> bool:
        """Returns whether training sometimes empties these conditions and keeps the others."""
        return all(self.dropouts[name] > 0 for name in names)

    def fit(self, batches: Batches) -> None:
        """Computes statistics of the training data; most conditioners have none."""

    def forward(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Condition:
        """Returns the condition of a raw batch; if generators are given, it is emptied at random as in training.

        Raises `ValueError` if the batch lacks one of `names`.
        """
        batch = self.completed(batch)
        if missing := [name for name in self.names if name not in batch]:
            raise ValueError(
                f"the data have no {missing[0]}, which the conditioner reads; available: {', '.join(batch)}"
            )
        if generators is None:
            return self.condition(batch, {})
        return self.condition(self.vary(batch, generators), self.dropped(generators))

    def completed(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the raw batch with values for conditions that may be left out; by default there are none."""
        return batch

    def vary(self, batch: Mapping[str, Tensor], generators: Generators) -> Mapping[str, Tensor]:
        """Returns the raw batch as training sees it, such as with noise added to an image; by default unchanged."""
        return batch

    def example(self, count: int) -> dict[str, Tensor]:
        """Returns a raw batch of any valid condition, by which a model is checked without a user's words."""
        return self.request(range(count))

    def cut(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns by name which texts (B), bool, of a raw batch are longer than what the conditioner reads of them."""
        return {}

    def token_words(self, batch: Mapping[str, Tensor]) -> list[list[str]]:
        """Returns the word that each token of a raw batch stands for, and "" for a token that stands for none.

        Raises `ValueError` if the tokens are not words.
        """
        raise ValueError(f"the model has no tokens of words, but {type(self).__name__}: train with conditioner=words")

    def null(self, batch: Mapping[str, Tensor], names: Collection[str] | None = None) -> Condition:
        """Returns the null condition of a raw batch, with all conditions or only those of these names emptied.

        Raises `ValueError` for names that the conditioner does not have.
        """
        if unknown := sorted(set(names or ()) - set(self.names)):
            available = ", ".join(self.names) or "none"
            raise ValueError(f"{unknown[0]} is not a condition of this model: available: {available}")
        chosen = self.names if names is None else names
        batch = self.completed(batch)
        return self.condition(
            batch, {name: torch.ones(len(batch[name]), dtype=torch.bool, device=batch[name].device) for name in chosen}
        )

    @abstractmethod
    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        """Returns the condition of a raw batch; `dropped[name]` (B), bool, marks samples without this condition."""

    def dropped(self, generators: Generators) -> dict[str, Tensor]:
        """Draws which samples have which condition emptied: (B), bool, by name."""
        rates = {name: rate for name, rate in self.dropouts.items() if rate > 0}
        if not rates:
            return {}
        draw = generators.uniform()
        return {name: draw < rate for name, rate in rates.items()}

    @abstractmethod
    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch for samples with these seeds from the conditions that a user names.

        Raises `ValueError` for unknown conditions, and if a required one is missing.
        """

    def require_known(self, condition: Mapping[str, Any]) -> None:
        """Raises `ValueError` for conditions that are not in `names`."""
        if unknown := sorted(set(condition) - set(self.names)):
            takes = " and ".join(f"condition.{name}" for name in self.names)
            raise ValueError(f"condition.{unknown[0]} is unknown: this model takes {takes or 'no condition'}")


class Unconditional(Conditioner):
    """A conditioner of models without a condition."""

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        return {}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        self.require_known(condition)
        return {}
