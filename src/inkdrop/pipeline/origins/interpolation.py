"""Noise between two seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le, Len
from torch import Tensor

from inkdrop.noises import slerp
from inkdrop.pipeline.base import Pipeline
from inkdrop.pipeline.origins.base import Origin, Start
from inkdrop.randomness import MAX_SEED


class Interpolation(Origin):
    """Noise in even steps on the great circle from the noise of one seed to that of another.

    - `seeds`: the two seeds.
    """

    def __init__(self, seeds: Annotated[list[Annotated[int, Ge(0), Le(MAX_SEED)]], Len(2, 2)]):
        self.seeds = seeds

    def sources(self, pipeline: Pipeline, seeds: Sequence[int], items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"share": torch.arange(len(seeds)) / max(1, len(seeds) - 1)}

    def begin(self, pipeline: Pipeline, sources: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Start:
        share = sources["share"]
        first, second = (pipeline.start([seed]).expand(len(share), *pipeline.shape) for seed in self.seeds)
        return Start(eps=slerp(first, second, share))
