"""Loaders whose order is a pure function of the seed and of the number of samples seen."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge
from lightning.pytorch import LightningDataModule
from torch import Tensor

from inkdrop.randomness import Generators

Split: TypeAlias = Mapping[str, Tensor]  # "x" (N, *) raw data, "label" (N), ...; all of one length


class ShuffledLoader:
    """Endless shuffled passes over a split in memory, cut into batches of the same size.

    Position p of the run is item `order_k[p mod N]` of pass `k = p div N`, whose order is keyed by seed and k. Batches
    run on over the end of a pass, so that none is smaller and none is lost. Each rank takes its slice of every batch;
    together they see what one process would. A batch carries its global positions as "position".
    """

    def __init__(self, split: Split, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        if batch_size % world_size:
            raise ValueError(f"data.batch_size={batch_size} is not divisible by {world_size} devices")
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.num_items = len(split["x"])

    def __len__(self) -> int:
        return -(-self.num_items // self.batch_size)

    @property
    def sampler(self) -> ShuffledLoader:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begins at the first position of this epoch, which is `len(self)` batches long."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        share = self.batch_size // self.world_size
        for batch in range(self.epoch * len(self), (self.epoch + 1) * len(self)):
            first = batch * self.batch_size + self.rank * share
            positions = torch.arange(first, first + share)
            items = torch.stack([self._order(p // self.num_items)[p % self.num_items] for p in positions.tolist()])
            yield {**{name: values[items] for name, values in self.split.items()}, "position": positions}

    def _order(self, number: int) -> Tensor:
        if getattr(self, "_latest", (None, None))[0] != number:
            key = int(Generators.from_positions(self.seed, [number]).at("order").keys[0])
            self._latest = number, torch.randperm(self.num_items, generator=torch.Generator().manual_seed(key))
        return self._latest[1]


class OrderedLoader:
    """One pass over a split in its own order; ranks take turns. The last batch may be smaller."""

    def __init__(self, split: Split, batch_size: int, rank: int = 0, world_size: int = 1):
        self.split, self.batch_size = split, batch_size
        self.items = torch.arange(rank, len(split["x"]), world_size)

    def __len__(self) -> int:
        return -(-len(self.items) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for items in self.items.split(self.batch_size):
            yield {**{name: values[items] for name, values in self.split.items()}, "position": items}


class DataModule(LightningDataModule, ABC):
    """A data set in splits: `train`, which distances are measured to as well, and `validation`, held out.

    `batch_size` counts the samples of a step over all devices. `shape` and `num_classes` are facts that other parts of
    the configuration refer to; `ValueError` if the data say otherwise.
    """

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__()
        self.shape, self.num_classes, self.batch_size, self.seed = list(shape), num_classes, batch_size, seed

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits as raw data, `train` and `validation` among them."""

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits, loaded once and compared with the stated facts."""
        splits = self.load()
        for name, split in splits.items():
            shape = list(split["x"].shape[1:])
            if shape != self.shape:
                raise ValueError(f"data.shape={self.shape}, but {name} holds samples of shape {shape}")
            if "label" in split and int(split["label"].max()) >= self.num_classes:
                raise ValueError(f"data.num_classes={self.num_classes}, but {name} has label {split['label'].max()}")
        return splits

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all splits, by name, type, shape and content."""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            for field, values in sorted(split.items()):
                digest.update(f"{name}.{field}:{values.dtype}:{tuple(values.shape)}".encode())
                digest.update(values.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def setup(self, stage: str) -> None:
        """Loads the data before anything else is made."""
        _ = self.splits

    def train_dataloader(self) -> ShuffledLoader:
        """Shuffled batches without end."""
        return ShuffledLoader(self.splits["train"], self.batch_size, self.seed, *self._place())

    def val_dataloader(self) -> OrderedLoader:
        """The held-out split in order."""
        return OrderedLoader(self.splits["validation"], self.batch_size, *self._place())

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
