"""Columns with several values for an item, such as captions, of which training draws one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.randomness import Generators


class Choices(ABC):
    """A column with at least one value for each item; `column[items]` are the first ones, which held-out items have."""

    shape: Sequence[int]
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Tensor, /) -> Tensor:
        return self.chosen(items, torch.zeros_like(items))

    @property
    @abstractmethod
    def most(self) -> int:
        """The largest number of values of an item."""

    @abstractmethod
    def counts(self, items: Tensor) -> Tensor:
        """Returns the numbers (B) of values of these items (B)."""

    @abstractmethod
    def chosen(self, items: Tensor, numbers: Tensor) -> Tensor:
        """Returns value `numbers` (B), from 0 on, of each of these items (B)."""

    @abstractmethod
    def digest(self) -> str:
        """Returns a text that changes with the values."""


def drawn(name: str, column: Any, items: Tensor, generators: Generators) -> Tensor:
    """Returns the items (B) of a column of this name, one value of each at random where there are several."""
    if not isinstance(column, Choices) or column.most == 1:
        return column[items]
    return column.chosen(items, (generators.at("choice").at(name).uniform() * column.counts(items)).long())


def every_choice(column: Any, items: Tensor, number: int) -> Tensor:
    """Returns the items (B) of a column, value `number` of each where there are several, beginning anew after the last.

    Numbers from 0 to `most` thus give each value at least once.
    """
    return column.chosen(items, number % column.counts(items)) if isinstance(column, Choices) else column[items]
