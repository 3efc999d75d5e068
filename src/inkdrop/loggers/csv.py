"""The metrics of a run as a CSV table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkdrop.files.writing import append_text, make_folder, write_text
from inkdrop.loggers.record import Record


class CSV(Record):
    """Writes `metrics.csv` to `folder`: a row for each line of `metrics.jsonl`, and a column for each name."""

    def __init__(self, folder: str):
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []

    def begin(self, rows: Sequence[dict[str, Any]]) -> None:
        """Writes the table of all rows so far; further rows are appended to it."""
        self._columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        make_folder(self.path.parent)
        write_text(self.path, self._lines(rows, header=True))

    @property
    def name(self) -> str:
        return "csv"

    def write(self, row: dict[str, Any]) -> None:
        if row.keys() <= set(self._columns):
            append_text(self.path, self._lines([row]))
        else:  # the header needs further names
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.begin([*rows, row])

    def _lines(self, rows: Sequence[dict[str, Any]], header: bool = False) -> str:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, self._columns)
        if header:
            table.writeheader()
        table.writerows(rows)
        return text.getvalue()
