"""The base of loggers that write the numbers of a run to a file."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class Record(Logger):
    """A logger that writes the numbers of a step as one row."""

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Does nothing, because the configuration is in the run folder."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.write({"step": step, **{name: float(value) for name, value in metrics.items() if name != "epoch"}})

    @abstractmethod
    def write(self, row: dict[str, Any]) -> None:
        """Appends a row: the step, and numbers by name."""
