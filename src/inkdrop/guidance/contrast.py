"""Guidance by the difference of two estimates: of one network with and without the condition, or of two networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.conditioners import Conditioner
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.guidance.mixes import Linear, Mix
from inkdrop.guidance.scales import Interval, Scale, Within
from inkdrop.schedules import Point


class _Pair(ABC):
    """A pair of a strong and a weak estimate of the same x_t."""

    @abstractmethod
    def strong(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        """Returns the strong estimate alone."""

    @abstractmethod
    def both(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        """Returns the strong estimate, and x_0 of the weak one."""

    @abstractmethod
    def select(self, index: Tensor) -> None:
        """Applies a permutation or selection of the batch."""


class _Halves(_Pair):
    """The conditional and the unconditional half of one batch of 2 B."""

    def __init__(self, denoiser: Denoiser, null: Condition, emptied: Collection[str]):
        self.denoiser, self.null, self.emptied = denoiser, dict(null), set(emptied)
        self.halves = 1  # rows for each sample in the last call, of which a denoiser may keep state

    def strong(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        self._keep(1, x_t)
        return self.denoiser(x_t, now, cond)

    def both(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        self._keep(2, x_t)
        both = {name: torch.cat([value, self.null[name].to(value.dtype)]) for name, value in cond.items()}
        x_0, extras = self.denoiser(torch.cat([x_t, x_t]), now, both)
        strong, weak = x_0.chunk(2)
        return Estimate(strong, {name: value.chunk(2)[0] for name, value in extras.items()}), weak

    def _keep(self, halves: int, x_t: Tensor) -> None:
        if halves != self.halves:
            self.denoiser.select(torch.arange(len(x_t), device=x_t.device).repeat(halves))
            self.halves = halves

    def select(self, index: Tensor) -> None:
        rows = len(next(iter(self.null.values())))
        self.null = {name: value[index] for name, value in self.null.items()}
        self.denoiser.select(torch.cat([index + half * rows for half in range(self.halves)]))


class _Two(_Pair):
    """Two denoisers, each with its own condition."""

    def __init__(self, denoiser: Denoiser, weak: Denoiser, cond: Condition):
        self.denoiser, self.weak, self.cond = denoiser, weak, dict(cond)

    def strong(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.denoiser(x_t, now, cond)

    def both(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        return self.denoiser(x_t, now, cond), self.weak(x_t, now, self.cond).x_0

    def select(self, index: Tensor) -> None:
        self.cond = {name: value[index] for name, value in self.cond.items()}
        self.denoiser.select(index)
        self.weak.select(index)


class _Contrasted(Wrapper):
    def __init__(self, denoiser: Denoiser, pair: _Pair, scale: Within, mix: Mix):
        super().__init__(denoiser)
        self.pair, self.scale, self.mix = pair, scale, mix

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        scale = self.scale(now)
        if scale is None:
            return self.pair.strong(x_t, now, cond)
        strong, weak = self.pair.both(x_t, now, cond)
        return Estimate(self.mix(strong.x_0, weak, scale), strong.extras)

    def select(self, index: Tensor) -> None:
        self.pair.select(index)
        self.mix.select(index)


class ClassifierFree(Guidance):
    """Classifier-free guidance, `D_u + w (D_c - D_u)`: away from the estimate without the condition, in one batch.

    - `scale`: the guidance scale w. 0 is the unconditional and 1 the conditional model; None is 1 at no further cost.
    - `interval`: the noise levels sigma / alpha at which guidance acts; elsewhere the conditional model is used.
    - `names`: the conditions that are emptied in D_u; None is all of them but hints.
    - `mix`: how the two estimates are combined; linear by default.

    Raises `ValueError` for a model that was not trained without these conditions. Source: Ho and Salimans 2022, arXiv
    2207.12598.
    """

    def __init__(
        self,
        scale: float | Scale | None = None,
        interval: Interval | None = None,
        names: list[str] | None = None,
        mix: Mix | None = None,
    ):
        self.scale, self.emptied, self.mix = Within(scale, interval), names, mix or Linear()

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale.scale is None:
            return denoiser
        conditioner = pipeline.conditioner
        emptied = conditioner.emptied if self.emptied is None else self.emptied
        check_trained(conditioner, emptied)
        null = conditioner.null(batch, emptied)
        if any(isinstance(getattr(each, "pair", None), _Two) for each in denoiser.modules()):
            raise ValueError("a weaker model keeps its condition: put classifier_free before autoguidance in the list")
        if any(hasattr(each, "stages") for each in denoiser.modules()):
            raise ValueError("staged has a scale for each condition already: remove classifier_free from the list")
        pairs = (getattr(each, "pair", None) for each in denoiser.modules())
        for kept in (sorted(set(emptied) - pair.emptied) for pair in pairs if isinstance(pair, _Halves)):
            if kept:
                raise ValueError(
                    f"classifier_free empties {kept[0]} around another classifier_free that keeps it, whose sum would "
                    "be wrong: put the guide that empties more conditions first in the list, or take guidance=staged, "
                    "which has a scale for each condition"
                )
        return _Contrasted(denoiser, _Halves(denoiser, null, emptied), self.scale, self.mix.begin())


def check_trained(
    conditioner: Conditioner, names: Sequence[str], instead: str = "sample with guidance.scale=null"
) -> None:
    """Raises `ValueError`, which ends with what to do `instead`, if training never emptied just these conditions."""
    if not names:
        raise ValueError("classifier-free guidance needs a condition, and this model has none: set guidance.scale=null")
    if not conditioner.empties(names):
        raise ValueError(
            f"the model was never trained without {' and '.join(names)} alone, as this guidance needs: train it with "
            f"conditioner.dropout=0.1, or {instead}"
        )


class Autoguidance(Guidance):
    """Autoguidance, `D_w + w (D - D_w)`: away from the estimate of a weaker model under the same conditions.

    - `weak`: the pipeline of the weaker model, which is smaller or trained for fewer steps, on the same schedule.
    - `scale`: the guidance scale w; 1 is the model itself, and None is the model at no further cost.
    - `interval`: the noise levels sigma / alpha at which guidance acts.
    - `mix`: how the two estimates are combined; linear by default.

    Raises `ValueError` if the two models do not fit each other. Source: Karras et al. 2024, arXiv 2406.02507.
    """

    def __init__(
        self,
        weak: Any,
        scale: float | Scale | None = None,
        interval: Interval | None = None,
        mix: Mix | None = None,
    ):
        if not hasattr(weak, "denoiser"):
            raise ValueError("guidance.checkpoint is a classifier: set guidance=classifier, or name a weaker model")
        self.weak, self.scale, self.mix = weak, Within(scale, interval), mix or Linear()

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale.scale is None:
            return denoiser
        strong, other = (each.schedule.points([0.25, 0.5, 1.0]) for each in (denoiser, self.weak.denoiser))
        if strong != other or pipeline.shape != self.weak.shape:
            raise ValueError("guidance.weak must have the schedule and the data shape of the model: name another run")
        weak = self.weak.to(pipeline.device).eval()
        pair = _Two(denoiser, weak.denoiser.begin(), weak.conditioner(batch))
        return _Contrasted(denoiser, pair, self.scale, self.mix.begin())
