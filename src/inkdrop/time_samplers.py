"""Time samplers: the law of the training times."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule

_BLOCK = 16  # items; large parts of a split contain many blocks


class Times(NamedTuple):
    """Times t (B), the numbers u (B) in [0, 1) from which they were computed, and factors (B) on their loss."""

    t: Tensor
    u: Tensor | None  # None if the times were given
    importance: Tensor | None = None  # makes the mean loss independent of the law of the times; None is 1


class TimeSampler(nn.Module):
    """Draws one training time per sample. Its state, if there is any, is saved in checkpoints."""

    @abstractmethod
    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        """Returns the quantiles (B) of the law of the times at u (B), in float64."""

    def forward(self, schedule: Schedule, generators: Generators) -> Times:
        """Draws times (B) in float64, one for each stream."""
        u = generators.uniform()
        return Times(self.quantile(schedule, u), u)

    def observe(self, times: Times, loss: Tensor) -> None:
        """Receives the losses (B) at these times after each training batch; by default ignored."""


class DiscreteUniform(TimeSampler):
    """Times t = i / T with i uniform in 1 ... T, for discrete schedules.

    Raises `ValueError` if the schedule is not discrete.
    """

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        if schedule.num_timesteps is None:
            raise ValueError(
                f"{type(schedule).__name__} has no discrete steps to draw from: choose time_sampler=uniform"
            )
        return (torch.floor(u * schedule.num_timesteps) + 1) / schedule.num_timesteps


class Uniform(TimeSampler):
    """Times uniform in [t_min, 1), where t_min is that of the schedule."""

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return schedule.t_min + (1 - schedule.t_min) * u


def even(schedule: Schedule) -> TimeSampler:
    """Returns the law under which all trained times of the schedule are equally likely."""
    return Uniform() if schedule.num_timesteps is None else DiscreteUniform()


def spread(schedule: Schedule, items: Sequence[int]) -> Tensor:
    """Returns fixed times (B) for the items with these numbers, spread evenly over any part of a split.

    Multiples of the golden ratio modulo 1 are assigned to items in a random order within blocks of 16. The times of
    consecutive items are thus spread evenly, and those of every k-th item, such as a class, are no worse than random.
    """
    numbers = np.array(items, np.int64)
    starts = numbers - numbers % _BLOCK
    block = (starts[:, None] + np.arange(_BLOCK)).reshape(-1).tolist()
    keys = Generators.from_positions(0, block).at("validation", 0).keys.reshape(-1, _BLOCK)
    key = np.take_along_axis(keys, (numbers - starts)[:, None], axis=1)
    mixed = starts + (keys < key).sum(axis=1)
    u = Generators.from_positions(0, mixed.tolist()).at("validation", 1).spread()
    return even(schedule).quantile(schedule, u)


class LogNormalSigma(TimeSampler):
    """Times with log(sigma / alpha) ~ N(mean, std^2) on any schedule, clamped to its ends.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1 (-1.2, 1.2).
    """

    def __init__(self, mean: float = -1.2, std: Annotated[float, Gt(0)] = 1.2):
        super().__init__()
        self.mean, self.std = mean, std

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        ends = schedule.log_snr(torch.tensor([1.0, schedule.t_min], dtype=torch.float64))
        log_sigma = self.mean + self.std * torch.special.ndtri(u)
        return schedule.time((-2 * log_sigma).clamp(*ends.tolist()))


class LogitNormal(TimeSampler):
    """Times with log(t / (1 - t)) ~ N(mean, std^2), at least t_min.

    Source: Esser et al. 2024, arXiv 2403.03206, equation 19 (0, 1).
    """

    def __init__(self, mean: float = 0.0, std: Annotated[float, Gt(0)] = 1.0):
        super().__init__()
        self.mean, self.std = mean, std

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u)).clamp(min=schedule.t_min)


class Stratified(TimeSampler):
    """Times of another law, spread evenly over each batch and over the ranks, which lowers the variance of the loss.

    Source: Kingma et al. 2021, arXiv 2107.00630, appendix I.1, with multiples of the golden ratio instead of equal
    strata, so that the time of a sample does not depend on the batch.
    """

    def __init__(self, law: TimeSampler):
        super().__init__()
        self.law = law

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return self.law.quantile(schedule, u)

    def forward(self, schedule: Schedule, generators: Generators) -> Times:
        u = generators.spread()
        return Times(self.quantile(schedule, u), u)


class LossAware(TimeSampler):
    """Times of another law with importance sampling: more often where the loss is large, and with a smaller factor.

    A bin of u is drawn in proportion to the root mean square of its last losses. Until every bin has enough losses, all
    are equally likely.

    - `law`: the law without importance sampling.
    - `num_bins`: the number of bins of u.
    - `num_losses`: the number of losses that are kept for each bin.
    - `uniform`: the share of draws that ignores the losses.

    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, section 3.3 and equation 18 (10 losses at each step of the
    chain).
    """

    losses: Tensor
    counts: Tensor

    def __init__(
        self,
        law: TimeSampler,
        num_bins: Annotated[int, Ge(2)] = 100,
        num_losses: Annotated[int, Ge(1)] = 10,
        uniform: Annotated[float, Gt(0), Le(1)] = 0.001,
    ):
        super().__init__()
        self.law, self.uniform = law, uniform
        self.register_buffer("losses", torch.zeros(num_bins, num_losses, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_bins, dtype=torch.int64))

    def quantile(self, schedule: Schedule, u: Tensor) -> Tensor:
        return self.law.quantile(schedule, u)

    def forward(self, schedule: Schedule, generators: Generators) -> Times:
        shares = self._shares()
        above = shares.cumsum(0)
        drawn = generators.uniform()
        chosen = torch.searchsorted(above, drawn, right=True).clamp(max=len(shares) - 1)
        within = (drawn - (above[chosen] - shares[chosen])) / shares[chosen]
        u = (chosen + within.clamp(0, 1 - 1e-12)) / len(shares)
        return Times(self.quantile(schedule, u), u, 1 / (len(shares) * shares[chosen]))

    def _shares(self) -> Tensor:
        """Returns the probability of each bin, (bins), on the CPU."""
        num_bins, num_losses = self.losses.shape
        if bool((self.counts < num_losses).any()):
            return torch.full((num_bins,), 1 / num_bins, dtype=torch.float64)
        root = self.losses.square().mean(1).sqrt().cpu()
        return (1 - self.uniform) * root / root.sum() + self.uniform / num_bins

    @torch.no_grad()
    def observe(self, times: Times, loss: Tensor) -> None:
        assert times.u is not None, "given times are not observed"
        batch = torch.stack([times.u.to(loss.device), loss.double()])
        if torch.distributed.is_initialized():
            parts = [torch.empty_like(batch) for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather(parts, batch)
            batch = torch.cat(parts, dim=1)
        u, losses = batch.cpu()
        num_bins, num_losses = self.losses.shape
        for number, value in zip((u * num_bins).long().tolist(), losses.tolist(), strict=True):
            if math.isfinite(value):  # the others belong to a step that is refused
                self.losses[number, self.counts[number] % num_losses] = value
                self.counts[number] += 1
