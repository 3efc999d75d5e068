"""A logger that is told a token."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger


class Tokened(Logger):
    """Keeps what it is told, and logs nothing."""

    tokens: ClassVar[list[str]] = []

    def __init__(self, api_token: str, count: int = 0):
        super().__init__()
        self.tokens.append(api_token)

    @property
    def name(self) -> str:
        return "tokened"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...
