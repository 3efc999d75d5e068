"""The contrastive model of data and what is said of them: a CLIP of one's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from inkdrop.codecs import Batches, Codec
from inkdrop.models.base import Model
from inkdrop.noises import Gaussian, Noise
from inkdrop.predictions import Prediction
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point, Scalar, Schedule, over

LARGEST = math.log(100.0)  # of the log of the factor of similarities


class ContrastiveModel(Model):
    """Two encoders whose vectors (B, D) are alike for data and their own text; a CLIP whose images may be noised.

    `similarity = exp(log_scale) a b` of unit vectors a of x_t and b of the text. The network receives `c_in x_t` and
    `c_noise`, as in a denoiser with the same prediction; clean data are x_t at t = 0.

    - `network`: maps x (B, *) and c_noise (B) to vectors (B, D).
    - `conditioner`: makes a vector of a raw text; its width is `conditioner.dim`.
    - `schedule`, `prediction`, `noise`: those of the models that it guides.
    - `codec`: encodes the raw data.
    - `shape`: the shape of x without the batch.
    - `dim`: D.
    - `temperature`: 1 / exp(log_scale) before training.

    Raises `ValueError` for a conditioner without a vector. Sources: Radford et al. 2021, arXiv 2103.00020, section 2.3;
    Nichol et al. 2021, arXiv 2112.10741, section 4 (noised images).
    """

    guides = "clip_similarity"
    estimate = "exp(log_scale) a b, the similarity of x_t and a text, where a and b are the unit vectors of encoders"

    def __init__(
        self,
        network: nn.Module,
        conditioner: Any,
        schedule: Schedule,
        prediction: Prediction,
        codec: Codec,
        shape: list[int],
        dim: Annotated[int, Ge(1)],
        noise: Noise | None = None,
        temperature: Annotated[float, Gt(0)] = 0.07,
    ):
        super().__init__()
        prediction.check(schedule)
        if not conditioner.dim:
            raise ValueError(
                "the conditioner makes no vector of a text: set conditioner.dim, such as conditioner.dim=64"
            )
        self.network, self.conditioner, self.text = network, conditioner, nn.Linear(conditioner.dim, dim, bias=False)
        self.schedule, self.prediction, self.codec = schedule, prediction, codec
        self.shape, self.dim, self.noise = tuple(shape), dim, noise or Gaussian()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def names(self) -> list[str]:
        return list(self.conditioner.names)

    def fit(self, batches: Batches, device: torch.device) -> None:
        self.codec.fit(batches, device)
        self.conditioner.fit(batches)

    def coefficients(self, point: Point) -> dict[str, Scalar]:
        """Returns the coefficients of the input of the network, by name."""
        _, _, c_in, c_noise = self.prediction.coefficients(point)
        return {"c_in": c_in, "c_noise": c_noise}

    def data(self, x_t: Tensor, now: Point | None = None) -> Tensor:
        """Returns the unit vectors (B, D) of noised data x_t (B, *), or of clean data if there is no time."""
        x = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
        _, _, c_in, c_noise = self.prediction.coefficients(now or self.schedule.points([0.0])[0])
        level = sent(torch.as_tensor(c_noise, dtype=x.dtype), x.device).expand(len(x))
        return nn.functional.normalize(self.network(over(c_in, x) * x, level).to(x.dtype), dim=1)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of a vector, which `codec=latent` diffuses."""
        return (self.dim,)

    def encoded(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the unit vectors (B, D) of clean raw data."""
        return self.data(self.codec.encode(batch))

    def codes(self, encoded: Tensor, generators: Generators | None = None) -> Tensor:
        """Returns these vectors, which are the codes of data."""
        return encoded

    def decoded(self, z: Tensor) -> Tensor:
        """Returns vectors (B, D) with a length of 1, which are not decoded further."""
        return nn.functional.normalize(z, dim=1)

    def output(self, z: Tensor) -> Tensor:
        """Raises `ValueError`: vectors do not determine data."""
        raise ValueError("vectors of a contrastive model have no decoder to data: choose a run of task=autoencoder")

    def texts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the unit vectors (B, D) of the texts of a raw batch."""
        return nn.functional.normalize(self.text(self.conditioner(batch)["vector"]), dim=1)

    @property
    def scale(self) -> Tensor:
        """The factor of the product of vectors."""
        return self.log_scale.clamp(max=LARGEST).exp()

    def similarity(self, vectors: Tensor, texts: Tensor) -> Tensor:
        """Returns the similarities (B, N) of the vectors (B, D) of data and those (N, D) of texts."""
        return self.scale * vectors @ texts.T

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        requested: dict[str, Tensor] = self.conditioner.request(seeds, **condition)
        return requested

    def example(self, count: int) -> dict[str, Tensor]:
        made: dict[str, Tensor] = self.conditioner.example(count)
        return made

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Raises `ValueError` if fields of a raw batch are missing or do not suit the conditioner."""
        with torch.no_grad():
            self.texts({name: values.to(self.device) for name, values in batch.items()})

    @torch.no_grad()
    def check(self) -> None:
        """Raises `ValueError` if the encoders do not accept a sample and a text, or return other vectors."""
        try:
            found = list(self.data(torch.zeros(1, *self.shape, device=self.device)).shape)
        except RuntimeError as error:  # torch's error for shapes that do not fit
            raise ValueError(f"the network does not fit data.shape={list(self.shape)}: {error}") from None
        if found != [1, self.dim]:
            raise ValueError(f"the network returns {found}, not {[1, self.dim]}: set network.out_dim")
        self.check_batch(self.example(1))
