"""The record of a run, which is always written: one JSON object per line."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from inkdrop.files.writing import append_text, shorten
from inkdrop.loggers.record import Record


class JSONLines(Record):
    """Appends `{"step": ..., "time": ..., name: value, ...}` to a file, each line on disk before the next step."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def size(self) -> int:
        """Returns the number of bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Removes all after the first `size` bytes, which belong to steps that will be repeated."""
        if self.size() > size:
            shorten(self.path, size)

    def rows(self) -> list[dict[str, float]]:
        """Returns the rows so far, without the times and without broken lines, such as those of a full disk."""
        rows: list[dict[str, float]] = []
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            with contextlib.suppress(ValueError):
                rows.append({name: value for name, value in json.loads(line).items() if name != "time"})
        return rows

    @property
    def name(self) -> str:
        return "jsonl"

    def write(self, row: dict[str, Any]) -> None:
        append_text(self.path, json.dumps({"step": None, "time": round(time.time(), 3), **row}) + "\n")
