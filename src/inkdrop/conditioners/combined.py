"""A conditioner of several conditions at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.codecs import Batches
from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.randomness import Generators

_JOINED = {"vector", "tokens", "concat", "mask"}


class Combined(Conditioner):
    """Combines conditioners: vectors are added, tokens and concats are concatenated, other doors are passed on.

    Training empties each part with the dropout of that part, and all parts together with probability `dropout`.

    - `parts`: the conditioners by name.
    - `dim`: the width of the vector, 0 for none.
    - `concat_channels`: the channels of the concat, 0 for none.
    - `dropout`: the probability with which training empties all parts together.
    - `token_dim`: the width of the tokens, 0 for none.

    Raises `ValueError` if the parts have another width or other channels, or if two parts read the same name or make
    the same door that cannot be joined.
    """

    def __init__(
        self,
        parts: dict[str, Conditioner],
        dim: Annotated[int, Ge(0)],
        concat_channels: Annotated[int, Ge(0)] = 0,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.0,
        token_dim: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__()
        self.parts: Mapping[str, Conditioner] = nn.ModuleDict(parts)  # type: ignore[assignment]
        self.dim, self.concat_channels, self.dropout, self.token_dim = dim, concat_channels, dropout, token_dim
        self.names = tuple(name for part in parts.values() for name in part.names)
        self.images = tuple(name for part in parts.values() for name in part.images)
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise ValueError(f"two parts of the conditioner read {twice[0]}: give one of them another name")
        for key, part in parts.items():
            for width, joined in (("dim", "vectors are added"), ("token_dim", "tokens are concatenated")):
                if getattr(part, width) not in (0, getattr(self, width)):
                    raise ValueError(
                        f"conditioner.parts.{key}.{width}={getattr(part, width)} differs from conditioner.{width}="
                        f"{getattr(self, width)}: {joined}, so make them equal"
                    )
        if (channels := sum(part.concat_channels for part in parts.values())) != concat_channels:
            raise ValueError(
                f"conditioner.concat_channels={concat_channels}, but its parts have {channels}: make them equal"
            )

    def fit(self, batches: Batches) -> None:
        for part in self.parts.values():
            part.fit(batches)

    @property
    def emptied(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts.values() for name in part.emptied)

    @property
    def dropouts(self) -> Mapping[str, float]:
        rates = {name: rate for part in self.parts.values() for name, rate in part.dropouts.items()}
        return {name: 1 - (1 - rate) * (1 - self.dropout) for name, rate in rates.items()}

    def empties(self, names: Collection[str]) -> bool:
        together = self.dropout > 0 and set(names) == set(self.names)
        alone = {name: rate for part in self.parts.values() for name, rate in part.dropouts.items()}
        return together or all(alone[name] > 0 for name in names)

    def dropped(self, generators: Generators) -> dict[str, Tensor]:
        dropped: dict[str, Tensor] = {}
        for key, part in self.parts.items():
            dropped |= part.dropped(generators.at(key))
        if self.dropout > 0:
            together = generators.uniform() < self.dropout
            dropped = {name: together | dropped.get(name, together) for name in self.names}
        return dropped

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        conditions = [part.condition(batch, dropped) for part in self.parts.values()]
        cond: dict[str, Tensor] = {}
        if vectors := [each["vector"] for each in conditions if "vector" in each]:
            cond["vector"] = torch.stack(vectors).sum(0)
        if concats := [each["concat"] for each in conditions if "concat" in each]:
            cond["concat"] = torch.cat(concats, dim=1)
        if sequences := [each for each in conditions if "tokens" in each]:
            cond["tokens"] = torch.cat([each["tokens"] for each in sequences], dim=1)
            if any("mask" in each for each in sequences):
                cond["mask"] = torch.cat([each.get("mask", _all(each["tokens"])) for each in sequences], dim=1)
        for each in conditions:
            for door in set(each) - _JOINED:
                if door in cond:
                    raise ValueError(f"two parts of the conditioner make {door}, which cannot be joined: leave one out")
                cond[door] = each[door]
        return cond

    def completed(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for part in self.parts.values():
            batch = part.completed(batch)
        return batch

    def vary(self, batch: Mapping[str, Tensor], generators: Generators) -> Mapping[str, Tensor]:
        for key, part in self.parts.items():
            batch = part.vary(batch, generators.at(key))
        return batch

    def example(self, count: int) -> dict[str, Tensor]:
        return {name: value for part in self.parts.values() for name, value in part.example(count).items()}

    def cut(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: mask for part in self.parts.values() for name, mask in part.cut(batch).items()}

    def token_words(self, batch: Mapping[str, Tensor]) -> list[list[str]]:
        parts = [part.token_words(batch) for part in self.parts.values() if part.token_dim]
        if not parts:
            return super().token_words(batch)
        return [[word for words in row for word in words] for row in zip(*parts, strict=True)]

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from the conditions of the parts, by name."""
        self.require_known(condition)
        batch: dict[str, Tensor] = {}
        for part in self.parts.values():
            batch |= part.request(seeds, **{name: condition[name] for name in part.names if name in condition})
        return batch


def _all(tokens: Tensor) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
