"""The run's own record: one JSON object per line, always written."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class JSONLines(Logger):
    """Appends `{"step": ..., "time": ..., name: value, ...}` to a file, each line on disk before the next step."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Forgets what was written after the first `size` bytes, by steps that will be done again."""
        if self.size() > size:
            os.truncate(self.path, size)

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands beside this file."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
