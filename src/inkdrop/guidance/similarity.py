"""Guidance by the similarity of samples and a text, which a contrastive model measures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.guidance.gradient import Pulled, check_points
from inkdrop.guidance.scales import Interval, Scale, Within
from inkdrop.models import ContrastiveModel, Model
from inkdrop.schedules import Point


class _Similar(Pulled):
    """What both ways share: the model, and the vectors (B, D) of the texts."""

    def __init__(self, denoiser: Denoiser, scale: Within, model: ContrastiveModel, texts: Tensor, pipeline: Any):
        super().__init__(denoiser, scale)
        self.model, self.texts, self.pipeline = model, texts, (pipeline,)  # a tuple is no submodule

    def slope(self, vectors: Tensor, x_t: Tensor) -> Tensor:
        """The gradient (B, *) of the similarities of these vectors (B, D) to their texts."""
        similarity = self.model.scale * (vectors * self.texts.clone()).sum()
        return torch.autograd.grad(similarity, x_t)[0]

    def select(self, index: Tensor) -> None:
        self.texts = self.texts[index]
        super().select(index)


class _OfNoised(_Similar):
    def gradient(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        slope = self.slope(self.model.data(x_t, now), x_t)
        with torch.no_grad():
            return self.denoiser(x_t.detach(), now, cond), slope


class _OfEstimate(_Similar):
    def gradient(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        estimate = self.denoiser(x_t, now, cond)
        raw = self.pipeline[0].codec.reconstruct(estimate.x_0)
        return estimate, self.slope(self.model.data(self.model.codec.encode({"x": raw})), x_t)


class _Similarity(Guidance):
    """What both ways promise.

    - `model`: a contrastive model, such as a run of experiment=clip.
    - `scale`: the guidance scale w; None turns guidance off.
    - `interval`: the noise levels sigma / alpha at which guidance acts.
    """

    def __init__(self, model: Model, scale: float | Scale | None = 1.0, interval: Interval | None = None):
        if not hasattr(model, "texts"):
            raise ValueError("guidance.checkpoint is not a contrastive model: name a run of experiment=clip or similar")
        self.model: Any = model
        self.scale, self.names = Within(scale, interval), tuple(model.names)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        requested: dict[str, Tensor] = self.model.request(seeds, **condition)
        return requested

    def example(self, count: int) -> dict[str, Tensor]:
        made: dict[str, Tensor] = self.model.example(count)
        return made

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale.scale is None:
            return denoiser
        if missing := [name for name in self.names if name not in batch]:
            raise ValueError(f"guidance by similarity needs condition.{missing[0]}, which these data do not have")
        self.require(denoiser, pipeline)
        check_points(self.scale, denoiser, pipeline)
        model = self.model.to(pipeline.device).eval()
        return self.wrapped(denoiser, model, model.texts(batch), pipeline)

    @abstractmethod
    def require(self, denoiser: Denoiser, pipeline: Guided) -> None:
        """Raises `ValueError` if the model does not fit what it guides."""

    @abstractmethod
    def wrapped(self, denoiser: Denoiser, model: ContrastiveModel, texts: Tensor, pipeline: Guided) -> Denoiser:
        """Returns the guided denoiser."""


class NoisedSimilarity(_Similarity):
    """`D + w sigma^2 / alpha grad s(x_t, text)`: towards data that a contrastive model of noised data finds similar.

    The text is what the model was trained with, such as `condition.caption="a red circle"`; s is `exp(log_scale) a b`.

    - `model`: a contrastive model, such as a run of experiment=clip.
    - `scale`: the guidance scale w; None turns guidance off.
    - `interval`: the noise levels sigma / alpha at which guidance acts.

    Raises `ValueError` where alpha = 0, and for a model of other data or of another schedule. Source: Nichol et al.
    2021, arXiv 2112.10741, section 2.4.
    """

    def require(self, denoiser: Denoiser, pipeline: Guided) -> None:
        ours, other = (each.schedule.points([0.25, 0.5, 1.0]) for each in (denoiser, self.model))
        if ours != other or pipeline.shape != self.model.shape:
            raise ValueError(
                "guidance.model must have the schedule and the data shape of the model: name another run, or choose "
                "guidance=clip_similarity_of_estimate"
            )

    def wrapped(self, denoiser: Denoiser, model: ContrastiveModel, texts: Tensor, pipeline: Guided) -> Denoiser:
        return _OfNoised(denoiser, self.scale, model, texts, pipeline)


class EstimateSimilarity(_Similarity):
    """`D + w sigma^2 / alpha grad s(D(x_t), text)`, where the contrastive model sees the estimate of clean data.

    The gradient passes through the denoiser and through the decoder of the codec, so that models of any schedule, and
    models of latents, are guided by a model of the data. Its arguments are those of `NoisedSimilarity`.

    Raises `ValueError` where alpha = 0, and for a codec without a differentiable decoder. Source: Bansal et al. 2023,
    arXiv 2302.07121, without normalising.
    """

    def require(self, denoiser: Denoiser, pipeline: Guided) -> None:
        raw = pipeline.codec.reconstruct(torch.zeros(1, *pipeline.shape, device=pipeline.device))
        shape = tuple(self.model.codec.encode({"x": raw.to(self.model.device)}).shape[1:])
        if shape != self.model.shape:
            raise ValueError(
                f"guidance.model knows data of x {list(self.model.shape)}, not {list(shape)}: name another run"
            )

    def wrapped(self, denoiser: Denoiser, model: ContrastiveModel, texts: Tensor, pipeline: Guided) -> Denoiser:
        return _OfEstimate(denoiser, self.scale, model, texts, pipeline)
