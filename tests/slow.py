"""A loss that takes its time, for runs that have to be met in the middle."""

from __future__ import annotations

import time
from typing import Any

from inkdrop.losses import DenoisingLoss


class SlowLoss(DenoisingLoss):
    """The denoising loss, `seconds` later; validation is as fast as ever."""

    def __init__(self, *arguments: Any, seconds: float = 0.2, **options: Any):
        super().__init__(*arguments, **options)
        self.seconds = seconds

    def forward(self, *arguments: Any, **options: Any) -> Any:
        if self.training:
            time.sleep(self.seconds)
        return super().forward(*arguments, **options)
