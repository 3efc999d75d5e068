"""The data module: the splits of a data set, their fingerprint, and the loaders over them."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from functools import cached_property
from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from inkdrop.data.captions import Captions
from inkdrop.data.classes import numbered, renumbered
from inkdrop.data.findings import Findings
from inkdrop.data.loaders import Augment, Batch, Derive, Derived, Order, OrderedLoader, ShuffledLoader, Split, content
from inkdrop.errors import CheckpointError, DataError
from inkdrop.randomness import sent

_NAMED = 5  # classes in a warning


class DataModule(LightningDataModule, ABC):
    """A data set in splits: `train`, to which distances are also measured, and `validation`, which is held out.

    - `shape`: shape of a sample, to which other parts of the configuration refer.
    - `num_classes`: number of classes; 0 without labels.
    - `batch_size`: samples of an optimizer step over all devices.
    - `seed`: seed of the order and of the augmentation.
    - `augment`: a function `augment(batch, generators)` that changes training batches.
    - `derive`: further fields by name, computed from the others; training batches draw them anew, other items do not.
    - `num_workers`: processes that make batches; null is none for data in memory, and else up to four.

    Raises `DataError` if the data differ from what is stated.
    """

    SHAPE: tuple[int, ...] = ()  # of data that exist in one shape only

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        num_workers: Annotated[int, Ge(0)] | None = None,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__()
        if taken := sorted({"x", "label", "position"} & set(derive or {})):
            raise ValueError(f"data.derive.{taken[0]} would replace a field of the data: choose another name")
        self.shape, self.num_classes, self.batch_size, self.seed = list(shape), num_classes, batch_size, seed
        self.augment, self.num_workers, self.derive = augment, num_workers, dict(derive or {})
        self.num_samples_seen = 0  # before the run was interrupted; training continues with the next sample
        self._num_batches_before = 0  # batches before a resumption, which may have had another size

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """Returns the splits as raw data, which include `train` and `validation`."""

    def verify(self) -> None:
        """Raises `DataError` for missing files and other early errors, `ValueError` for a shape."""
        if self.SHAPE and tuple(self.shape) != self.SHAPE:
            raise ValueError(f"data.shape={self.shape} must be {list(self.SHAPE)} for {type(self).__name__}")

    def lend(self, described: str, pipeline: Any) -> None:
        """Takes the model of a published base for data that are drawn by it; by default they are not.

        - `described`: the configuration of the model and of its sampling as text.
        - `pipeline`: the model, which training is going to change; None where it has other weights than the base.
        """

    def example(self) -> Tensor:
        """Returns zeros (1, *shape) of the type of the samples, as far as it is known before they are loaded."""
        return torch.zeros(1, *self.shape, dtype=torch.uint8 if len(self.shape) == 3 else torch.float32)

    def num_train(self) -> int | None:
        """Returns the number of training items, or None if it is unknown before the data are loaded."""
        return None

    def examine(self) -> Findings:
        """Returns the splits without broken items, and what was found in every item; raises no error for these."""
        return Findings(self.splits)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        _ = self.splits
        return [str(label) for label in self._labels]

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits, loaded once and compared with what is stated; labels with gaps become 0 to num_classes - 1."""
        splits = self.load()
        for name, split in splits.items():
            shape = list(split["x"].shape[1:])
            if shape != self.shape:
                raise DataError(
                    f"data.shape={self.shape}, but the samples of {name} have the shape {shape}: set data.shape to it"
                )
        return {name: self._with_derived(split) for name, split in self._renumbered(splits).items()}

    def _with_derived(self, split: Split) -> Split:
        """The split with the derived fields, each of which may use those before it."""
        for name, derive in self.derive.items():
            if name in split:
                raise DataError(f"data.derive.{name} would replace a field of the data: choose another name")
            split = {**split, name: Derived(name, derive, split)}
        return split

    def _renumbered(self, splits: dict[str, Split]) -> dict[str, Split]:
        """The splits with labels from 0 to num_classes - 1; a class without a training item causes a warning."""
        labels = {name: each["label"][torch.arange(len(each["x"]))] for name, each in splits.items() if "label" in each}
        labels_in_use = {int(label) for each in labels.values() for label in each.unique()}
        self._labels = numbered(labels_in_use, self.num_classes)
        if len(self._labels) != self.num_classes:
            name, highest = next((k, int(v.max())) for k, v in labels.items() if v.max() >= self.num_classes)
            raise DataError(
                f"data.num_classes={self.num_classes}, but {name} has the label {highest}, and there are "
                f"{len(labels_in_use)} different labels: set it to null, which counts them"
            )
        if "train" in labels and (empty := set(self._labels) - set(labels["train"].unique().tolist())):
            first = ", ".join(map(str, sorted(empty)[:_NAMED])) + ", ..." * (len(empty) > _NAMED)
            rank_zero_warn(
                f"no training item has the class {first}, so that samples of it follow no data: set "
                "data.num_classes=null, which counts the classes that occur"
            )
        if self._labels == list(range(self.num_classes)):
            return splits
        return {
            name: {**split, "label": renumbered(labels[name], self._labels)} if name in labels else split
            for name, split in splits.items()
        }

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the names, types, shapes and contents of all splits."""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            for field, column in sorted(split.items()):
                digest.update(f"{name}.{field}:{column.dtype}:{tuple(column.shape)}".encode())
                digest.update(content(column))
        return digest.hexdigest()

    def setup(self, stage: str) -> None:
        """Loads the data before other objects are built."""
        _ = self.splits

    def train_dataloader(self) -> ShuffledLoader:
        """Returns endless shuffled batches, from the first sample that the run has not used."""
        split = self.splits["train"]
        self._num_batches_before = self._num_batches()
        rank, world_size = self._place()
        repeats = getattr(self.trainer, "overfit_batches", 0) > 0  # the same batches, also when resumed
        return ShuffledLoader(
            split,
            self.batch_size,
            self.seed,
            rank,
            world_size,
            self.order(),
            self.augment,
            self._workers(split),
            0 if repeats else self.num_samples_seen,
        )

    def val_dataloader(self) -> OrderedLoader:
        """Returns the batches of the held-out split in order."""
        split = self.splits["validation"]
        return OrderedLoader(split, self.batch_size, *self._place(), self._workers(split))

    def state_dict(self) -> dict[str, int]:
        """Returns how many samples the run has used."""
        since = (self._num_batches() - self._num_batches_before) * self.batch_size
        return {"num_samples_seen": self.num_samples_seen + since}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continues after these samples; raises `CheckpointError` if their number is invalid."""
        number = state_dict.get("num_samples_seen")
        if type(number) is not int or number < 0:
            raise CheckpointError(f"the checkpoint states that its run has used {number} samples: use another file")
        self.num_samples_seen = number

    def _num_batches(self) -> int:
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.completed if self.trainer else 0

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Returns the batch on the device, but for its positions, from which the host draws all random numbers."""
        return {name: values if name == "position" else sent(values, device) for name, values in batch.items()}

    def order(self) -> Order | None:
        """Returns the order of the training items; None is that of shuffled passes."""
        return None

    def _workers(self, split: Split) -> int:
        if self.num_workers is not None:
            return self.num_workers
        in_memory = all(isinstance(column, Tensor | Derived | Captions) for column in split.values())
        return 0 if in_memory else min(4, os.cpu_count() or 1)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
