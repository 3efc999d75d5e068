"""From what a user or a data set says about a sample to what a network is told."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.denoiser import Condition
from inkdrop.randomness import Generators


class Conditioner(nn.Module):
    """Makes some of `vector (B, D)`, `tokens (B, L, D)`, `concat (B, C, *)`, `mask (B, L)` for the network.

    The condition, its dropout in training and its null value come from this one place. `names` are what it reads of a
    raw batch, each of which can be emptied alone. `dim` is the width D of its vector and `concat_channels` the C of its
    concat, 0 for none.
    """

    names: tuple[str, ...] = ()
    dim: int = 0
    concat_channels: int = 0

    @property
    def dropouts(self) -> Mapping[str, float]:
        """How often training empties each of `names`: what is never emptied has no null value that means anything."""
        return dict.fromkeys(self.names, 0.0)

    def empties(self, names: Collection[str]) -> bool:
        """Whether training ever empties these and keeps the others."""
        return all(self.dropouts[name] > 0 for name in names)

    def fit(self, column: Callable[[str], Iterable[Tensor]]) -> None:
        """Learns statistics of raw training data, of which `column(name)` gives batches (B, *); most have none."""

    def forward(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Condition:
        """The condition of a raw batch; with generators some are emptied, sample by sample, as training wants it.

        `ValueError` for a batch without one of `names`.
        """
        if missing := [name for name in self.names if name not in batch]:
            raise ValueError(f"the data have no {missing[0]}, which conditioner reads: there are {', '.join(batch)}")
        return self.condition(batch, {} if generators is None else self.dropped(generators))

    def null(self, batch: Mapping[str, Tensor], names: Collection[str] | None = None) -> Condition:
        """The condition of a raw batch emptied, or only what has these names; `ValueError` for names it has not."""
        if unknown := sorted(set(names or ()) - set(self.names)):
            raise ValueError(f"{unknown[0]} is no condition of this model: it has {', '.join(self.names) or 'none'}")
        chosen = self.names if names is None else names
        return self.condition(
            batch, {name: torch.ones(len(batch[name]), dtype=torch.bool, device=batch[name].device) for name in chosen}
        )

    @abstractmethod
    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        """The condition of a raw batch in which the samples of `dropped[name]` (B), bool, have no such condition."""

    def dropped(self, generators: Generators) -> dict[str, Tensor]:
        """Which samples are to have which condition emptied: (B), bool, by name."""
        draw = generators.uniform()
        return {name: draw < rate for name, rate in self.dropouts.items() if rate > 0}

    @abstractmethod
    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """A raw batch for samples with these seeds from a user's words.

        `ValueError` for words it does not know, and without words it cannot do without.
        """

    def require_known(self, condition: Mapping[str, Any]) -> None:
        """`ValueError` for words that are none of `names`."""
        if unknown := sorted(set(condition) - set(self.names)):
            takes = " and ".join(f"condition.{name}" for name in self.names)
            raise ValueError(f"condition.{unknown[0]} is unknown: this model takes {takes or 'no condition'}")


class Unconditional(Conditioner):
    """No condition."""

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        return {}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        self.require_known(condition)
        return {}
