"""Vectors, images and series from files of numpy and torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from inkdrop.data.classes import numbered
from inkdrop.data.loaders import Augment, Column, Derive, Split
from inkdrop.data.module import DataModule
from inkdrop.data.numbers import SUFFIXES, read_csv
from inkdrop.errors import DataError
from inkdrop.files.arrays import Npz, has_channels_last, map_npy
from inkdrop.files.locations import Location
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_torch
from inkdrop.files.texts import encoded
from inkdrop.randomness import Generators

MAX_CLASSES = 10**6


class Arrays(DataModule):
    """Your own vectors, images or series: named arrays of one length, in files of numpy or torch.

    Floats become float32 and labels int64; other whole numbers keep their type, and strings become UTF-8 in uint8 (N,
    L). Arguments beyond those of `DataModule`:

    - `path`: a .npz, a .npy, a .pt of `torch.save`, a folder with one .npy per array, or a .csv. The only array of a
      .npy, or of a .pt that holds a bare tensor, is called x; in a .csv, x are all columns of numbers that are no
      other field.
    - `fields`: which array is "x", which is "label", and what else a batch holds: {"x": "images", "label": "digit"}.
    - `shape`, `num_classes`: null takes them from the arrays. Labels that start at 1 or have gaps become 0, 1, ... and
      keep their names.
    - `validation`: a held-out file or folder of the same kind; null holds out a fixed share `held_out` of the items.
    - `memory_limit`: gigabytes; a larger .npy stays on disk.
    - `channels`: whether the channels of an item of x are its first axis, (C, T), or its last, (T, C). Images of 8 bits
      may have them last in any case, as `samples.npz` has them. A file with a text `channels` says it itself.

    Raises `DataError` for arrays that are missing, not numeric, not finite, or of unequal lengths or shapes. Numbers
    on disk that are not finite raise it when they are read.
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
        derive: dict[str, Derive] | None = None,
        channels: Literal["first", "last"] = "first",
    ):
        if "x" not in fields:
            raise ValueError(f"data.fields={fields} does not say which array is x: data.fields={{x: NAME}}")
        self.path, self.fields, self.held_out, self.memory_limit = Path(path), fields, held_out, memory_limit
        self.channels, self._stated = channels, shape
        self.validation = Path(validation) if validation else None
        if num_classes is None:
            paths = filter(None, (self.path, self.validation))
            num_classes = len(numbered({label for path in paths for label in self._different_labels(path)}, None))
        if shape is None:
            shape = list(self._x(self.path).shape[1:])
        super().__init__(shape, num_classes, batch_size, seed, augment, num_workers, derive=derive)

    def verify(self) -> None:
        for path in filter(None, (self.path, self.validation)):
            self._arrays(path)

    def example(self) -> Tensor:
        return torch.zeros(1, *self.shape, dtype=as_tensor(self._x(self.path)[:0]).dtype)

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
            raise DataError(
                f"data.held_out={self.held_out} of {count} items leaves a split empty: change it or set data.validation"
            )
        shuffled = torch.from_numpy(Generators.from_positions(0, range(count)).at("held out").keys.argsort())
        parts = {"train": shuffled[held:].sort().values, "validation": shuffled[:held].sort().values}
        return {part: {name: _select(column, items) for name, column in train.items()} for part, items in parts.items()}

    def _different_labels(self, path: Path) -> list[int]:
        """The different labels of a path, or none where it has no labels."""
        if "label" not in self.fields:
            return []
        column = self._column(self._arrays(path), "label", path)
        labels: list[int] = column[torch.arange(len(column))].unique().tolist()
        if len(labels) > MAX_CLASSES:
            raise DataError(
                f"{path}: {self.fields['label']} has {len(labels):,} different labels, more than the {MAX_CLASSES:,} "
                "classes that are allowed: set data.fields to an array of class numbers"
            )
        return labels

    def _arrays(self, path: Path) -> Mapping[str, np.ndarray]:
        """The arrays of a path, which include those that `fields` names."""
        arrays = read_csv(path, [*self.fields.values()]) if path.suffix in SUFFIXES else open_arrays(path)
        if missing := [name for name in self.fields.values() if name not in arrays]:
            raise DataError(
                f"{path} has no array {missing[0]} (available: {harmless(', '.join(arrays))}): set data.fields"
            )
        return arrays

    def _x(self, path: Path) -> np.ndarray:
        """The array of x with its channels along the first axis of an item."""
        arrays = self._arrays(path)
        array = arrays[self.fields["x"]]
        return np.moveaxis(array, -1, 1) if self._is_last(array, arrays) else array

    def _is_last(self, array: np.ndarray, arrays: Mapping[str, np.ndarray]) -> bool:
        """Whether the channels of an item of x in the file are its last axis, and not its only one."""
        if "channels" in arrays and (stated := arrays["channels"]).shape == () and str(stated) in ("first", "last"):
            return str(stated) == "last" and array.ndim > 2
        return (self.channels == "last" and array.ndim > 2) or has_channels_last(array, self._stated)

    def _columns(self, path: Path) -> dict[str, Column]:
        arrays = self._arrays(path)
        columns = {field: self._column(arrays, field, path) for field in self.fields}
        lengths = {self.fields[field]: len(column) for field, column in columns.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"{path}: the arrays have different lengths, {shown}: each must hold one entry for an item")
        return columns

    def _column(self, arrays: Mapping[str, np.ndarray], field: str, path: Path) -> Column:
        array = self._x(path) if field == "x" else arrays[self.fields[field]]
        place = f"{path}: {self.fields[field]}"
        _check_kind(array, field, place)
        if isinstance(array, np.memmap) and array.nbytes > self.memory_limit * 1e9 and field != "label":
            last = field == "x" and self._is_last(arrays[self.fields["x"]], arrays)
            return OnDisk(Path(str(array.filename)), torch.arange(len(array)), last)
        return _in_memory(array, field, place)


class OnDisk:
    """A column of items of a .npy file, such as a split of it, that are read when a batch needs them."""

    def __init__(self, path: Path, items: Tensor, channels_last: bool = False):
        self.path, self.items, self.channels_last = path, items, channels_last
        array = self._array()
        self.shape: Sequence[int] = (len(items), *array.shape[1:])
        self.dtype = as_tensor(array[:0]).dtype

    def _array(self) -> np.ndarray:
        array = map_npy(self.path, DataError)
        return np.moveaxis(array, -1, 1) if self.channels_last else array

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        # Opened each time, because a memory map that is sent to a worker process would be copied whole.
        rows = self.items[items]
        values = as_tensor(self._array()[rows.numpy()])
        _check_finite(values, str(self.path), rows)
        return values

    def select(self, items: Tensor) -> OnDisk:
        """Returns a column of some of these items (n)."""
        return OnDisk(self.path, self.items[items], self.channels_last)

    def digest(self) -> str:
        """Returns the name, size and time of the file, and which items are used."""
        stat = self.path.stat()
        chosen = int((self.items * torch.arange(1, len(self.items) + 1)).sum())
        return f"{self.path.name}:{stat.st_size}:{stat.st_mtime_ns}:{chosen}"


def open_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """Returns the arrays of a file or folder by name; those of .npz and .npy are read when they are used.

    Nothing is unpickled. Raises `DataError` for a path that is missing or of another kind.
    """
    try:
        if path.is_dir():
            return {file.stem: map_npy(file, DataError) for file in sorted(path.glob("*.npy"))}
        if path.suffix == ".npy":
            return {"x": map_npy(path, DataError)}
        if path.suffix == ".npz":
            return Npz(path, DataError)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: set data.path to a file or folder that exists") from None
    if path.suffix in (".pt", ".pth"):
        if not path.exists():
            raise DataError(f"{path} is missing: set data.path to a file or folder that exists")
        return _from_torch(read_torch(path, DataError), path)
    raise DataError(
        f"{path} is not a .npz, .npy, .pt or .csv file and not a folder of .npy files: set data.path to one of these"
    )


def _from_torch(content: Any, path: Path) -> dict[str, np.ndarray]:
    tensors = {"x": content} if isinstance(content, Tensor) else content
    if not isinstance(tensors, dict) or not all(isinstance(each, Tensor) for each in tensors.values()):
        raise DataError(f"{path} holds neither a tensor nor a dict of tensors: save one of these with torch.save")
    return {
        str(name): (each.float() if each.is_floating_point() else each).detach().numpy()
        for name, each in tensors.items()
    }


def as_tensor(array: np.ndarray) -> Tensor:
    """Returns an array as a tensor: floats as float32, and unsigned integers of 16 bits or more as int64."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # numbers that do not fit become infinite, and are refused later
            array = array.astype(np.float32, copy=False)
    elif array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def _in_memory(array: np.ndarray, field: str, place: str) -> Tensor:
    if array.dtype.kind == "U":
        try:
            return encoded(array.tolist(), place)
        except ValueError as error:
            raise DataError(str(error)) from None
    tensor = as_tensor(array)
    _check_finite(tensor, place, torch.arange(len(tensor)))
    if field == "label":
        tensor = tensor.long()
        if tensor.min() < 0:
            raise DataError(
                f"{place}: item {int(tensor.argmin())} has the label {int(tensor.min())}: labels must be at least 0"
            )
    return tensor


def _check_kind(array: np.ndarray, field: str, place: str) -> None:
    """Raises `DataError` for an array that is not numeric or has no items, and for labels that are not whole."""
    if array.dtype.kind == "U" and array.ndim == 1 and len(array) and field != "label":
        return  # texts
    if array.dtype.kind not in "biuf":
        raise DataError(f"{place} holds {array.dtype} instead of real numbers, or of texts (N): convert it")
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{place} has the shape {array.shape} and holds no items: choose another array")
    if field == "label" and (array.ndim != 1 or array.dtype.kind == "f"):
        raise DataError(f"{place}: labels must be whole numbers of shape (N), not {array.dtype} of shape {array.shape}")


def _check_finite(tensor: Tensor, place: str, items: Tensor) -> None:
    if tensor.is_floating_point() and not tensor.isfinite().all():
        wrong = ~tensor.isfinite()
        first = int(items[wrong.flatten(1).any(1) if wrong.ndim > 1 else wrong][0])
        raise DataError(
            f"{place}: {int(wrong.sum())} numbers are not finite in float32, the first of them in item {first}: remove "
            "or replace them"
        )


def _select(column: Column, items: Tensor) -> Column:
    return column.select(items) if isinstance(column, OnDisk) else column[items]
