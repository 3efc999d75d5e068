"""The source of a sequence to sequence model, which stands before what is sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory
from inkdrop.denoiser import Estimate
from inkdrop.files.texts import requested
from inkdrop.noises import Draw, Transition
from inkdrop.schedules import Point


class _Held(Constraint):
    def __init__(self, source: Tensor):
        self.source = source

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        return self._with_source(x)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        return self._with_source(transition.draw(noise)), None

    def _with_source(self, x: Tensor) -> Tensor:
        return torch.cat([self.source.to(x), x[..., self.source.shape[-1] :]], -1)


class Source(ConstraintFactory):
    """Holds the source of each sample in the first places of x, without noise, at all times.

    `condition.source` is a text, a list of texts that samples take in turn, or `@FILE` with one in each line. Raises
    `ValueError` for a codec without a source. Source: Gong et al. 2023, arXiv 2210.08933, section 3.2.
    """

    names = ("source",)

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        codec: Any = pipeline.codec
        if not getattr(codec, "source_length", 0):
            raise ValueError(
                f"constraint=source holds the places of a source, which {type(codec).__name__} does not have: set "
                "codec=word_embedding codec.source_length=L, or constraint=null"
            )
        return _Held(codec.source(batch))

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the texts of the sources, which a user names."""
        return {"source": requested(condition.get("source"), "source", seeds)}
