"""Control of texts by the gradient of a classifier of their attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.files.texts import encoded
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.guidance.scales import Interval, Within
from inkdrop.models import Model
from inkdrop.noises.kernels import shares
from inkdrop.samplers import Sampler
from inkdrop.schedules import Point

_FIELD = "attributes"
_LEAST = 1e-10  # added to the root of the sum of squares, as in torch.optim.Adagrad


class _Controlled(Wrapper):
    def __init__(
        self, denoiser: Denoiser, classifier: Any, numbers: Tensor, made_by: AttributeGuidance, sampler: Sampler
    ):
        super().__init__(denoiser)
        self.classifier, self.numbers, self.made_by = classifier, numbers, made_by
        self.points = sorted(sampler.points(denoiser.schedule), key=lambda point: -float(point.t))
        self.eta = float(getattr(sampler, "eta", 1.0))

    def select(self, index: Tensor) -> None:
        self.numbers = self.numbers[index]
        super().select(index)

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        estimate = self.denoiser(x_t, now, cond)
        after = following(self.points, now)
        if after is None or after.sigma == 0 or self.made_by.within(now) is None:
            return estimate
        ratio, share, _ = shares(now, after, self.eta)
        _, _, std = shares(now, after, 1.0)
        mean = ratio * x_t + share * estimate.x_0
        with torch.inference_mode(False), torch.enable_grad():
            moved = self._moved(mean.detach().clone(), after, std)
        return Estimate(estimate.x_0 + (moved - mean) / share, estimate.extras)

    def _moved(self, mean: Tensor, next: Point, std: float) -> Tensor:
        """Returns the mean (B, *) of the next x after the updates."""
        x, squares = mean.clone(), torch.zeros_like(mean)
        for _ in range(self.made_by.num_updates):
            x.requires_grad_()
            logits = self.classifier(x, next)
            loss = -self.classifier.log_probabilities(logits, self.numbers.clone()).sum()
            loss = loss + self.made_by.fluency * ((x - mean) / std).square().sum()
            (gradient,) = torch.autograd.grad(loss, x)
            squares += gradient.square()
            x = (x - self.made_by.step_size * gradient / (squares.sqrt() + _LEAST)).detach()
        return x


def following(points: Sequence[Point], now: Point) -> Point | None:
    """Returns the first of points, whose times decrease, that has less noise; None if there is none."""
    return next((point for point in points if float(point.t) < float(now.t)), None)


class AttributeGuidance(Guidance):
    """Updates of Adagrad on the mean m of each next x: of `fluency |x - m|^2 / std^2 - log p(attributes | x)`.

    The conditions are the attributes that the classifier knows, such as `condition.food=Chinese`, or several of them in
    `condition.attributes="name : The Eagle | food : Chinese"`. Moves are those of `sampler=ancestral` or
    `sampler=ddim`.

    - `classifier`: a classifier of noised texts, which a run of experiment=e2e_attributes trains.
    - `step_size`: the learning rate of Adagrad, in units of x.
    - `num_updates`: the number of updates at each level.
    - `fluency`: the factor of the first term, lambda.
    - `interval`: the noise levels sigma / alpha at which it acts; None is all.

    The published algorithm updates a draw of x in place of its mean. Raises `ValueError` for attributes that the
    classifier does not know, and for one of another schedule or of other vectors. Source: Li et al. 2022, arXiv
    2205.14217, section 5.1.
    """

    def __init__(
        self,
        classifier: Model,
        step_size: Annotated[float, Gt(0)] = 0.1,
        num_updates: Annotated[int, Ge(1)] = 3,
        fluency: Annotated[float, Ge(0)] = 0.01,
        interval: Interval | None = None,
    ):
        if not hasattr(classifier, "log_probabilities"):
            raise ValueError(
                "guidance.checkpoint is not a classifier of attributes: name a run of experiment=e2e_attributes"
            )
        self.classifier: Any = classifier
        self.step_size, self.num_updates, self.fluency = step_size, num_updates, fluency
        self.within = Within(1.0, interval)

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The attributes that the classifier knows, and the field that has several of them."""
        return (*self.classifier.values, _FIELD)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        if not condition:
            raise ValueError(
                "guidance=attribute needs an attribute: set one of "
                + " ".join(f"condition.{name}=" for name in self.classifier.values)
            )
        requested: dict[str, Tensor] = self.classifier.request(seeds, **condition)
        return requested

    def example(self, count: int) -> dict[str, Tensor]:
        return {_FIELD: encoded([""] * count)}

    def check(self, pipeline: Guided) -> None:
        theirs = getattr(self.classifier.codec, "codec", self.classifier.codec)
        same = (
            self.classifier.shape == pipeline.shape
            and hasattr(theirs, "nearest")
            and hasattr(pipeline.codec, "nearest")
        )
        vectors: Tensor | None = getattr(theirs, "vectors", None)
        if not same or vectors is None or not _equal(pipeline.codec, vectors):
            raise ValueError(
                "guidance.classifier sees other vectors of words than the model: train it with codec=of_run and "
                "codec.model.checkpoint=RUN of the model"
            )

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        ours, other = (each.schedule.points([0.25, 0.5, 1.0]) for each in (denoiser, self.classifier))
        if ours != other:
            raise ValueError("guidance.classifier must have the schedule of the model: name another run")
        if _FIELD not in batch:
            raise ValueError("guidance=attribute reads `attributes`, which these data do not have: set guidance=none")
        classifier = self.classifier.to(pipeline.device).eval()
        return _Controlled(denoiser, classifier, classifier.asked(batch), self, pipeline.sampler)


def _equal(codec: Any, vectors: Tensor) -> bool:
    """Whether these are the vectors (V, D) of a codec, up to an average over the last steps of training."""
    own = codec.vectors
    if own.shape != vectors.shape:
        return False
    nearest = codec.nearest(vectors.to(own).T[None])[0].T
    return bool((nearest == own).all(1).float().mean() > 0.99)
