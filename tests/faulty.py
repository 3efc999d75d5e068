"""Parts that break at a chosen moment."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from slow import SlowLoss
from torch import Tensor

from inkdrop.data import Toy
from inkdrop.losses import DenoisingLoss
from inkdrop.losses.base import LossTerms
from inkdrop.networks import MLP


class FaultyLoss(DenoisingLoss):
    """Row 3 has its loss multiplied by `factor`, and `term` added, in these batches (from 1) of this rank."""

    def __init__(self, *args: Any, calls: list[int], factor: float = 1.0, term: float = 0.0, rank: int = 0, **kw: Any):
        super().__init__(*args, **kw)
        self.calls, self.factor, self.term, self.rank, self.count = calls, factor, term, rank, 0

    def forward(self, *args: Any, **kwargs: Any) -> LossTerms:
        terms = super().forward(*args, **kwargs)
        if args[3] is not None:  # validation gives the times
            return terms
        self.count += 1
        if self.count in self.calls and int(os.environ.get("LOCAL_RANK", "0")) == self.rank:
            row = torch.arange(len(terms.loss), device=terms.loss.device) == 3
            terms = terms._replace(loss=torch.where(row, terms.loss * self.factor + self.term, terms.loss))
        return terms


class FailingLoss(SlowLoss):
    """The eighth batch of this rank raises an error, or never comes to an end."""

    def __init__(self, *args: Any, rank: int, hangs: bool, **kw: Any):
        super().__init__(*args, **kw)
        self.rank, self.hangs, self.count = rank, hangs, 0

    def forward(self, *args: Any, **kwargs: Any) -> LossTerms:
        self.count += self.training and len(args[1].x_0) > 1  # one sample is for what is foreseen of a run
        if self.count == 8 and int(os.environ.get("LOCAL_RANK", "0")) == self.rank:
            if not self.hangs:
                raise RuntimeError(f"rank {self.rank} has a fault")
            time.sleep(1000)
        return super().forward(*args, **kwargs)


class WorkedToy(Toy):
    """Two processes make the batches."""

    def _workers(self, split: Any) -> int:
        return 2


class FaultyMLP(MLP):
    """Puts out infinity for one row in the second call."""

    calls, row = 0, 1

    def forward(self, x: Tensor, c_noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = super().forward(x, c_noise, *args, **kwargs)
        self.calls += 1
        if self.calls == 2:
            output = output.clone()
            output[self.row, 0] = float("inf")
        return output
