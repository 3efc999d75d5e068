"""The scale of guidance as an input of a distilled network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.schedules import Point


class Distilled(Guidance):
    """Gives a scale of guidance to a network that was distilled from a guided teacher, at no further cost.

    - `scale`: the guidance scale w of `D_u + w (D_c - D_u)`; None gives none.

    Raises `ValueError` for a denoiser that takes no scale. Source: Luo et al. 2023, arXiv 2310.04378, section 4.2.
    """

    def __init__(self, scale: Annotated[float, Ge(0)] | None = None):
        self.scale = scale

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale is None:
            return denoiser
        model = getattr(pipeline, "denoiser", None)
        if not hasattr(model, "scaled"):
            raise ValueError("guidance=distilled needs denoiser=scale_conditioned: choose guidance=classifier_free")
        return _AtScale(denoiser, model, self.scale)


class _AtScale(Wrapper):
    def __init__(self, denoiser: Denoiser, model: Any, scale: float):
        super().__init__(denoiser)
        self.scaled, self.scale = model.scaled, scale

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.denoiser(x_t, now, self.scaled(x_t, self.scale, cond))
