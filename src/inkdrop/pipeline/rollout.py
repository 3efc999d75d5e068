"""The pipeline of forecasts: step after step, under the state of what was drawn before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inkdrop.constraints import Constraint
from inkdrop.denoiser import Condition, Denoiser
from inkdrop.errors import require_finite
from inkdrop.noises import NoiseSource
from inkdrop.pipeline.base import Pipeline
from inkdrop.randomness import Generators
from inkdrop.samplers.base import Progress


class Rollout(Pipeline):
    """A pipeline that draws x (B, C, T) step by step: each step by the whole sampler, under the state of those before.

    Its conditioner has `start(batch)` and `advance(state, x)`, and its network takes any number of steps, each under
    its own part of the condition. The random streams of step k are those at `rollout` k, so that steps are independent
    and a longer forecast begins like a shorter one. The arguments are those of `Pipeline`; `check` raises `ValueError`
    for a conditioner without a state, and for a constraint, which acts on whole samples. Source: Rasul et al. 2021,
    arXiv 2101.12072, algorithm 2.
    """

    def example(self, count: int) -> dict[str, Tensor]:
        batch = super().example(count)
        return {**batch, "x": batch["history"][..., -1:].expand(-1, -1, self.shape[1])}

    def guided(self, batch: Mapping[str, Tensor]) -> tuple[Denoiser, Condition]:
        """Does what that of `Pipeline` does; without data in the batch, the condition is that of the first step."""
        if "x" in batch:
            return super().guided(batch)
        return self._guided(batch), self.conditioner.start(batch)[0]  # type: ignore[operator]

    def _guided(self, batch: Mapping[str, Tensor]) -> Denoiser:
        denoiser = self.denoiser.begin()
        for guide in self.guidance.values():
            denoiser = guide(denoiser, self, batch)
        return denoiser

    @torch.no_grad()
    def check(self) -> None:
        if not hasattr(self.conditioner, "advance"):
            raise ValueError(
                f"a rollout needs a conditioner with a state, and {type(self.conditioner).__name__} has none: set "
                "conditioner=recurrent"
            )
        if len(self.shape) != 2:
            raise ValueError(f"a rollout draws series [C,T], not samples of shape {list(self.shape)}: set data")
        if self.constraint is not None:
            raise ValueError("a rollout draws step by step and takes no constraint: set constraint=null")
        super().check()

    def invert(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Raises `ValueError`: the noise of a rollout belongs to its steps."""
        raise ValueError("a rollout draws step by step and cannot be inverted: remove the origin")

    @torch.no_grad()
    def draw(
        self,
        batch: Mapping[str, Tensor],
        generators: Generators,
        shape: Sequence[int] | None = None,
        data: Tensor | None = None,
        t_start: float = 1.0,
        constraint: Constraint | None = None,
        progress: Progress | None = None,
        eps: Tensor | None = None,
        named: Sequence[int] | None = None,
    ) -> Tensor:
        """Draws raw data (B, C, T), one sample per random stream; see `Pipeline.draw`.

        The length of `shape` is that of the forecast. `progress` is called after each step with x so far, which is 0
        where nothing is drawn. Raises `ValueError` for a start from data or noise, and for a constraint.
        """
        if data is not None or eps is not None or constraint is not None or self.constraint is not None:
            raise ValueError("a rollout draws step by step, from noise alone: remove origin and constraint")
        raw = {name: value.to(self.device) for name, value in batch.items() if name != "x"}
        channels, steps = shape or self.shape
        x = torch.zeros(len(generators), channels, steps, device=self.device)
        law = self.denoiser.noise.within(raw)
        training = self.training
        self.eval()
        try:
            cond, state = self.conditioner.start(raw)  # type: ignore[operator]
            for step in range(steps):
                streams = generators.at("rollout", step)
                start = law((channels, 1), streams.at("start")).to(self.device)
                drawn = self.sampler(self._guided(raw), start, cond, NoiseSource(law, streams), t_start=t_start)
                x[..., step : step + 1] = drawn
                if progress is not None:
                    progress(step + 1, steps, x)
                if step + 1 < steps:
                    cond, state = self.conditioner.advance(state, drawn)  # type: ignore[operator]
        finally:
            self.train(training)
        require_finite(x, "the samples with seeds", list(named or range(len(x))))
        return self.codec.decode(x, raw)
