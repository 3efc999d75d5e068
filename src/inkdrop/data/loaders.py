"""Items of a split as batches, in an order that is a function of the seed and the position in the run."""

from __future__ import annotations

import copy
import functools
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inkdrop.data.choices import Choices, drawn, every_choice
from inkdrop.distributed.signals import ignore_signals_not_from, signals_blocked
from inkdrop.errors import DataError
from inkdrop.randomness import Generators


class Column(Protocol):
    """One field of all items of a split: a tensor (N, *) in memory, or an object that reads items on demand.

    A column that is not a tensor also has `digest() -> str`, which changes with its content.
    """

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, items: Tensor, /) -> Tensor:
        """Returns the items with these numbers (B), as (B, *)."""


Split: TypeAlias = Mapping[str, Column]  # "x" (N, *) raw data, "label" (N), ...; all of one length
Batch: TypeAlias = dict[str, Tensor]
Augment: TypeAlias = Callable[[Batch, Generators], Batch]
Order: TypeAlias = Callable[[Sequence[int]], Tensor]  # positions of the run -> numbers of items


class Derive(ABC):
    """Computes a field of a batch from its other fields, such as a degraded image; its attributes are its options."""

    def __repr__(self) -> str:
        # A part of a package is named as YAML files name it, wherever it is defined there.
        kind = type(self)
        module = kind.__module__.split(".")
        package = ".".join(module[:3] if module[0] == "inkdrop" else module)
        return f"{package}.{kind.__qualname__} {sorted(vars(self).items())}"

    @abstractmethod
    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        """Returns the field (B, *) of raw fields (B, *) with one random stream per sample."""


class Derived:
    """A column that is computed when items are fetched, with random streams that are keyed by the item."""

    def __init__(self, name: str, derive: Derive, fields: Split):
        self.name, self.derive, self.fields = name, derive, dict(fields)

    def __len__(self) -> int:
        return len(self.fields["x"])

    def __getitem__(self, items: Tensor, /) -> Tensor:
        return self.computed(collect(self.fields, items), Generators.from_positions(0, items.tolist()))

    def computed(self, fields: Batch, generators: Generators) -> Tensor:
        """Computes the field of a batch; raises `DataError` if the batch lacks a field that it needs."""
        try:
            value = self.derive(fields, generators.at("derive").at(self.name))
        except KeyError as error:
            available = ", ".join(fields)
            raise DataError(
                f"data.derive.{self.name} needs the field {error.args[0]}, which the data lack: available: {available}"
            ) from None
        if len(value) != len(fields["x"]):
            raise DataError(f"data.derive.{self.name} returns {len(value)} items for {len(fields['x'])}")
        return value

    @functools.cached_property
    def _first(self) -> Tensor:
        return self[torch.zeros(1, dtype=torch.int64)]

    @property
    def shape(self) -> Sequence[int]:
        return (len(self), *self._first.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self._first.dtype

    def digest(self) -> str:
        """Returns what the field is: the kind and the options of its computation."""
        return repr(self.derive)


class ShuffledPasses:
    """An order in shuffled passes: position p is item `order_k[p mod N]` of pass `k = p div N`, keyed by seed and k."""

    def __init__(self, num_items: int, seed: int):
        self.num_items, self.seed = num_items, seed
        self._latest = (-1, torch.empty(0))

    def __call__(self, positions: Sequence[int]) -> Tensor:
        numbers = np.asarray(positions, np.int64)
        passes, places = np.divmod(numbers, self.num_items)
        items = torch.empty(len(numbers), dtype=torch.int64)
        for number in np.unique(passes).tolist():  # a batch lies in one pass, or in two
            within = torch.from_numpy(passes == number)
            items[within] = self._order(number)[torch.from_numpy(places)[within]]
        return items

    def _order(self, number: int) -> Tensor:
        if self._latest[0] != number:
            key = int(Generators.from_positions(self.seed, [number]).at("order").keys[0])
            self._latest = number, torch.randperm(self.num_items, generator=torch.Generator().manual_seed(key))
        return self._latest[1]


class _Batches(Dataset[Batch]):
    """The batches of a loader by number, so that worker processes can make them."""

    def __init__(self, make: Callable[[int], Batch]):
        self.make = make

    def __getitem__(self, number: int) -> Batch:
        return self.make(number)


class _Loader(ABC):
    """Batches by number, made in this process or in `num_workers` processes that stay alive between passes."""

    def __init__(self, num_workers: int):
        maker = copy.copy(self)  # in a cycle with self, processes would be stopped only after five seconds
        self._loader: DataLoader[Batch] = DataLoader(
            _Batches(maker.batch),
            batch_size=None,
            sampler=self._numbers(),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=functools.partial(_begin_work, os.getpid()) if num_workers else None,
        )

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """Returns one batch."""

    @abstractmethod
    def _numbers(self) -> Iterable[int]:
        """Numbers of the batches, in order."""

    def __iter__(self) -> Iterator[Batch]:
        # Processes start with the first batch, because Lightning also asks for iterators that it does not use.
        with signals_blocked():
            batches = iter(self._loader)
        yield from batches

    @property
    def _iterator(self) -> Any:
        """The attribute by which Lightning stops the processes when training ends."""
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        self._loader._iterator = value


def _begin_work(parent: int, number: int) -> None:
    ignore_signals_not_from(parent)


class _Endless:
    """All numbers, from 0 each time it is iterated over."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class ShuffledLoader(_Loader):
    """Endless batches of the same size over a split, from position `first` on, in an order without state.

    A batch continues over the end of a pass, so that none is smaller and none is lost. Each rank takes its slice of
    every batch, so that all ranks together see the batches of one process. A batch holds its positions in the run as
    "position", by which `augment`, derived fields and the choice among several captions are keyed. `order` null is that
    of shuffled passes. Raises `ValueError` if the devices do not divide `batch_size`.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        order: Order | None = None,
        augment: Augment | None = None,
        num_workers: int = 0,
        first: int = 0,
    ):
        if batch_size % world_size:
            raise ValueError(
                f"data.batch_size={batch_size} is not divisible by {world_size} devices: change one of them"
            )
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.num_items = len(split["x"])
        self.order, self.augment = order or ShuffledPasses(self.num_items, seed), augment
        self.first = first
        super().__init__(num_workers)

    def batch(self, number: int) -> Batch:
        share = self.batch_size // self.world_size
        first = self.first + number * self.batch_size + self.rank * share
        positions = range(first, first + share)
        raw = {name: column for name, column in self.split.items() if not isinstance(column, Derived)}
        items, generators = self.order(positions), Generators.from_positions(self.seed, positions)
        batch = {name: drawn(name, column, items, generators) for name, column in raw.items()}
        if self.augment is not None:
            batch = self.augment(batch, generators.at("augment"))
        for name, column in self.split.items():
            if isinstance(column, Derived):
                batch = {**batch, name: column.computed(batch, generators)}
        return {**batch, "position": torch.tensor(positions)}

    def _numbers(self) -> Iterable[int]:
        return _Endless()


class OrderedLoader(_Loader):
    """One pass over a split in its own order, in which ranks take turns. The last batch may be smaller.

    Raises `ValueError` for fewer items than ranks, because a rank without a batch would leave the others waiting.
    """

    def __init__(self, split: Split, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0):
        if len(split["x"]) < world_size > 1:
            raise ValueError(
                f"{len(split['x'])} held-out items are too few for {world_size} devices, each of which needs one: "
                "hold out more items, or lower trainer.devices"
            )
        self.split = split
        self.parts = torch.arange(rank, len(split["x"]), world_size).split(batch_size)
        super().__init__(num_workers)

    def __len__(self) -> int:
        return len(self.parts)

    def batch(self, number: int) -> Batch:
        return {**collect(self.split, self.parts[number]), "position": self.parts[number]}

    def _numbers(self) -> Iterable[int]:
        return range(len(self.parts))


def collect(split: Split, items: Tensor | None = None) -> Batch:
    """Returns the items with these numbers (B), or all items, with every field as a tensor (B, *)."""
    items = torch.arange(len(split["x"])) if items is None else items
    return {name: column[items] for name, column in split.items()}


def in_batches(split: Split, size: int, names: Collection[str] | None = None) -> Iterator[Batch]:
    """Yields the split in batches with those of these fields that it has, or nothing if it has none of them.

    Fields with several values for an item, such as captions, have each of them once or more, in as many passes.
    """
    kept = {name: split[name] for name in (split if names is None else names) if name in split}
    for number in range(max((each.most for each in kept.values() if isinstance(each, Choices)), default=1)):
        for items in torch.arange(len(split["x"])).split(size) if kept else ():
            yield {name: every_choice(column, items, number) for name, column in kept.items()}


def content(column: Any) -> bytes:
    """Returns the bytes of a column that enter a fingerprint."""
    return column.contiguous().numpy().tobytes() if isinstance(column, Tensor) else column.digest().encode()
