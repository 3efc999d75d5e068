"""What the files that a run's numbers are written to have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class Record(Logger):
    """Writes the numbers of a step as one row."""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration stands beside the record."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.write({"step": step, **{name: float(value) for name, value in metrics.items() if name != "epoch"}})

    @abstractmethod
    def write(self, row: dict[str, Any]) -> None:
        """Adds a row: the step, then numbers by name."""
