"""What all guidance promises. It changes the estimates of a denoiser, and samplers need not know of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from inkdrop.codecs import Codec
from inkdrop.conditioners import Conditioner
from inkdrop.denoiser import Denoiser
from inkdrop.samplers import Sampler


class Guided(Protocol):
    """The part of a pipeline that guidance may use; `shape` is that of x without the batch."""

    conditioner: Conditioner
    codec: Codec
    sampler: Sampler
    shape: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """The device of the model."""

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest value of x that the codec knows; None where it knows none."""


class Guidance(ABC):
    """A factory of guided denoisers. It is called once per sampling call, so that their state starts afresh.

    `names` are the conditions that it reads from a raw batch in addition to those of the model.
    """

    names: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        """Returns a guided denoiser around `denoiser`; the pipeline computes and empties conditions."""

    def check(self, pipeline: Guided) -> None:  # noqa: B027
        """Raises `ValueError` if this guidance cannot guide the model."""

    def example(self, count: int) -> dict[str, Tensor]:
        """Returns what it needs of a raw batch, whatever the condition, by which a model is checked."""
        return self.request(range(count))

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns its part of the raw batch for samples with these seeds, from the conditions that a user names."""
        return {}
