"""A small rollout and its data, which tests of forecasts share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inkdrop.codecs import Increments
from inkdrop.conditioners import Recurrent
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.networks import MLP, Stepwise
from inkdrop.pipeline import Rollout
from inkdrop.predictions import NoisePrediction
from inkdrop.samplers import Ancestral
from inkdrop.schedules import linear_beta
from inkdrop.time_grids import Trailing

CHANNELS, STEPS, HISTORY = 3, 6, 12


def rollout(**options: object) -> Rollout:
    """A rollout of random weights over three channels and six steps."""
    torch.manual_seed(0)
    network = Stepwise(MLP([CHANNELS], 16, 1, vector_dim=8))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    schedule = linear_beta(20, beta_start=1e-3, beta_end=0.3)
    conditioner = Recurrent(Increments(CHANNELS), [CHANNELS, STEPS], 8, **{"context": 4, "lags": [1, 2], **options})  # type: ignore[arg-type]
    return Rollout(
        NetworkDenoiser(network, schedule, NoisePrediction()),
        conditioner,
        Increments(CHANNELS),
        Ancestral(Trailing(5)),
        [CHANNELS, STEPS],
    ).eval()


def histories(count: int) -> dict[str, Tensor]:
    """Random walks (B, 3, 12)."""
    generator = torch.Generator().manual_seed(1)
    return {"history": 5 + torch.randn(count, CHANNELS, HISTORY, generator=generator).cumsum(-1)}
