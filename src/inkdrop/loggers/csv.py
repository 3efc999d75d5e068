"""The run's record as a table, for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkdrop.loggers.record import Record


class CSV(Record):
    """Keeps `metrics.csv` in `folder`: a row for each line of `metrics.jsonl`, and a column for each name."""

    def __init__(self, folder: str):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []

    def begin(self, rows: Sequence[dict[str, Any]]) -> None:
        """Writes the table of what was recorded so far; further rows follow it."""
        self._columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name("metrics.csv.unfinished")
        with unfinished.open("w", newline="") as file:
            table = csv.DictWriter(file, self._columns)
            table.writeheader()
            table.writerows(rows)
        unfinished.replace(self.path)

    @property
    def name(self) -> str:
        return "csv"

    def write(self, row: dict[str, Any]) -> None:
        if row.keys() <= set(self._columns):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:  # the header needs further names
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.begin([*rows, row])
