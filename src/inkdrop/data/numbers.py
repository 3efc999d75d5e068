"""Tables of numbers in CSV."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkdrop.errors import DataError
from inkdrop.files import open_regular
from inkdrop.files.showing import harmless, warn

MAX_BYTES = 2**30
SUFFIXES = (".csv", ".tsv")
# What spreadsheets and other programs write for a number that is missing.
_BLANK = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none", "-"))


def read_csv(path: Path, fields: Sequence[str], blank: float | None = None) -> dict[str, np.ndarray]:
    """Returns the columns of a table with a header by name, and as "x" (N, D) all columns of numbers but these fields.

    Cells are separated by commas, semicolons or tabs; decimals may have a comma where cells have another separator.
    Whole numbers are int64, other numbers float64, and what is neither is a column of strings. `blank` is the number
    that an empty cell, or one such as NA, stands for in a column of numbers; None refuses it. Raises `DataError` for a
    file that is missing or too large, rows of another length, and a table without numbers.
    """
    try:
        with open_regular(path) as file:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise DataError(f"{path} has {size:,} bytes, more than {MAX_BYTES:,}: save it as .npz")
            lines = file.read().decode("utf-8-sig").splitlines()
        between = max(",;\t", key=lines[0].count) if lines else ","
        rows = [row for row in csv.reader(lines, delimiter=between) if row]
        point = "." if between == "," else ","
    except FileNotFoundError:
        raise DataError(f"{path} is missing: set data.path to a file or folder that exists") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8: {harmless(str(error))}") from None
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} rows: a table has a header and at least one row")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise DataError(f"{path} has two columns of one name in its header: rename one of them")
    if numbers := [name for name in names if (number := _number(name, point)) is not None and number % 1]:
        warn(f"{path}: its header has the number {numbers[0]}: if its first row is data, add a row of names above it")
    if odd := next((number for number, row in enumerate(rows[1:], 2) if len(row) != len(names)), None):
        raise DataError(f"{path}, row {odd}: {len(rows[odd - 1])} values for {len(names)} columns: complete it")
    cells = {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}
    columns = {name: _column(each, f"{path}, column {harmless(name)}", point, blank) for name, each in cells.items()}
    chosen = [column for name, column in columns.items() if column.dtype.kind in "if" and name not in fields]
    if not chosen and "x" not in columns:
        besides, known = f" besides {', '.join(fields)}" if fields else "", harmless(", ".join(names))
        raise DataError(f"{path} has no columns of numbers{besides}, so that x would be empty (columns: {known})")
    return columns if "x" in columns else {**columns, "x": np.stack(chosen, axis=1).astype(float)}


def _column(texts: list[str], place: str, point: str, blank: float | None) -> np.ndarray:
    """Returns a column as numbers, if all of its values are; one that is mostly numbers must be so entirely."""
    try:
        return np.array([int(text) for text in texts])
    except ValueError:
        pass
    empty = [blank is not None and text.strip().lower() in _BLANK for text in texts]
    numbers = [blank if none else _number(text, point) for text, none in zip(texts, empty, strict=True)]
    if all(empty):
        return np.array(texts)
    if None not in numbers:
        return np.array(numbers, float)
    if sum(number is not None for number in numbers) > len(numbers) / 2:
        row = numbers.index(None)
        fix = "correct it" if blank is None else "correct it, or leave the cell empty"
        raise DataError(f"{place}, row {row + 2}: {harmless(texts[row]) or 'nothing'} is not a number: {fix}")
    return np.array(texts)


def _number(text: str, point: str) -> float | None:
    """The finite number that a text is, with this sign or a point before its decimals, or None."""
    if point == "," and re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text):
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
