"""Texts as data: one's own, pairs of them, and the descriptions of restaurants of the E2E challenge."""

from __future__ import annotations

import csv
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from inkdrop.data.loaders import Derive, Split
from inkdrop.data.module import DataModule
from inkdrop.errors import DataError
from inkdrop.files import misfit
from inkdrop.files.locations import Location, data_dir
from inkdrop.files.plain import read_bytes
from inkdrop.files.showing import harmless
from inkdrop.files.texts import encoded
from inkdrop.randomness import Generators

MAX_BYTES = 2**30  # of a file of texts
Texts = Mapping[str, Sequence[str]]  # texts of N items by field


class TextData(DataModule):
    """Texts `x` (N, W), UTF-8 in uint8 that is filled with zeros, and further fields of this kind.

    Arguments beyond those of `DataModule`:

    - `shape`: [W], the largest number of bytes of a text.

    Raises `DataError` for files that are missing or cannot be read, and for longer texts.
    """

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        derive: dict[str, Derive] | None = None,
    ):
        if len(shape) != 1:
            raise ValueError(f"data.shape={shape} must be [W], the largest number of bytes of a text")
        super().__init__(shape, num_classes, batch_size, seed, derive=derive)

    @abstractmethod
    def texts(self) -> dict[str, Texts]:
        """Returns the texts of each split."""

    def example(self) -> Tensor:
        return torch.zeros(1, *self.shape, dtype=torch.uint8)

    def load(self) -> dict[str, Split]:
        splits = self.texts()
        widths = {
            name: self.shape[0] if name == "x" else _longest(splits, name) for name in next(iter(splits.values()))
        }
        return {
            split: {name: _columns(each, widths[name], f"{split}: {name}") for name, each in texts.items()}
            for split, texts in splits.items()
        }


def _longest(splits: Mapping[str, Texts], name: str) -> int:
    return max(len(text.encode()) for texts in splits.values() for text in texts[name])


def _columns(texts: Sequence[str], width: int, place: str) -> Tensor:
    """Returns texts as a column (N, width)."""
    try:
        rows = encoded(texts, place)
    except ValueError as error:
        raise DataError(str(error)) from None
    if rows.shape[1] > width:
        raise DataError(f"{place} has a text of {rows.shape[1]} bytes: set data.shape=[{rows.shape[1]}], or more")
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]))


class _Held(TextData):
    """Texts of a file, of which a fixed share is held out, or those of another file."""

    def __init__(
        self,
        path: Location,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        validation: Location | None = None,
        held_out: Annotated[float, Gt(0), Lt(1)] = 0.1,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(shape, num_classes, batch_size, seed, derive)
        self.path, self.validation, self.held_out = Path(path), Path(validation) if validation else None, held_out

    @abstractmethod
    def read(self, path: Path) -> Texts:
        """Returns the texts of a file."""

    def verify(self) -> None:
        for option, path in (("path", self.path), ("validation", self.validation)):
            if path is not None and not path.is_file():
                raise DataError(f"{path} is missing: set data.{option} to a file of texts")

    def texts(self) -> dict[str, Texts]:
        self.verify()
        train = self.read(self.path)
        if self.validation is not None:
            return {"train": train, "validation": self.read(self.validation)}
        count = len(train["x"])
        held = round(self.held_out * count)
        if not 0 < held < count:
            raise DataError(
                f"data.held_out={self.held_out} of {count} texts leaves a split empty: change it or set data.validation"
            )
        order = Generators.from_positions(0, range(count)).at("held out").keys.argsort().tolist()
        parts = {"train": sorted(order[held:]), "validation": sorted(order[:held])}
        return {part: {name: [each[i] for i in items] for name, each in train.items()} for part, items in parts.items()}


class TextFile(_Held):
    """Your own texts: a file in UTF-8 with a text in each line; empty lines are left out.

    Arguments beyond those of `TextData`:

    - `path`: the file.
    - `validation`: a held-out file of the same kind; null holds out a fixed share `held_out` of the texts.

    Raises `DataError` as `TextData` does, and for a file without texts.
    """

    def read(self, path: Path) -> Texts:
        return {"x": [text for text in map(_plain, _lines(path)) if text]}


class TextPairs(_Held):
    """Your own pairs of texts: `x`, the target, and `source`, what it is made from, as for translation or dialogue.

    Arguments beyond those of `TextData`:

    - `path`: a .csv or .tsv with a header, or a .jsonl with an object in each line.
    - `source`, `target`: the columns of the header or names of the objects; numbers are those of columns without a
      header.
    - `validation`: a held-out file of the same kind; null holds out a fixed share `held_out` of the pairs.

    Raises `DataError` as `TextData` does, and for a file without these columns, or with a line that lacks one.
    """

    def __init__(
        self,
        path: Location,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        source: str | int = "source",
        target: str | int = "target",
        seed: Annotated[int, Ge(0)] = 0,
        validation: Location | None = None,
        held_out: Annotated[float, Gt(0), Lt(1)] = 0.1,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(path, shape, num_classes, batch_size, seed, validation, held_out, derive)
        if type(source) is not type(target):
            raise ValueError(
                f"data.source={source} and data.target={target} must both be names of columns, or both be numbers"
            )
        self.source, self.target = source, target

    def read(self, path: Path) -> Texts:
        if path.suffix not in (".csv", ".tsv", ".jsonl"):
            raise DataError(f"{path} is not a .csv, .tsv or .jsonl file: set data.path to one of these")
        rows = _objects(path) if path.suffix == ".jsonl" else _table(path, isinstance(self.source, str))
        pairs: dict[str, list[str]] = {"x": [], "source": []}
        for line, row in rows:
            for field, name in (("x", self.target), ("source", self.source)):
                if not isinstance(text := row.get(name), str) or not _plain(text):
                    option = "target" if field == "x" else "source"
                    raise DataError(
                        f"{path}, line {line}, has no text {harmless(str(name))} (available: "
                        f"{harmless(', '.join(map(str, row)))}): complete it, or set data.{option}"
                    )
                pairs[field].append(_plain(text))
        if not pairs["x"]:
            raise DataError(f"{path} has no pairs: set data.path to a file with texts")
        return pairs


def _objects(path: Path) -> list[tuple[int, dict[Any, Any]]]:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or misfit(row):
            raise DataError(f"{path}, line {number}, is not an object of JSON: write one in each line")
        rows.append((number, row))
    return rows


def _table(path: Path, header: bool) -> list[tuple[int, dict[Any, Any]]]:
    try:
        if path.suffix == ".tsv":
            rows = [line.split("\t") for line in _lines(path)]
        else:
            rows = [row for row in csv.reader(_lines(path)) if row]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {harmless(str(error))}") from None
    names: Sequence[Any] = rows[0] if header else range(max(map(len, rows)))
    first = int(header)
    return [(number + 1, dict(zip(names, row, strict=False))) for number, row in enumerate(rows[first:], first)]


def _lines(path: Path) -> list[str]:
    """Returns the lines of a text file that are not empty."""
    try:
        content = read_bytes(path, MAX_BYTES, DataError).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text in UTF-8: convert it") from None
    lines = [line for line in content.split("\n") if line.strip()]
    if not lines:
        raise DataError(f"{path} has no text: write one in each line")
    return lines


def _plain(text: str) -> str:
    """Returns a text with single spaces between its words."""
    return " ".join(text.split())


class E2E(TextData):
    """Descriptions of restaurants of the E2E challenge, with their `attributes`, such as `name : The Eagle | ...`.

    The validation part of the challenge, 4,672 texts, trains, and its test part of 4,693 texts is held out. It is read
    from `e2e/` in `root`; null is `INKDROP_DATA_DIR`, or `data`. Raises `DataError` if a file is missing or damaged.
    Source: Novikova et al. 2017, arXiv 1706.09254.
    """

    FILES: ClassVar[Mapping[str, str]] = {"train": "e2e/src1_valid.txt", "validation": "e2e/src1_test.txt"}

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        root: Location | None = None,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(shape, num_classes, batch_size, seed, derive)
        self.root = data_dir(root)

    def verify(self) -> None:
        for name in self.FILES.values():
            if not (self.root / name).is_file():
                raise DataError(
                    f"{self.root / name} is missing: set data.root or INKDROP_DATA_DIR to the folder that holds e2e/, "
                    "from github.com/XiangLi1999/Diffusion-LM"
                )

    def texts(self) -> dict[str, Texts]:
        self.verify()
        return {split: self._read(self.root / name) for split, name in self.FILES.items()}

    def _read(self, path: Path) -> Texts:
        rows = [line.split("||") for line in _lines(path)]
        if wrong := next((number for number, row in enumerate(rows, 1) if len(row) != 2), None):
            raise DataError(f"{path}, line {wrong}, is not `attributes||text`: restore the original file")
        return {"x": [_plain(row[1]) for row in rows], "attributes": [_plain(row[0]) for row in rows]}
