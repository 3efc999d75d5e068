"""A small model of texts with learned vectors, which tests of Diffusion-LM share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import WordEmbedding, Words, inner_products
from inkdrop.codecs.word_embedding import Rounding
from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.files.texts import encoded
from inkdrop.guidance import Guidance
from inkdrop.networks import DiT
from inkdrop.noises import Noise
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction
from inkdrop.samplers import Ancestral
from inkdrop.schedules import sqrt
from inkdrop.time_grids import Trailing

LENGTH, DIM, BYTES = 6, 4, 40
SCHEDULE = sqrt(20)
TEXTS = ["a red pub .", "a blue pub", "the red cafe is near", "a cafe", "the pub"]


def texts(count: int) -> Tensor:
    """The first texts, again and again, (B, W)."""
    return nn.functional.pad(encoded([TEXTS[i % len(TEXTS)] for i in range(count)]), (0, 20))


def fitted(rounding: Rounding = inner_products, dim: int = DIM, **options: Any) -> WordEmbedding:
    """The codec of these texts, which are their own sources too."""

    def batches(*_: Any) -> Iterator[dict[str, Tensor]]:
        yield {"x": texts(5), "source": texts(5)}

    torch.manual_seed(0)
    words = WordEmbedding(LENGTH, BYTES, dim, SCHEDULE, Words(num_words=9), rounding, **options)
    words.fit(batches, torch.device("cpu"))
    return words


def text_pipeline(
    guidance: dict[str, Guidance] | None = None, noise: Noise | None = None, num_steps: int = 5, **options: Any
) -> Pipeline:
    """A model of random weights over six tokens, or over those of a source too."""
    codec = fitted(**options)
    shape = codec.shape([BYTES])
    network = DiT(shape, 1, 16, 1, 2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    denoiser = NetworkDenoiser(network, SCHEDULE, DataPrediction(), noise)
    return Pipeline(denoiser, Unconditional(), codec, Ancestral(Trailing(num_steps)), shape, guidance).eval()
