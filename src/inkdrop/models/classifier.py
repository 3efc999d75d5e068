"""Classifiers of noised data, which receive their noise level."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.codecs import Codec
from inkdrop.models.base import Model
from inkdrop.noises import Gaussian, Noise
from inkdrop.predictions import Prediction
from inkdrop.randomness import sent
from inkdrop.schedules import Point, Scalar, Schedule, over


class OfNoised(Model):
    """What classifiers of noised data share: `model(x_t (B, *), now) -> logits (B, K)` in float32 or better.

    The network receives `c_in x_t` and `c_noise`, as in a denoiser with the same prediction.

    - `network`: maps x (B, *) and c_noise (B) to logits.
    - `schedule`, `prediction`, `noise`: those of the denoiser that it guides.
    - `codec`: encodes the raw data.
    - `shape`: the shape of x without the batch.
    - `num_outputs`: the number K of logits.

    Raises `ValueError` if the prediction is not defined at t = 1.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        codec: Codec,
        shape: list[int],
        num_outputs: int,
        noise: Noise | None = None,
    ):
        super().__init__()
        prediction.check(schedule)
        self.network, self.schedule, self.prediction, self.codec = network, schedule, prediction, codec
        self.shape, self.num_outputs, self.noise = tuple(shape), num_outputs, noise or Gaussian()

    @abstractmethod
    def judged(self, logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns -log p (B) of what a raw batch says, and the share (B) of it that is the most probable."""

    def forward(self, x_t: Tensor, now: Point) -> Tensor:
        x = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
        _, _, c_in, c_noise = self.prediction.coefficients(now)
        noise_level = sent(torch.as_tensor(c_noise, dtype=x.dtype), x.device).expand(len(x))
        logits: Any = self.network(over(c_in, x) * x, noise_level)
        return logits.to(x.dtype)

    def coefficients(self, point: Point) -> dict[str, Scalar]:
        """Returns the coefficients of the input of the network, by name."""
        _, _, c_in, c_noise = self.prediction.coefficients(point)
        return {"c_in": c_in, "c_noise": c_noise}

    def check(self) -> None:
        """Raises `ValueError` if the network does not accept a sample, or returns another number of logits."""
        x = torch.zeros(1, *self.shape)
        try:
            with torch.no_grad():
                logits = self(x, self.schedule.points([1.0])[0])
        except RuntimeError as error:  # torch's error for shapes that do not fit
            raise ValueError(f"the network does not fit data.shape={list(self.shape)}: {error}") from None
        if logits.shape != (1, self.num_outputs):
            raise ValueError(
                f"the network returns {list(logits.shape)}, not {[1, self.num_outputs]}: set network.out_dim"
            )


class NoisyClassifier(OfNoised):
    """A classifier of noised data: `classifier(x_t (B, *), now) -> logits (B, num_classes)` of p(y | x_t).

    - `num_classes`: the number of classes.
    - The other arguments are those of its base class.

    Raises `ValueError` if the prediction is not defined at t = 1. Source: Dhariwal and Nichol 2021, arXiv 2105.05233,
    section 4.
    """

    guides = "classifier"

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        codec: Codec,
        shape: list[int],
        num_classes: Annotated[int, Ge(2)],
        noise: Noise | None = None,
    ):
        super().__init__(network, schedule, prediction, codec, shape, num_classes, noise)
        self.num_classes = num_classes

    def judged(self, logits: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        error = nn.functional.cross_entropy(logits, batch["label"], reduction="none")
        return error, (logits.argmax(1) == batch["label"]).to(error.dtype)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the labels of samples with these seeds, all classes in turn."""
        return {"label": torch.tensor([seed % self.num_classes for seed in seeds])}
