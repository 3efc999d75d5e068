"""The noise from which given data come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor

from inkdrop.pipeline.base import Pipeline
from inkdrop.pipeline.loading import loaded
from inkdrop.pipeline.origins.base import Files, Origin, Start


class Inverted(Origin):
    """Noise to which the inverted sampler maps given data, under their conditions.

    Samples under the same conditions reconstruct the data, samples under other ones edit them, and those of a model
    whose data were inverted by another one translate them. The sampler of the samples is inverted, with their guidance
    if the model is the same and without guidance for another one.

    - `image`: a file, or a list of files that samples take in turn; None takes held-out items with their conditions.
    - `condition`: conditions of the data, such as `{"label": 3}`; without any they are those of the samples.
    - `checkpoint`: run folder or checkpoint file of the model that inverts the data; None is the one that samples.
    - `weights`: its weights.

    Raises `ValueError` if the sampler draws noise, or if the two models have x of different shapes. Source: Song et al.
    2021, arXiv 2010.02502, section 4.3; Su et al. 2023, arXiv 2203.08382, algorithm 1.
    """

    def __init__(
        self,
        image: Files | None = None,
        condition: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        weights: str = "ema",
    ):
        self.image, self.checkpoint = image, checkpoint
        self.condition = {name: value for name, value in (condition or {}).items() if value is not None}
        if image is None and self.condition:
            raise ValueError("origin.condition belongs to origin.image: held-out items have their own conditions")
        self.model = None if checkpoint is None else cast(Pipeline, loaded(checkpoint, weights))

    @property
    def takes_items(self) -> bool:  # type: ignore[override]
        """Whether samples start from held-out items."""
        return self.image is None

    def _inverter(self, pipeline: Pipeline) -> Pipeline:
        if self.model is None:
            return pipeline
        self.model.sampler = pipeline.sampler
        return self.model.to(pipeline.device)

    def check(self, pipeline: Pipeline) -> None:
        if self.model is not None and not self.model.draws:
            raise ValueError(f"origin.checkpoint={self.checkpoint} draws no samples: choose a run of a diffusion model")
        inverter = self._inverter(pipeline)
        if inverter.shape != pipeline.shape:
            raise ValueError(
                f"the model of origin.checkpoint has x of the shape {list(inverter.shape)}, and this one "
                f"{list(pipeline.shape)}: choose models of one shape"
            )
        try:
            pipeline.sampler.points_upwards(inverter.denoiser.schedule)
        except ValueError as error:
            raise ValueError(f"an origin that inverts data requires a sampler with an inverse: {error}") from None

    def sources(self, pipeline: Pipeline, seeds: Sequence[int], items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inverter = self._inverter(pipeline)
        sources = super().sources(inverter, seeds, items)
        if self.condition:
            sources |= inverter.request(seeds, **self.condition)
        elif self.model is not None and self.image is not None:
            sources |= inverter.request(seeds)
        return sources

    def begin(self, pipeline: Pipeline, sources: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Start:
        return Start(eps=self._inverter(pipeline).invert({**batch, **sources}))
