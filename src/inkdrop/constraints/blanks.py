"""Known words of texts with blanks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.codecs.vocabulary import END, PADDING
from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory
from inkdrop.constraints.replacement import Replaced
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.files.texts import is_text, requested
from inkdrop.noises import Draw, Transition
from inkdrop.schedules import Point

_NAME = "known"


class _Words(Wrapper):
    """A denoiser of tokens (B, C, L) that estimates words alone where a mask (B, 1, L) is true."""

    def __init__(self, denoiser: Denoiser, within: Tensor):
        super().__init__(denoiser)
        self.within = within

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        estimate = self.denoiser(x_t, now, cond)
        p = estimate.x_0.clone()
        p[:, PADDING : END + 1] = 0
        p = p / p.sum(1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)
        return Estimate(torch.where(self.within, p, estimate.x_0), estimate.extras)


class _Filled(Constraint):
    """Keeps known tokens, and fills each blank before one of them with a word, where the text cannot end."""

    def __init__(self, kept: Replaced, within: Tensor):
        self.kept, self.within = kept, within

    def around(self, denoiser: Denoiser) -> Denoiser:
        return _Words(denoiser, self.within)

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        return self.kept.start(x, points, noise)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        return self.kept.apply(transition, now, next, noise, estimate)


class Blanks(ConstraintFactory):
    """Infilling: the words of a text stay, and its blanks are filled in; where it ends with a blank, it is continued.

    `condition.known` is a text such as `The Eagle is a _ _ in the _ .`, in which each blank is one token, or a list of
    texts that samples take in turn, or `@FILE`. A text `The Eagle is _` is continued up to any length. Raises
    `ValueError` for a codec that encodes no texts.
    """

    names = (_NAME,)

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        codec: Any = pipeline.codec
        if not hasattr(codec, "known"):
            raise ValueError(
                f"constraint=blanks fills in texts, and {type(codec).__name__} encodes none: choose another constraint"
            )
        if _NAME not in batch or not is_text(batch[_NAME]):
            raise ValueError('constraint=blanks needs a text: condition.known="The _ is in the city centre ."')
        known, mask = codec.encode({**batch, "x": batch[_NAME]}), codec.known(batch[_NAME])
        law = pipeline.denoiser.noise
        kept = Replaced(known, mask.expand_as(known), law)
        return _Filled(kept, ~mask & (mask.flip(2).cumsum(2).flip(2) > 0)) if law.categorical else kept

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the texts of these seeds from a user's words."""
        if condition.get(_NAME) is None:
            raise ValueError('constraint=blanks needs a text: condition.known="The _ is in the city centre ."')
        return {_NAME: requested(condition[_NAME], _NAME, seeds)}
