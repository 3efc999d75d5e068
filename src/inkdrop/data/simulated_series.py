"""Series whose law is known, and series in thousands of dimensions."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from inkdrop.data.loaders import Derive, Split
from inkdrop.data.windows import Windows
from inkdrop.randomness import Generators

_BURNED = 200  # first steps that are left out, after which the law is stationary


class VectorAutoregression(Windows):
    """A vector autoregression of order 1, `y_k = A y_(k-1) + S z_k` with normal z, whose forecasts are known.

    A is `memory` times an orthogonal matrix and S is lower triangular, both the same for all seeds. Held-out windows
    have them as `transition` and `shock` (C, C), by which metrics of forecasts draw the known law. Arguments beyond
    those of `Windows`:

    - `num_steps`: number of steps of the series.
    - `memory`: the modulus of the eigenvalues of A.
    """

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        history: Annotated[int, Ge(2)],
        num_windows: Annotated[int, Ge(1)],
        num_steps: Annotated[int, Ge(1), Le(10_000_000)],
        memory: Annotated[float, Ge(0), Lt(1)] = 0.9,
        train_steps: Annotated[int, Ge(1)] | None = None,
        horizon: Annotated[int, Ge(1)] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(
            shape, num_classes, batch_size, history, num_windows, train_steps, horizon, seed, derive=derive
        )
        self.num_steps, self.memory = num_steps, memory

    def law(self) -> tuple[Tensor, Tensor]:
        """Returns A and S (C, C) in float64."""
        channels = self.shape[0]
        drawn = _normal("law", (2, channels, channels))
        rotation = torch.linalg.qr(drawn[0]).Q
        return self.memory * rotation, torch.eye(channels).double() + 0.5 * drawn[1].tril(-1)

    def values(self) -> Tensor:
        transition, shock = self.law()
        shocks = _normal("shocks", (_BURNED + self.num_steps, self.shape[0])) @ shock.T
        rows, y = [], torch.zeros(self.shape[0]).double()
        for each in shocks:
            y = transition @ y + each
            rows.append(y)
        return torch.stack(rows[_BURNED:]).float()

    def fields(self, count: int) -> Split:
        return {
            name: each.float().repeat(count, 1, 1)
            for name, each in zip(("transition", "shock"), self.law(), strict=True)
        }


class LowRank(Windows):
    """Many series that follow few: `y_k = b + W f_k + s z_k` with `rank` autoregressive factors f and normal z.

    Each factor is `f_k = memory f_(k-1) + sqrt(1 - memory^2) u_k`, the loadings W (C, rank) are normal, and the levels
    b are uniform from 5 to 15; all are the same for all seeds. Arguments beyond those of `Windows`:

    - `num_steps`: number of steps of the series.
    - `rank`: number of factors.
    - `memory`: how much of a factor remains after a step.
    - `noise`: the deviation s of what each series has for itself.
    """

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        history: Annotated[int, Ge(2)],
        num_windows: Annotated[int, Ge(1)],
        num_steps: Annotated[int, Ge(1), Le(1_000_000)],
        rank: Annotated[int, Ge(1)] = 4,
        memory: Annotated[float, Ge(0), Lt(1)] = 0.7,
        noise: Annotated[float, Gt(0)] = 0.3,
        train_steps: Annotated[int, Ge(1)] | None = None,
        horizon: Annotated[int, Ge(1)] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(
            shape, num_classes, batch_size, history, num_windows, train_steps, horizon, seed, derive=derive
        )
        self.num_steps, self.rank, self.memory, self.noise = num_steps, rank, memory, noise

    def values(self) -> Tensor:
        channels = self.shape[0]
        shocks = _normal("factors", (_BURNED + self.num_steps, self.rank))
        rows, factors = [], torch.zeros(self.rank).double()
        for each in shocks:
            factors = self.memory * factors + (1 - self.memory**2) ** 0.5 * each
            rows.append(factors)
        loadings = _normal("loadings", (channels, self.rank)).float()
        levels = 5 + 10 * Generators.from_seeds([0]).at("series", 1).uniform((channels,), torch.float32)[0]
        own = _normal("own", (self.num_steps, channels)).float()
        return levels + torch.stack(rows[_BURNED:]).float() @ loadings.T + self.noise * own


def _normal(purpose: str, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers in float64 that depend on purpose and shape alone."""
    return Generators.from_seeds([0]).at(f"series {purpose}").normal(shape, torch.float64)[0]
