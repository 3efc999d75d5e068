"""The terms of a denoising loss that train the vectors of words together with the denoiser.

B batch, L tokens, V vocabulary, D width of a vector.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.denoiser import Estimate
from inkdrop.losses.base import Example
from inkdrop.losses.denoising import Attempt, Term
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Schedule


def _codec(example: Example) -> Any:
    if not hasattr(example.codec, "logits"):
        raise ValueError(
            f"loss=diffusion_lm trains vectors of words, which {type(example.codec).__name__} does not have: "
            "set codec=word_embedding, or loss=denoising"
        )
    return example.codec


class RoundingTerm(Term):
    """The cross-entropy `-log p(w | x_0)` of rounding, the mean over the tokens; it keeps the vectors apart.

    x_0 is `e(w) + s_0 z` in training. Source: Li et al. 2022, arXiv 2205.14217, equation 2 and section 4.2.
    """

    def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
        codec = _codec(example)
        logits, tokens = codec.logits(example.x_0), codec.tokens(example.batch)
        return nn.functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none").mean(1)


class PriorTerm(Term):
    """The squared mean of x at t = 1, `|alpha(1) x_0|^2`, the mean over the elements; it keeps the vectors small.

    Source: Li et al. 2022, arXiv 2205.14217, equation 2.
    """

    def __init__(self, schedule: Schedule, factor: Annotated[float, Ge(0)] = 1.0):
        super().__init__(factor)
        self.alpha = float(schedule.points([1.0])[0].alpha)

    def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
        return example.mean((self.alpha * example.x_0).square())


class FirstStepTerm(Term):
    """`|D - e(w)|^2 - |D - x_0|^2` at the first step, and 0 elsewhere: there the clean vectors are the target.

    D is the estimate of x_0. Together with `weighting=unit` and `prediction=data` the loss is the published one.
    Source: Li et al. 2022, arXiv 2205.14217, equation 2, its second term.
    """

    def __init__(self, schedule: Schedule, factor: Annotated[float, Ge(0)] = 1.0):
        super().__init__(factor)
        self.t_min = schedule.t_min

    def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
        clean = _codec(example).encode(example.batch)
        errors = (estimate.x_0 - clean).square() - (estimate.x_0 - example.x_0).square()
        first = torch.as_tensor(attempt.now.t) < 1.5 * self.t_min
        return sent(first.to(errors.dtype), errors.device) * example.mean(errors)
