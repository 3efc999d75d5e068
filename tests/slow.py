"""A loss that takes its time, for runs that have to be met in the middle."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from inkdrop.losses import DenoisingLoss


class SlowLoss(DenoisingLoss):
    """The denoising loss, `seconds` later; validation is as fast as ever.

    `begun` is a file to make when it begins to wait. `patience` is for how many seconds ranks wait for each other from
    the first step on, instead of the `minutes` that the run was told: they may start at different times on a machine
    that is busy.
    """

    def __init__(
        self,
        *arguments: Any,
        seconds: float = 0.2,
        begun: str | None = None,
        patience: float | None = None,
        minutes: float = 0.0,
        **options: Any,
    ):
        super().__init__(*arguments, **options)
        self.seconds, self.begun, self.patience, self.minutes = seconds, begun, patience, minutes

    def forward(self, *arguments: Any, **options: Any) -> Any:
        if self.training and len(arguments[1].x_0) > 1:  # one sample is for what is foreseen of a run
            if self.begun is not None:
                Path(self.begun).touch()
            if self.patience is not None and torch.distributed.is_initialized():
                self._lose_patience(timedelta(seconds=self.patience))
            time.sleep(self.seconds)
        return super().forward(*arguments, **options)

    def _lose_patience(self, patience: timedelta) -> None:
        backend: Any = torch.distributed.group.WORLD._get_backend(torch.device("cpu"))  # type: ignore[union-attr]
        assert backend.options._timeout == timedelta(minutes=self.minutes), backend.options._timeout
        backend._set_default_timeout(patience)
        self.patience = None
