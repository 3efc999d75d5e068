"""Guidance by several conditions, which are emptied one after another, with a scale for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.guidance.contrast import check_trained
from inkdrop.guidance.scales import Scale, Within
from inkdrop.schedules import Point


class _Staged(Wrapper):
    """Rows of a call are in blocks of B: nothing is kept in the first, and one condition more in each further one."""

    def __init__(self, denoiser: Denoiser, stages: Sequence[Condition], scales: Sequence[Within]):
        super().__init__(denoiser)
        self.stages, self.scales = [dict(each) for each in stages], scales
        self._is_begun = False

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        blocks = len(self.stages) + 1
        if not self._is_begun:
            self.denoiser.select(torch.arange(len(x_t), device=x_t.device).repeat(blocks))
            self._is_begun = True
        rows = {
            name: torch.cat([*(stage[name].to(value.dtype) for stage in self.stages), value])
            for name, value in cond.items()
        }
        estimate = self.denoiser(x_t.repeat(blocks, *(1,) * (x_t.dim() - 1)), now, rows)
        estimates = estimate.x_0.chunk(blocks)
        x_0 = estimates[0]
        for scale, before, after in zip(self.scales, estimates, estimates[1:], strict=False):
            x_0 = x_0 + scale(now) * (after - before)
        return Estimate(x_0, {name: value.chunk(blocks)[-1] for name, value in estimate.extras.items()})

    def select(self, index: Tensor) -> None:
        rows = len(next(iter(self.stages[0].values())))
        self.stages = [{name: value[index] for name, value in stage.items()} for stage in self.stages]
        blocks = len(self.stages) + 1 if self._is_begun else 1
        self.denoiser.select(torch.cat([index + block * rows for block in range(blocks)]))


class Staged(Guidance):
    """Guidance with a scale for each condition, `D_0 + w_1 (D_1 - D_0) + w_2 (D_12 - D_1) + ...`, in one batch.

    D_0 has none of the conditions, D_1 has the first, D_12 the first two. n conditions cost n + 1 rows for each sample.
    `scales` are w_1, w_2, ... by condition, in this order; other conditions of the model are in all estimates.

    Raises `ValueError` without a condition, next to another guide that empties conditions, and for a model that was
    not trained without the last conditions of each number. Source: Brooks et al. 2023, arXiv 2211.09800, section 3.2.1.
    """

    def __init__(self, scales: dict[str, float | Scale]):
        if not scales:
            raise ValueError(
                "guidance.staged.scales is empty: give a scale for each condition, {image: 1.5, text: 7.5}"
            )
        self.stage_names = list(scales)
        self.scales = [Within(scale, None) for scale in scales.values()]

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        conditioner = pipeline.conditioner
        stages = []
        for kept in range(len(self.stage_names)):
            emptied = self.stage_names[kept:]
            stages.append(conditioner.null(batch, emptied))
            check_trained(conditioner, emptied, "leave a condition out of guidance.staged.scales")
        for each in denoiser.modules():
            if hasattr(each, "pair") or hasattr(each, "stages"):
                raise ValueError(
                    "guidance=staged guides every condition itself, and a guide before it in the list has "
                    "another scale: remove that guide"
                )
        return _Staged(denoiser, stages, self.scales)
