"""Which times a network is trained at."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule


class TimeSampler(ABC):
    """Draws one time per sample."""

    @abstractmethod
    def __call__(self, schedule: Schedule, generators: Generators) -> Tensor:
        """Times (B) in float64, one for each stream."""


class DiscreteUniform(TimeSampler):
    """t = i / T with i uniform in 1 ... T. `ValueError` if the schedule is not a table."""

    def __call__(self, schedule: Schedule, generators: Generators) -> Tensor:
        num_timesteps = getattr(schedule, "num_timesteps", None)
        if num_timesteps is None:
            raise ValueError(
                f"{type(schedule).__name__} has no discrete steps to draw from: choose time_sampler=uniform"
            )
        return (torch.floor(generators.uniform() * num_timesteps) + 1) / num_timesteps


class Uniform(TimeSampler):
    """t uniform in [t_min, 1), with the schedule's own t_min."""

    def __call__(self, schedule: Schedule, generators: Generators) -> Tensor:
        return schedule.t_min + (1 - schedule.t_min) * generators.uniform()
