"""Likelihoods of texts, in nats per token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.likelihood.base import Likelihood, finite, prepared
from inkdrop.losses import Example
from inkdrop.losses.categories import masked_nats
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators


class _OfTexts(Likelihood):
    """-log p of whole texts, of which results are the mean, and the quotient of the sums of nats and of tokens.

    The tokens of a text are its words and the one that ends it, without padding.
    """

    unit: ClassVar[str] = "nats"

    def check(self, pipeline: Pipeline) -> None:
        """Raises `ValueError` for a codec that does not say how many tokens a text has."""
        if not hasattr(pipeline.codec, "lengths"):
            raise ValueError(
                f"likelihood of texts: {type(pipeline.codec).__name__} encodes none: set likelihood=none, or choose "
                "codec=one_hot"
            )

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Returns `total`, nats per text, `tokens` per text, `per_token`, nats per token, and `perplexity`."""
        per_token = means["total"] / means["tokens"]
        return {**means, "per_token": per_token, "perplexity": math.exp(min(per_token, 700.0))}


class MaskedBound(_OfTexts):
    """An upper bound on -log p of masked diffusion in continuous time, without bias, from `num_times` times of an item.

    - `num_times`: the number of times of an item, one in each of equal intervals of t.

    `check` raises `ValueError` for another model. Source: Sahoo et al. 2024, arXiv 2406.07524,
    equation 10.
    """

    def __init__(self, num_times: Annotated[int, Ge(1)] = 16):
        self.num_times = num_times

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        denoiser: Any = getattr(pipeline, "denoiser", None)
        if denoiser is None or not denoiser.noise.categorical:
            raise ValueError("likelihood=masked_bound is that of noise=absorbing: set likelihood=none for this model")

    def __call__(self, pipeline: Pipeline, batch: Mapping[str, Tensor], generators: Generators) -> dict[str, Tensor]:
        """Returns `total`, nats of a text, and `tokens`."""
        self.check(pipeline)
        denoiser: Any = pipeline.denoiser
        codec: Any = pipeline.codec
        with prepared(pipeline, batch) as (raw, cond):
            example = Example(codec.encode(raw), cond, raw, codec)
            nats = []
            for number in range(self.num_times):
                streams = generators.at("bound", number)
                t = (number + streams.at("time").uniform().clamp(min=1e-9)) / self.num_times
                nats.append(masked_nats(denoiser, example, streams, t)[0])
            return {"total": finite(torch.stack(nats).double().mean(0), "bound"), "tokens": _tokens(codec, raw)}


class ExactNats(_OfTexts):
    """-log p of an autoregressive model, exactly.

    `check` raises `ValueError` for another model.
    """

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        if not hasattr(pipeline, "nats"):
            raise ValueError("likelihood=exact is that of an autoregressive model: set likelihood=none for this model")

    def __call__(self, pipeline: Pipeline, batch: Mapping[str, Tensor], generators: Generators) -> dict[str, Tensor]:
        """Returns `total`, nats of a text, and `tokens`."""
        self.check(pipeline)
        model: Any = pipeline
        raw = {name: value.to(model.device) for name, value in batch.items()}
        with torch.no_grad():
            return {"total": finite(model.nats(raw), "likelihood"), "tokens": _tokens(model.codec, raw)}


def _tokens(codec: Any, raw: Mapping[str, Tensor]) -> Tensor:
    lengths: Tensor = codec.lengths(raw)
    return lengths.cpu().double()
