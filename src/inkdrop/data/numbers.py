"""Tables of numbers in CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkdrop.errors import DataError
from inkdrop.files import open_regular
from inkdrop.files.showing import harmless

MAX_BYTES = 2**30


def read_csv(path: Path, fields: Sequence[str], blank: float | None = None) -> dict[str, np.ndarray]:
    """Returns the columns of a table with a header by name, and as "x" (N, D) all columns of numbers but these fields.

    Whole numbers are int64, other numbers float64, and what is neither is a column of strings. `blank` is the number
    that an empty cell in a column of numbers stands for; None refuses it. Raises `DataError` for a
    file that is missing or too large, rows of another length, and a table without numbers.
    """
    try:
        with open_regular(path) as file:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise DataError(f"{path} has {size:,} bytes, more than {MAX_BYTES:,}: save it as .npz")
            lines = file.read().decode("utf-8-sig").splitlines()
        between = max(",;\t", key=lines[0].count) if lines else ","
        rows = [row for row in csv.reader(lines, delimiter=between) if row]
    except FileNotFoundError:
        raise DataError(f"{path} is missing: set data.path to a file or folder that exists") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8: {harmless(str(error))}") from None
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} rows: a table has a header and at least one row")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise DataError(f"{path} has two columns of one name in its header: rename one of them")
    if odd := next((number for number, row in enumerate(rows[1:], 2) if len(row) != len(names)), None):
        raise DataError(f"{path}, row {odd}: {len(rows[odd - 1])} values for {len(names)} columns: complete it")
    cells = {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}
    columns = {name: _column(each, f"{path}, column {name}", blank) for name, each in cells.items()}
    chosen = [column for name, column in columns.items() if column.dtype.kind in "if" and name not in fields]
    if not chosen and "x" not in columns:
        raise DataError(f"{path} has no columns of numbers besides {', '.join(fields)}: x would be empty")
    return columns if "x" in columns else {**columns, "x": np.stack(chosen, axis=1).astype(float)}


def _column(texts: list[str], place: str, blank: float | None) -> np.ndarray:
    """Returns a column as numbers, if all of its values are; one that is mostly numbers must be so entirely."""
    try:
        return np.array([int(text) for text in texts])
    except ValueError:
        pass
    numbers = [_number(text) if text.strip() or blank is None else blank for text in texts]
    if None not in numbers:
        return np.array(numbers, float)
    if sum(number is not None for number in numbers) > len(numbers) / 2:
        row = numbers.index(None)
        raise DataError(f"{place}, row {row + 2}: {harmless(texts[row]) or 'nothing'} is not a number: complete it")
    return np.array(texts)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
