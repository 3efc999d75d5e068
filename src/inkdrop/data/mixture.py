"""Several data sets as one, by weight and by class."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.data.loaders import Augment, Column, Order, ShuffledPasses, Split, content
from inkdrop.data.module import DataModule
from inkdrop.errors import DataError
from inkdrop.files.showing import harmless
from inkdrop.randomness import Generators

ROUND = 10_000  # positions that weights are met in exactly


class Mixture(DataModule):
    """Data sets of one shape and type as one; "source" in a batch is the place of a sample's data set in `sources`.

    Training draws from each source in proportion to its weight, or, where `weights` is null, to its size: of every
    10,000 samples each gives its share, in its own order. `class_balanced` draws the classes of a source equally often
    instead. A class has one number in all sources; null as `num_classes` is the most that a source has. The other
    splits that all sources have, such as validation, are put one after another. Sources state no `augment`, and their
    `batch_size` is not used. `DataError` if fields, shapes or types differ.
    """

    def __init__(
        self,
        sources: dict[str, DataModule],
        shape: list[int],
        num_classes: Annotated[int, Ge(0)] | None,
        batch_size: Annotated[int, Ge(1)],
        class_balanced: bool,
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        num_workers: Annotated[int, Ge(0)] | None = None,
        weights: dict[str, Annotated[float, Gt(0)]] | None = None,
    ):
        if not sources:
            raise ValueError("data.sources is empty: name at least one data set")
        if weights is not None and set(weights) != set(sources):
            raise ValueError(f"data.weights names {', '.join(weights)}, but the sources are {', '.join(sources)}")
        if augmented := [name for name, source in sources.items() if source.augment is not None]:
            raise ValueError(f"data.sources.{augmented[0]}.augment is not used: set data.augment for the mixture")
        if num_classes is None:
            num_classes = max(source.num_classes for source in sources.values())
        super().__init__(shape, num_classes, batch_size, seed, augment, num_workers)
        self.sources, self.weights, self.class_balanced = sources, weights, class_balanced

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers; `DataError` if two sources call one by other names."""
        names = list(map(str, range(self.num_classes)))
        for source, data in self.sources.items():
            for number, name in enumerate(data.classes[: self.num_classes]):
                if str(number) not in (name, names[number]) and name != names[number]:
                    raise DataError(
                        f"class {number} is {harmless(name)} in data.sources.{source}, but {harmless(names[number])} "
                        "in one before it: a class has one number in all sources, and a number one name"
                    )
                names[number] = name if names[number] == str(number) else names[number]
        return names

    def verify(self) -> None:
        for source in self.sources.values():
            source.verify()

    def load(self) -> dict[str, Split]:
        parts = {name: source.splits for name, source in self.sources.items()}
        _ = self.classes  # which must be the same
        common = [split for split in next(iter(parts.values())) if all(split in each for each in parts.values())]
        return {split: self._joined({name: each[split] for name, each in parts.items()}) for split in common}

    def order(self) -> Order:
        splits = {name: source.splits["train"] for name, source in self.sources.items()}
        sizes = [len(split["x"]) for split in splits.values()]
        weights = sizes if self.weights is None else [self.weights[name] for name in splits]
        shares = _shares(np.array(weights, float))
        if 0 in shares:
            name = list(splits)[shares.index(0)]
            raise ValueError(f"data.weights: {name} would give less than one of {ROUND} samples; leave it out")
        orders = [
            self._within(name, torch.arange(end - size, end), key)
            for name, size, end, key in zip(
                splits, sizes, np.cumsum(sizes).tolist(), _keys(self.seed, len(sizes)), strict=True
            )
        ]
        return Rounds(orders, shares, self.seed)

    def _within(self, name: str, items: Tensor, seed: int) -> Order:
        """The order within one source, whose items have these numbers in the mixture."""
        source = self.sources[name]
        if not self.class_balanced:
            return Among(items, source.order() or ShuffledPasses(len(items), seed))
        split = source.splits["train"]
        if "label" not in split:
            raise DataError(f"data.class_balanced=true needs labels: sources.{name} has none")
        labels = split["label"][torch.arange(len(items))]
        members = [items[labels == label] for label in labels.unique()]
        keys = _keys(seed, len(members))
        orders = [Among(each, ShuffledPasses(len(each), key)) for each, key in zip(members, keys, strict=True)]
        return Rounds(orders, [1] * len(orders), seed)

    def _joined(self, parts: Mapping[str, Split]) -> Split:
        first = next(iter(parts.values()))
        for name, part in parts.items():
            if set(part) != set(first):
                raise DataError(f"data.sources.{name} has the fields {', '.join(part)}, the first {', '.join(first)}")
            for field, column in part.items():
                if (kind := _kind(column)) != (expected := _kind(first[field])):
                    raise DataError(f"data.sources.{name} has {field} of {kind}, the first source of {expected}")
        joined: dict[str, Column] = {field: Joined([part[field] for part in parts.values()]) for field in first}
        sizes = torch.tensor([len(part["x"]) for part in parts.values()])
        return {**joined, "source": torch.arange(len(parts)).repeat_interleave(sizes)}

    def _workers(self, split: Split) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return max(source._workers(source.splits["train"]) for source in self.sources.values())


class Joined:
    """Columns one after another, none of them copied."""

    def __init__(self, columns: Sequence[Column]):
        self.columns = columns
        self.ends = torch.tensor([len(column) for column in columns]).cumsum(0)
        self.shape: Sequence[int] = (int(self.ends[-1]), *columns[0].shape[1:])
        self.dtype = columns[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Tensor, /) -> Tensor:
        found = torch.empty(len(items), *self.shape[1:], dtype=self.dtype)
        places = torch.bucketize(items, self.ends, right=True)
        for place in places.unique().tolist():
            column, chosen = self.columns[place], places == place
            found[chosen] = column[items[chosen] - (self.ends[place] - len(column))]
        return found

    def digest(self) -> str:
        """SHA-256 of the columns."""
        digest = hashlib.sha256()
        for column in self.columns:
            digest.update(content(column))
        return digest.hexdigest()


class Among:
    """An order of these items."""

    def __init__(self, items: Tensor, order: Order):
        self.items, self.order = items, order

    def __call__(self, positions: Sequence[int]) -> Tensor:
        return self.items[self.order(positions)]


class Rounds:
    """Orders that take turns: each has `shares` of the positions of a round, in a sequence keyed by seed and round.

    An order is asked for its own positions without gaps, so each goes through its items as if it were alone.
    """

    def __init__(self, orders: Sequence[Order], shares: Sequence[int], seed: int):
        self.orders, self.shares, self.seed = orders, np.array(shares), seed
        self._latest = (-1, np.empty(0, int), np.empty(0, int))

    def __call__(self, positions: Sequence[int]) -> Tensor:
        rounds, slots = np.divmod(np.array(positions), self.shares.sum())
        turns = [self._round(number) for number in rounds]
        which = np.array([order[slot] for (order, _), slot in zip(turns, slots, strict=True)])
        counts = np.array([count[slot] for (_, count), slot in zip(turns, slots, strict=True)])
        counts += rounds * self.shares[which]
        found = torch.empty(len(which), dtype=torch.long)
        for order in np.unique(which):
            chosen = which == order
            found[torch.from_numpy(chosen)] = self.orders[order](counts[chosen].tolist())
        return found

    def _round(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """For each position of a round, which order has its turn and how many it had before in this round."""
        if self._latest[0] != number:
            turns = np.repeat(np.arange(len(self.shares)), self.shares)
            key = int(Generators.from_positions(self.seed, [number]).at("turns").keys[0])
            turns = turns[torch.randperm(len(turns), generator=torch.Generator().manual_seed(key)).numpy()]
            before = np.empty_like(turns)
            before[turns.argsort(kind="stable")] = np.concatenate([np.arange(share) for share in self.shares])
            self._latest = number, turns, before
        return self._latest[1:]


def _kind(column: Column) -> str:
    return f"{column.dtype} {list(column.shape[1:])}"


def _shares(weights: np.ndarray) -> list[int]:
    """Positions of a round for each weight, by largest remainder."""
    exact = ROUND * weights / weights.sum()
    shares = np.floor(exact).astype(int)
    shares[(shares - exact).argsort(kind="stable")[: ROUND - shares.sum()]] += 1
    return shares.tolist()


def _keys(seed: int, count: int) -> list[int]:
    """Seeds of parts, so that parts of equal length do not go in step."""
    return Generators.from_positions(seed, range(count)).at("part").keys.tolist()
