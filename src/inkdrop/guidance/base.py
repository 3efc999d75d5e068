"""Guidance changes what a denoiser says, and samplers never hear of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from inkdrop.denoiser import Denoiser

if TYPE_CHECKING:
    from inkdrop.pipeline import Pipeline


class Guidance(ABC):
    """A factory, called once per sampling call, so that a wrapper with a memory starts afresh each time.

    `names` are the conditions that it reads of a raw batch beside those of the model.
    """

    names: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, denoiser: Denoiser, pipeline: Pipeline, batch: Mapping[str, Any]) -> Denoiser:
        """A denoiser around `denoiser`; the pipeline knows how to make and to empty conditions."""

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """What it needs of a raw batch for samples with these seeds, from a user's words."""
        return {}
