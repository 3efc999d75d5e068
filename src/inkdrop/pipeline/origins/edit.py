"""Given data, noised part of the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from inkdrop.pipeline.base import Pipeline
from inkdrop.pipeline.origins.base import Files, Origin, Start


class Edit(Origin):
    """SDEdit: samples start from given data that are noised to `t_start`, `x = alpha(t) x_0 + sigma(t) eps`.

    A small `t_start` keeps the data, and 1 keeps nothing of them that noise does not leave. `constraint=replacement`
    keeps known elements on top of it.

    - `image`: a file, or a list of files that samples take in turn; None takes held-out items.
    - `t_start`: the time, from 0 to 1, to which the data are noised.

    Source: Meng et al. 2022, arXiv 2108.01073, algorithm 1.
    """

    def __init__(self, image: Files | None = None, t_start: Annotated[float, Gt(0), Le(1)] = 0.6):
        self.image, self.t_start = image, t_start

    @property
    def takes_items(self) -> bool:  # type: ignore[override]
        """Whether samples start from held-out items."""
        return self.image is None

    def check(self, pipeline: Pipeline) -> None:
        pipeline.sampler.points(pipeline.denoiser.schedule, self.t_start)

    def begin(self, pipeline: Pipeline, sources: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Start:
        return Start(data=sources["x"], t_start=self.t_start)
