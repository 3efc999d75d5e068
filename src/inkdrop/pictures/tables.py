"""Tables of samples that are numbers, as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from inkdrop.files.showing import cell
from inkdrop.files.writing import make_folder, write_text
from inkdrop.pictures.base import conditions_of


def described(
    batch: Mapping[str, Tensor], seeds: Sequence[int], classes: Sequence[str] = ()
) -> tuple[list[str], list[list[Any]]]:
    """Returns the names of the columns that say which sample a row is about, and their values for each sample.

    These are the seed and the conditions; one of several numbers has a column for each.
    """
    names, rows = ["seed"], [[seed] for seed in seeds]
    for name, values in conditions_of(batch, classes).items():
        several = isinstance(values[0], list)
        names += [f"{name}_{number}" for number in range(len(values[0]))] if several else [name]
        for row, value in zip(rows, values, strict=True):
            row += [cell(each) for each in (value if several else [value])]
    return names, rows


def write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file with a line of names and a line for each row."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow([cell(name) for name in names])
    writer.writerows(rows)
    make_folder(path.parent)
    write_text(path, table.getvalue())
