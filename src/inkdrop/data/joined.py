"""Columns of several data sets one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from inkdrop.data.choices import Choices
from inkdrop.data.loaders import Column, content


class Joined:
    """Columns one after another, without a copy."""

    def __init__(self, columns: Sequence[Column]):
        self.columns = columns
        self.ends = torch.tensor([len(column) for column in columns]).cumsum(0)
        self.shape: Sequence[int] = (int(self.ends[-1]), *columns[0].shape[1:])
        self.dtype = columns[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Tensor, /) -> Tensor:
        out = torch.empty(len(items), *self.shape[1:], dtype=self.dtype)
        for chosen, column, within in self.parts(items):
            out[chosen] = column[within]
        return out

    def parts(self, items: Tensor) -> Iterator[tuple[Tensor, Column, Tensor]]:
        """Yields each column that has some of the items (B), a mask (B) of these, and their numbers in the column."""
        places = torch.bucketize(items, self.ends, right=True)
        for place in places.unique().tolist():
            column, chosen = self.columns[place], places == place
            yield chosen, column, items[chosen] - (self.ends[place] - len(column))

    def digest(self) -> str:
        """Returns the SHA-256 of the columns."""
        digest = hashlib.sha256()
        for column in self.columns:
            digest.update(content(column))
        return digest.hexdigest()


class JoinedTexts(Choices):
    """Columns of texts (N, L) one after another, where L is the largest."""

    dtype = torch.uint8

    def __init__(self, columns: Sequence[Column]):
        self._columns = Joined(columns)
        self.shape = (len(self._columns), max(column.shape[1] for column in columns))
        self._most = max(column.most if isinstance(column, Choices) else 1 for column in columns)

    @property
    def most(self) -> int:
        return self._most

    def counts(self, items: Tensor) -> Tensor:
        counts = torch.ones_like(items)
        for chosen, column, within in self._columns.parts(items):
            if isinstance(column, Choices):
                counts[chosen] = column.counts(within)
        return counts

    def chosen(self, items: Tensor, numbers: Tensor) -> Tensor:
        out = torch.zeros(len(items), self.shape[1], dtype=self.dtype)
        for chosen, column, within in self._columns.parts(items):
            texts = column.chosen(within, numbers[chosen]) if isinstance(column, Choices) else column[within]
            out[chosen, : texts.shape[1]] = texts
        return out

    def digest(self) -> str:
        """Returns the SHA-256 of the columns."""
        return self._columns.digest()
