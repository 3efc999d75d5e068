"""Vectors, images and series from files of numpy and torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from inkdrop.data.classes import numbered
from inkdrop.data.loaders import Augment, Column, Split
from inkdrop.data.module import DataModule
from inkdrop.errors import DataError
from inkdrop.files.arrays import Npz, map_npy
from inkdrop.files.locations import Location
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_torch
from inkdrop.randomness import Generators

MAX_CLASSES = 10**6


class Arrays(DataModule):
    """Named arrays of one length: a .npz, a .npy, a .pt of `torch.save`, or a folder with one .npy per array.

    `fields` says which array is "x", which "label", and what else the batch holds: {"x": "images", "label": "digit"}.
    The only array of a .npy, or of a .pt that holds a bare tensor, is called x. Floats become float32 and labels
    int64; other whole numbers stay as they are. A .npy of more than `memory_limit` gigabytes stays on disk.
    `validation` is a file or folder of the same kind; without it a fixed `held_out` share of the items is set aside.
    `shape` null is found in the arrays, and `num_classes` null is the number of different labels; those from 1 on, or
    with gaps, become 0, 1, ... and name their classes. `DataError` for what is absent, no number, not finite, or of
    another length or shape; on disk, for numbers that are not finite, when they are read.
    """

    def __init__(
        self,
        path: Location,
        fields: dict[str, str],
        shape: list[int] | None,
        num_classes: Annotated[int, Ge(0)] | None,
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        num_workers: Annotated[int, Ge(0)] | None = None,
        validation: Location | None = None,
        held_out: Annotated[float, Gt(0), Lt(1)] = 0.1,
        memory_limit: Annotated[float, Ge(0)] = 4.0,
    ):
        if "x" not in fields:
            raise ValueError(f"data.fields={fields} does not say which array is x: data.fields={{x: NAME}}")
        self.path, self.fields, self.held_out, self.memory_limit = Path(path), fields, held_out, memory_limit
        self.validation = Path(validation) if validation else None
        if num_classes is None:
            paths = filter(None, (self.path, self.validation))
            num_classes = len(numbered({label for path in paths for label in self._found_labels(path)}, None))
        if shape is None:
            shape = list(self._arrays(self.path)[fields["x"]].shape[1:])
        super().__init__(shape, num_classes, batch_size, seed, augment, num_workers)

    def verify(self) -> None:
        for path in filter(None, (self.path, self.validation)):
            self._arrays(path)

    def example(self) -> Tensor:
        array = self._arrays(self.path)[self.fields["x"]]
        return torch.zeros(1, *self.shape, dtype=as_tensor(array[:0]).dtype)

    def num_train(self) -> int | None:
        count = len(self._arrays(self.path)[self.fields["x"]])
        return count if self.validation else count - round(self.held_out * count)

    def load(self) -> dict[str, Split]:
        train = self._columns(self.path)
        if self.validation:
            return {"train": train, "validation": self._columns(self.validation)}
        count = len(train["x"])
        held = round(self.held_out * count)
        if not 0 < held < count:
            raise DataError(f"data.held_out={self.held_out} of {count} items leaves a split empty")
        shuffled = torch.from_numpy(Generators.from_positions(0, range(count)).at("held out").keys.argsort())
        parts = {"train": shuffled[held:].sort().values, "validation": shuffled[:held].sort().values}
        return {part: {name: _select(column, items) for name, column in train.items()} for part, items in parts.items()}

    def _found_labels(self, path: Path) -> list[int]:
        """The different labels, if there are any."""
        if "label" not in self.fields:
            return []
        labels = self._column(self._arrays(path), "label", path)
        found: list[int] = labels[torch.arange(len(labels))].unique().tolist()
        if len(found) > MAX_CLASSES:
            raise DataError(f"{path}: {self.fields['label']} has {len(found):,} different labels, which are no classes")
        return found

    def _arrays(self, path: Path) -> Mapping[str, np.ndarray]:
        """The arrays of this path, those that `fields` names among them."""
        arrays = open_arrays(path)
        if missing := [name for name in self.fields.values() if name not in arrays]:
            raise DataError(
                f"{path} has no array {missing[0]}: there are {harmless(', '.join(arrays))}; set data.fields"
            )
        return arrays

    def _columns(self, path: Path) -> dict[str, Column]:
        arrays = self._arrays(path)
        columns = {field: self._column(arrays, field, path) for field in self.fields}
        lengths = {self.fields[field]: len(column) for field, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{path}: arrays of different lengths, {', '.join(f'{k} {v}' for k, v in lengths.items())}")
        return columns

    def _column(self, arrays: Mapping[str, np.ndarray], field: str, path: Path) -> Column:
        array = arrays[self.fields[field]]
        place = f"{path}: {self.fields[field]}"
        _check_kind(array, field, place)
        if isinstance(array, np.memmap) and array.nbytes > self.memory_limit * 1e9 and field != "label":
            return OnDisk(Path(str(array.filename)), torch.arange(len(array)))
        return _in_memory(array, field, place)


class OnDisk:
    """Items of a .npy file that are read when asked for, such as a split of it."""

    def __init__(self, path: Path, items: Tensor):
        self.path, self.items = path, items
        array = map_npy(path, DataError)
        self.shape: Sequence[int] = (len(items), *array.shape[1:])
        self.dtype = as_tensor(array[:0]).dtype

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        # Opened each time: a memory map that travels to a worker process would be copied whole.
        rows = self.items[items]
        found = as_tensor(map_npy(self.path, DataError)[rows.numpy()])
        _check_finite(found, str(self.path), rows)
        return found

    def select(self, items: Tensor) -> OnDisk:
        """Some of these items."""
        return OnDisk(self.path, self.items[items])

    def digest(self) -> str:
        """Name, size and time of the file, and which items."""
        stat = self.path.stat()
        chosen = int((self.items * torch.arange(1, len(self.items) + 1)).sum())
        return f"{self.path.name}:{stat.st_size}:{stat.st_mtime_ns}:{chosen}"


def open_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays of a file or folder by name; those of .npz and .npy are read when used. Nothing is unpickled."""
    try:
        if path.is_dir():
            return {file.stem: map_npy(file, DataError) for file in sorted(path.glob("*.npy"))}
        if path.suffix == ".npy":
            return {"x": map_npy(path, DataError)}
        if path.suffix == ".npz":
            return Npz(path, DataError)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: set data.path") from None
    if path.suffix in (".pt", ".pth"):
        if not path.exists():
            raise DataError(f"{path} is missing: set data.path")
        return _from_torch(read_torch(path, DataError), path)
    raise DataError(f"{path} is no .npz, .npy or .pt file and no folder of .npy files")


def _from_torch(content: Any, path: Path) -> dict[str, np.ndarray]:
    tensors = {"x": content} if isinstance(content, Tensor) else content
    if not isinstance(tensors, dict) or not all(isinstance(each, Tensor) for each in tensors.values()):
        raise DataError(f"{path} holds neither a tensor nor a dict of tensors")
    return {
        str(name): (each.float() if each.is_floating_point() else each).detach().numpy()
        for name, each in tensors.items()
    }


def as_tensor(array: np.ndarray) -> Tensor:
    """Numbers as torch computes with them: floats as float32, unsigned of 16 bits and more as int64."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused later
            array = array.astype(np.float32, copy=False)
    elif array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def _in_memory(array: np.ndarray, field: str, place: str) -> Tensor:
    tensor = as_tensor(array)
    _check_finite(tensor, place, torch.arange(len(tensor)))
    if field == "label":
        tensor = tensor.long()
        if tensor.min() < 0:
            raise DataError(f"{place}: item {int(tensor.argmin())} has label {int(tensor.min())}; classes begin at 0")
    return tensor


def _check_kind(array: np.ndarray, field: str, place: str) -> None:
    """`DataError` for what are not numbers, for labels that are not whole, and for no items."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{place} holds {array.dtype}, not real numbers")
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{place} of shape {array.shape} holds no items")
    if field == "label" and (array.ndim != 1 or array.dtype.kind == "f"):
        raise DataError(f"{place}: labels are whole numbers of shape (N), not {array.dtype} of {array.shape}")


def _check_finite(tensor: Tensor, place: str, items: Tensor) -> None:
    if tensor.is_floating_point() and not tensor.isfinite().all():
        wrong = ~tensor.isfinite()
        first = int(items[wrong.flatten(1).any(1) if wrong.ndim > 1 else wrong][0])
        raise DataError(f"{place}: {int(wrong.sum())} numbers are not finite in float32, the first in item {first}")


def _select(column: Column, items: Tensor) -> Column:
    return column.select(items) if isinstance(column, OnDisk) else column[items]
