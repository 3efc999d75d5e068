"""Loaders whose order is a pure function of the seed and of the number of samples seen."""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias

import torch
from annotated_types import Ge
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inkdrop.data.findings import Findings
from inkdrop.randomness import Generators


class DataError(ValueError):
    """Data are absent, broken or not what the configuration says; the message names them and what to do."""


class Column(Protocol):
    """One field of all items of a split: a tensor (N, *) in memory, or something that fetches items when asked.

    What is not a tensor also has `digest() -> str`, which changes with its content.
    """

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, items: Tensor, /) -> Tensor:
        """The items with these numbers (B), as (B, *)."""


Split: TypeAlias = Mapping[str, Column]  # "x" (N, *) raw data, "label" (N), ...; all of one length
Batch: TypeAlias = dict[str, Tensor]
Augment: TypeAlias = Callable[[Batch, Generators], Batch]
Order: TypeAlias = Callable[[Sequence[int]], Tensor]  # positions of the run -> numbers of items


class ShuffledPasses:
    """Position p of the run is item `order_k[p mod N]` of pass `k = p div N`, whose order is keyed by seed and k."""

    def __init__(self, num_items: int, seed: int):
        self.num_items, self.seed = num_items, seed
        self._latest = (-1, torch.empty(0))

    def __call__(self, positions: Sequence[int]) -> Tensor:
        return torch.stack([self._order(p // self.num_items)[p % self.num_items] for p in positions])

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
    """Batches by number, made here or in `num_workers` processes that stay alive between passes."""

    def __init__(self, num_workers: int):
        maker = copy.copy(self)  # not self: garbage in a cycle takes five seconds to stop its processes
        self._loader: DataLoader[Batch] = DataLoader(
            _Batches(maker.batch),
            batch_size=None,
            sampler=self._numbers(),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """One batch."""

    @abstractmethod
    def _numbers(self) -> Sequence[int]:
        """Numbers of the batches of one pass, in order."""

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)


class _Epoch(Sequence[int]):
    """The numbers of the batches of the current epoch."""

    def __init__(self, length: int):
        self.length, self.epoch = length, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        return range(self.epoch * self.length, (self.epoch + 1) * self.length)[index]


class ShuffledLoader(_Loader):
    """Endless batches of the same size over a split, in an order that knows no state.

    Batches run on over the end of a pass, so that none is smaller and none is lost. Each rank takes its slice of every
    batch; together they see what one process would. A batch carries its global positions as "position"; `augment` is
    keyed by them. `order` is one of shuffled passes unless given.
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
    ):
        if batch_size % world_size:
            raise ValueError(f"data.batch_size={batch_size} is not divisible by {world_size} devices")
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.num_items = len(split["x"])
        self.order, self.augment = order or ShuffledPasses(self.num_items, seed), augment
        self._epoch = _Epoch(-(-self.num_items // batch_size))
        super().__init__(num_workers)

    def __len__(self) -> int:
        return len(self._epoch)

    @property
    def sampler(self) -> ShuffledLoader:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begins at the first position of this epoch, which is `len(self)` batches long."""
        self._epoch.epoch = epoch

    def batch(self, number: int) -> Batch:
        share = self.batch_size // self.world_size
        first = number * self.batch_size + self.rank * share
        positions = range(first, first + share)
        batch = collect(self.split, self.order(positions))
        if self.augment is not None:
            batch = self.augment(batch, Generators.from_positions(self.seed, positions).at("augment"))
        return {**batch, "position": torch.tensor(positions)}

    def _numbers(self) -> Sequence[int]:
        return self._epoch


class OrderedLoader(_Loader):
    """One pass over a split in its own order; ranks take turns. The last batch may be smaller."""

    def __init__(self, split: Split, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0):
        self.split = split
        self.parts = torch.arange(rank, len(split["x"]), world_size).split(batch_size)
        super().__init__(num_workers)

    def __len__(self) -> int:
        return len(self.parts)

    def batch(self, number: int) -> Batch:
        return {**collect(self.split, self.parts[number]), "position": self.parts[number]}

    def _numbers(self) -> Sequence[int]:
        return range(len(self.parts))


def collect(split: Split, items: Tensor | None = None) -> Batch:
    """The items with these numbers (B), or all of them, with every field as a tensor (B, *)."""
    items = torch.arange(len(split["x"])) if items is None else items
    return {name: column[items] for name, column in split.items()}


def data_dir(root: str | None = None) -> Path:
    """The folder that data sets lie in: `root`, or else `INKDROP_DATA_DIR`, or else `data`."""
    return Path(root or os.environ.get("INKDROP_DATA_DIR") or "data")


def cache_dir() -> Path:
    """Where what can be made again is kept: `INKDROP_CACHE_DIR`, or `~/.cache/inkdrop`."""
    return Path(os.environ.get("INKDROP_CACHE_DIR") or Path.home() / ".cache" / "inkdrop")


class DataModule(LightningDataModule, ABC):
    """A data set in splits: `train`, which distances are measured to as well, and `validation`, held out.

    `batch_size` counts the samples of a step over all devices. `shape` and `num_classes` are facts that other parts of
    the configuration refer to. `augment(batch, generators)` changes training batches. `num_workers` processes make the
    batches; null is none for data in memory, and else up to four. `DataError` if the data are not as stated.
    """

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        num_workers: Annotated[int, Ge(0)] | None = None,
    ):
        super().__init__()
        self.shape, self.num_classes, self.batch_size, self.seed = list(shape), num_classes, batch_size, seed
        self.augment, self.num_workers = augment, num_workers

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits as raw data, `train` and `validation` among them."""

    def verify(self) -> None:
        """Raises `DataError` for what can be seen without loading, such as absent files."""

    def examine(self) -> Findings:
        """The splits without what is broken, and what else a look at every item shows; nothing is refused."""
        return Findings(self.splits)

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits, loaded once and compared with the stated facts."""
        splits = self.load()
        for name, split in splits.items():
            shape = list(split["x"].shape[1:])
            if shape != self.shape:
                raise DataError(f"data.shape={self.shape}, but {name} holds samples of shape {shape}")
            if "label" in split and (highest := _highest(split["label"])) >= self.num_classes:
                raise DataError(f"data.num_classes={self.num_classes}, but {name} has label {highest}")
        return splits

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all splits, by name, type, shape and content."""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            for field, column in sorted(split.items()):
                digest.update(f"{name}.{field}:{column.dtype}:{tuple(column.shape)}".encode())
                digest.update(content(column))
        return digest.hexdigest()

    def setup(self, stage: str) -> None:
        """Loads the data before anything else is made."""
        _ = self.splits

    def train_dataloader(self) -> ShuffledLoader:
        """Shuffled batches without end."""
        split = self.splits["train"]
        rank, world_size = self._place()
        return ShuffledLoader(
            split, self.batch_size, self.seed, rank, world_size, self.order(), self.augment, self._workers(split)
        )

    def val_dataloader(self) -> OrderedLoader:
        """The held-out split in order."""
        split = self.splits["validation"]
        return OrderedLoader(split, self.batch_size, *self._place(), self._workers(split))

    def order(self) -> Order | None:
        """How training positions become items; None is shuffled passes."""
        return None

    def _workers(self, split: Split) -> int:
        if self.num_workers is not None:
            return self.num_workers
        in_memory = all(isinstance(column, Tensor) for column in split.values())
        return 0 if in_memory else min(4, os.cpu_count() or 1)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def content(column: Any) -> bytes:
    """What a fingerprint is made of."""
    return column.contiguous().numpy().tobytes() if isinstance(column, Tensor) else column.digest().encode()


def _highest(labels: Column) -> int:
    return int(labels[torch.arange(len(labels))].max())
