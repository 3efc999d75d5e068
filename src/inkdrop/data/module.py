"""What a data set is: its splits, their fingerprint, and the loaders over them."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Annotated

import torch
from annotated_types import Ge
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from inkdrop.data.classes import numbered, renumbered
from inkdrop.data.findings import Findings
from inkdrop.data.loaders import Augment, Order, OrderedLoader, ShuffledLoader, Split, content
from inkdrop.errors import CheckpointError, DataError

_NAMED = 5  # classes in a warning


class DataModule(LightningDataModule, ABC):
    """A data set in splits: `train`, which distances are measured to as well, and `validation`, held out.

    `batch_size` counts the samples of a step over all devices. `shape` and `num_classes` are facts that other parts of
    the configuration refer to. `augment(batch, generators)` changes training batches. `num_workers` processes make the
    batches; null is none for data in memory, and else up to four. `DataError` if the data are not as stated.
    """

    SHAPE: tuple[int, ...] = ()  # of data that come in one only

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
        self.num_samples_seen = 0  # of the run before it was interrupted; training goes on with the next
        self._num_batches_before = 0  # which may have been of another size

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits as raw data, `train` and `validation` among them."""

    def verify(self) -> None:
        """`DataError` for what can be seen without loading, such as absent files; `ValueError` for another shape."""
        if self.SHAPE and tuple(self.shape) != self.SHAPE:
            raise ValueError(f"data.shape={self.shape}, but {type(self).__name__} has the shape {list(self.SHAPE)}")

    def example(self) -> Tensor:
        """Zeros (1, *shape) of the type that samples have, as far as that shows without loading them."""
        return torch.zeros(1, *self.shape, dtype=torch.uint8 if len(self.shape) == 3 else torch.float32)

    def num_train(self) -> int | None:
        """How many items there are to train on; None where only loading tells."""
        return None

    def examine(self) -> Findings:
        """The splits without what is broken, and what else a look at every item shows; nothing is refused."""
        return Findings(self.splits)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        _ = self.splits
        return [str(label) for label in self._labels]

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits, loaded once and compared with the stated facts; labels with gaps become 0 to num_classes - 1."""
        splits = self.load()
        for name, split in splits.items():
            shape = list(split["x"].shape[1:])
            if shape != self.shape:
                raise DataError(f"data.shape={self.shape}, but {name} holds samples of shape {shape}")
        return self._renumbered(splits)

    def _renumbered(self, splits: dict[str, Split]) -> dict[str, Split]:
        """The splits with labels from 0 to num_classes - 1; classes without a training item are told."""
        labels = {name: each["label"][torch.arange(len(each["x"]))] for name, each in splits.items() if "label" in each}
        found = {int(label) for each in labels.values() for label in each.unique()}
        self._labels = numbered(found, self.num_classes)
        if len(self._labels) != self.num_classes:
            name, highest = next((k, int(v.max())) for k, v in labels.items() if v.max() >= self.num_classes)
            raise DataError(
                f"data.num_classes={self.num_classes}, but {name} has label {highest}, and there are {len(found)}"
            )
        if "train" in labels and (empty := set(self._labels) - set(labels["train"].unique().tolist())):
            first = ", ".join(map(str, sorted(empty)[:_NAMED])) + ", ..." * (len(empty) > _NAMED)
            rank_zero_warn(
                f"no training item has class {first}: what is sampled for it follows no data; data.num_classes=null "
                "counts the classes there are"
            )
        if self._labels == list(range(self.num_classes)):
            return splits
        return {
            name: {**split, "label": renumbered(labels[name], self._labels)} if name in labels else split
            for name, split in splits.items()
        }

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
        """Shuffled batches without end, from the first sample that the run has not seen."""
        split = self.splits["train"]
        self._num_batches_before = self._num_batches()
        rank, world_size = self._place()
        return ShuffledLoader(
            split,
            self.batch_size,
            self.seed,
            rank,
            world_size,
            self.order(),
            self.augment,
            self._workers(split),
            self.num_samples_seen,
        )

    def val_dataloader(self) -> OrderedLoader:
        """The held-out split in order."""
        split = self.splits["validation"]
        return OrderedLoader(split, self.batch_size, *self._place(), self._workers(split))

    def state_dict(self) -> dict[str, int]:
        """How many samples the run has seen."""
        since = (self._num_batches() - self._num_batches_before) * self.batch_size
        return {"num_samples_seen": self.num_samples_seen + since}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on behind these samples; `CheckpointError` if their number is none."""
        number = state_dict.get("num_samples_seen")
        if type(number) is not int or number < 0:
            raise CheckpointError(f"the checkpoint says that its run has seen {number} samples: take another file")
        self.num_samples_seen = number

    def _num_batches(self) -> int:
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.completed if self.trainer else 0

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
