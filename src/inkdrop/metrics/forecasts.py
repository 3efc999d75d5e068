"""How well samples forecast series, next to a random walk and to standing still."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.data.loaders import Batch, Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.paired import grouped
from inkdrop.randomness import Generators

_LEVELS = np.arange(1, 20) / 20  # of the quantiles of the protocol


@dataclass(frozen=True)
class Forecast(Metric):
    """Compares the samples of each held-out window (C, T) with what came: `{title}`.

    Where items have a `history` (C, L), the baselines are `persistence`, which stays at its last value, and
    `random_walk`, whose steps are normal with the covariance of those of the history and without drift. Where they
    follow a vector autoregression, whose matrices (C, C) are the fields `transition` and `shock`, it is `known_law`.
    Where gaps are filled in, the baseline is `interpolation`, the straight line between known neighbours.

    - `horizon`: number of steps at the end of a window that count; those before are known. Null is all.
    - `mask_field`: a field of masks (N, 1, T); only the steps count where they are 0. Null is all steps.

    Raises `ValueError` if the data are no series, or if there is no such field.
    """

    horizon: Annotated[int, Ge(1)] | None = None
    mask_field: str | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    paired: ClassVar[bool] = True
    title: ClassVar[str]

    @abstractmethod
    def scored(self, samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the errors (B, *) of forecasts (B, K, C, T) of a truth (B, C, T), and what they are relative to."""

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        if len(held_out["x"].shape) != 3:
            shape = list(held_out["x"].shape[1:])
            raise ValueError(f"{type(self).__name__} compares series [C,T], not data of shape {shape}: set metric")
        if self.horizon is not None and self.horizon > held_out["x"].shape[2]:
            raise ValueError(
                f"horizon={self.horizon} of {type(self).__name__} is longer than a window of "
                f"{held_out['x'].shape[2]} steps: lower it"
            )
        if self.mask_field is not None and tuple(held_out.get(self.mask_field, held_out["x"]).shape[1:2]) != (1,):
            raise ValueError(
                f"mask_field={self.mask_field} of {type(self).__name__} is not a field of masks [1,T] "
                f"(available: {', '.join(held_out)}): set it to one of these, or to null"
            )

    def baselines(self, items: Batch, generators: Generators) -> dict[str, Tensor]:
        x = items["x"]
        if self.mask_field is not None:
            return {"interpolation": _interpolated(x, items[self.mask_field] > 0)}
        if "history" not in items:
            return {}
        known = x[..., : x.shape[-1] - self._steps(x)]
        history = torch.cat([items["history"], known], -1).double()
        last, (channels, steps) = history[..., -1:], (x.shape[1], self._steps(x))
        noise = generators.at("walk").normal((history.shape[-1] - 1, steps), torch.float64)
        made = {"persistence": last.expand(-1, -1, steps), "random_walk": _walk(history, noise)}
        if "transition" in items:
            law = items["transition"].double(), items["shock"].double()
            noise = generators.at("law").normal((steps, channels), torch.float64)
            made["known_law"] = _autoregression(last[..., 0], *law, noise)
        return {name: torch.cat([known, values.to(x.dtype)], -1) for name, values in made.items()}

    def _steps(self, x: Tensor) -> int:
        return self.horizon or x.shape[-1]

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        error, size, count = 0.0, 0.0, 0.0
        for items, x, truth in grouped(samples, held_out, self.title):
            counted = torch.arange(truth.shape[-1]) >= truth.shape[-1] - self._steps(truth)
            counted = counted.double().expand(len(truth), 1, -1)
            if self.mask_field is not None:
                counted = counted * (held_out.items[self.mask_field][items] == 0)
            errors, sizes = self.scored(x, truth)
            counted = counted[:, 0] if errors.dim() == 2 else counted.expand_as(errors)
            error, count = error + float((errors * counted).sum()), count + float(counted.sum())
            size += 0.0 if sizes is None else float((sizes * counted).sum())
        if not count:
            raise ValueError(f"{self.title} has no step to compare: mask_field={self.mask_field} hides nothing")
        return {self.title: error / (size or count)}


def _interpolated(x: Tensor, known: Tensor) -> Tensor:
    """Series x (B, C, T) with straight lines where they are not known (B, 1, T), and level ones at the ends."""
    steps, lines = np.arange(x.shape[-1]), x.clone()
    for each, mask in zip(lines, known[:, 0].cpu().numpy(), strict=True):
        for channel in each:
            channel[:] = torch.from_numpy(np.interp(steps, steps[mask], channel.numpy()[mask])).to(x.dtype)
    return lines


def _walk(history: Tensor, noise: Tensor) -> Tensor:
    """Walks (B, C, T) from histories (B, C, L) by normal noise (B, L - 1, T), with the moments of their steps.

    A step is `M z / sqrt(L - 1)`, where M (C, L - 1) are the steps of the history.
    """
    moves = history.diff(dim=-1)
    return history[..., -1:] + (moves @ noise / moves.shape[-1] ** 0.5).cumsum(-1)


def _autoregression(last: Tensor, transition: Tensor, shock: Tensor, noise: Tensor) -> Tensor:
    """Paths (B, C, T) of `y_k = A y_(k-1) + S z_k` from values (B, C), by normal noise (B, T, C)."""
    path, y = [], last
    for z in noise.unbind(1):
        y = (transition @ y[..., None] + shock @ z[..., None])[..., 0]
        path.append(y)
    return torch.stack(path, -1)


def quantiles(samples: Tensor) -> Tensor:
    """Returns the quantiles (Q, B, *) of samples (B, K, *) at 0.05, 0.1, ..., 0.95, as GluonTS: samples themselves."""
    ordered = samples.sort(1).values
    return torch.stack([ordered[:, round((samples.shape[1] - 1) * level)] for level in _LEVELS.tolist()])


def _quantile_loss(samples: Tensor, truth: Tensor) -> Tensor:
    """The mean quantile loss (B, *) of samples (B, K, *), twice the pinball loss, over the levels."""
    levels = torch.from_numpy(_LEVELS).reshape(-1, *[1] * truth.dim())
    forecast = quantiles(samples)
    return 2 * ((forecast - truth) * ((truth <= forecast).double() - levels)).abs().mean(0)


@dataclass(frozen=True)
class SummedCRPS(Forecast):
    """The CRPS of the sum of all channels by quantiles, relative to the mean size of that sum: `crps_sum`.

    It is the mean quantile loss at 0.05, 0.1, ..., 0.95, divided by the mean of the absolute truth, over all windows
    and steps. Source: Salinas et al. 2019, arXiv 1910.03002, section 4.
    """

    title: ClassVar[str] = "crps_sum"

    def scored(self, samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor | None]:
        return _quantile_loss(samples.sum(2), truth.sum(1)), truth.sum(1).abs()


@dataclass(frozen=True)
class CRPS(Forecast):
    """The continuous ranked probability score of each number, `E|X - y| - E|X - X'| / 2`, its mean: `crps`.

    Both expectations are over the samples, and the unit is that of the data. Source: Gneiting and Raftery 2007, JASA
    102, section 4.2.
    """

    title: ClassVar[str] = "crps"

    def scored(self, samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor | None]:
        count = samples.shape[1]
        ranks = (2 * torch.arange(1, count + 1) - count - 1).double().reshape(-1, 1, 1)
        spread = (samples.sort(1).values * ranks).sum(1) / count**2  # half of E|X - X'|
        return (samples - truth[:, None]).abs().mean(1) - spread, None


@dataclass(frozen=True)
class NormalizedDeviation(Forecast):
    """The absolute error of the median, relative to the mean size of the truth: `nd`.

    The median is the middle sample, as in GluonTS. Source: Yu et al. 2016, NIPS, section 5.
    """

    title: ClassVar[str] = "nd"

    def scored(self, samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor | None]:
        median = samples.sort(1).values[:, round((samples.shape[1] - 1) * 0.5)]
        return (median - truth).abs(), truth.abs()


@dataclass(frozen=True)
class EnergyScore(Forecast):
    """The energy score of the vector of channels at each step, `E|X - y| - E|X - X'| / 2`, its mean: `energy_score`.

    The norms are Euclidean, and both expectations are over the samples. Source: Gneiting and Raftery 2007, JASA 102,
    section 4.3.
    """

    title: ClassVar[str] = "energy_score"

    def scored(self, samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor | None]:
        error = (samples - truth[:, None]).norm(dim=2).mean(1)
        points = samples.permute(0, 3, 1, 2)  # (B, T, K, C)
        spread = torch.stack([torch.cdist(each, each).mean((1, 2)) for each in points])
        return error - spread / 2, None
