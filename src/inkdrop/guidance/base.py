"""Guidance changes what a denoiser says, and samplers never hear of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from inkdrop.conditioners import Conditioner
from inkdrop.denoiser import Denoiser
from inkdrop.samplers import Sampler


class Guided(Protocol):
    """What guidance may know of the pipeline that it is called for: `shape` is that of x without the batch."""

    conditioner: Conditioner
    sampler: Sampler
    shape: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where the model is."""


class Guidance(ABC):
    """A factory, called once per sampling call, so that a wrapper with a memory starts afresh each time.

    `names` are the conditions that it reads of a raw batch beside those of the model.
    """

    names: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        """A denoiser around `denoiser`; the pipeline knows how to make and to empty conditions."""

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """What it needs of a raw batch for samples with these seeds, from a user's words."""
        return {}
