"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Le
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(
    optimizer: Optimizer,
    warmup_steps: Annotated[int, Ge(0)],
    num_steps: Annotated[int, Ge(0)],
    final_factor: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> LambdaLR:
    """The rate rises linearly over `warmup_steps`, then falls along half a cosine to `final_factor` at `num_steps`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def inverse_square_root(
    optimizer: Optimizer, warmup_steps: Annotated[int, Ge(0)], constant_steps: Annotated[int, Ge(1)]
) -> LambdaLR:
    """The rate rises linearly over `warmup_steps`, and after `constant_steps` falls as sqrt(constant_steps / step).

    EDM2's. Source: Karras et al. 2024, arXiv 2312.02696, appendix B.
    """

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / max(1, warmup_steps)) * min(1.0, math.sqrt(constant_steps / max(1, step)))

    return LambdaLR(optimizer, factor)
