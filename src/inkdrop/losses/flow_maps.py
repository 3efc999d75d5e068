"""Losses of maps between two times of the flow: MeanFlow by a derivative in time, shortcuts by two moves of half."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from inkdrop.denoiser import FlowMap
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.losses.teachers import like, settled
from inkdrop.randomness import Generators, same_dropout, sent
from inkdrop.schedules import over
from inkdrop.time_samplers import TimeSampler


class _Drawn(NamedTuple):
    """Times t and s <= t (B), x_t and the velocity eps - x_0 (B, *), and what the network is given besides."""

    t: Tensor
    s: Tensor
    x_t: Tensor
    velocity: Tensor
    cond: Mapping[str, Tensor]


class MeanFlow(Loss):
    """The error of the average velocity u from t to s, `|u - sg(v - (t - s) du/dt)|^2 / sg(error + offset)^power`.

    v is eps - x_0 and du/dt the derivative along it, by one Jacobian-vector product with the network. At s = t it is
    flow matching. The part "error" is the squared error without the divisor.

    - `time_sampler`: the law of both times, of which t is the later one.
    - `share`: the share of samples with s < t; the others have s = t.
    - `power`, `offset`: the exponent of the divisor and what is added to the error.

    `check` raises `ValueError` unless the denoiser is a flow map on the straight path. Source: Geng et al. 2025, arXiv
    2505.13447, equation 11 and section 4.3.
    """

    def __init__(
        self,
        time_sampler: TimeSampler,
        share: Annotated[float, Ge(0), Le(1)] = 0.5,
        power: Annotated[float, Ge(0)] = 1.0,
        offset: Annotated[float, Gt(0)] = 1e-3,
    ):
        super().__init__()
        self.time_sampler, self.share, self.power, self.offset = time_sampler, share, power, offset

    def check(self, denoiser: FlowMap) -> None:
        _require_straight(denoiser, self.time_sampler, "mean_flow")

    def forward(
        self, denoiser: FlowMap, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        drawn = _draw(self, denoiser, example, generators, t)
        x_t, rate = drawn.x_t, denoiser.schedule.c_noise(torch.tensor([0.0, 1.0], dtype=torch.float64)).diff()
        c_t, c_s = (like(denoiser.schedule.c_noise(each), x_t) for each in (drawn.t, drawn.s))
        aimed = denoiser.aimed(x_t, c_s, drawn.cond)

        def average(x: Tensor, c_noise: Tensor) -> Tensor:
            output: Tensor = denoiser.network(x, c_noise, **aimed)
            return output

        same_dropout(generators)
        with sdpa_kernel(SDPBackend.MATH):  # the others have no forward-mode derivative
            slopes = (drawn.velocity, like(rate, x_t).expand(len(x_t)))
            with warnings.catch_warnings():  # torch warns of its own use of torch.jit
                warnings.simplefilter("ignore", FutureWarning)
                outputs: Any = torch.func.jvp(average, (x_t, c_t), slopes)
        u, change = outputs
        target = drawn.velocity - over(drawn.t - drawn.s, x_t) * change.detach()
        error = example.mean((u - target).square())
        loss, factor = settled(example, error / (error.detach() + self.offset) ** self.power, None)
        return LossTerms(loss, drawn.t, {"error": error}, factor)


class Shortcut(Loss):
    """The error of a move from t to s against two moves of half its length, `|u - sg((u_1 + u_2) / 2)|^2`.

    At s = t, or below the shortest move, it is flow matching, `|u - (eps - x_0)|^2`.

    - `time_sampler`: the law of both times, of which t is the later one.
    - `share`: the share of samples with s < t; the others have s = t.
    - `shortest`: the length t - s below which the velocity of the data is the target.

    `check` raises `ValueError` unless the denoiser is a flow map on the straight path. Source: Frans et al. 2025, arXiv
    2410.12557, equation 5, with moves of any length.
    """

    def __init__(
        self,
        time_sampler: TimeSampler,
        share: Annotated[float, Ge(0), Le(1)] = 0.5,
        shortest: Annotated[float, Ge(0), Le(1)] = 0.02,
    ):
        super().__init__()
        self.time_sampler, self.share, self.shortest = time_sampler, share, shortest

    def check(self, denoiser: FlowMap) -> None:
        _require_straight(denoiser, self.time_sampler, "shortcut")

    def forward(
        self, denoiser: FlowMap, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        drawn = _draw(self, denoiser, example, generators, t)
        long = (drawn.t - drawn.s > self.shortest).nonzero().squeeze(1)
        target = drawn.velocity
        if len(long):
            at = sent(long, target.device)
            chosen = _Drawn(drawn.t[long], drawn.s[long], drawn.x_t[at], target[at], _chosen(drawn.cond, at))
            target = target.index_copy(0, at, self._two_moves(denoiser, chosen, generators).to(target.dtype))
        u = self._velocity(denoiser, drawn.x_t, drawn.t, drawn.s, drawn.cond, generators)
        error = example.mean((u - target).square())
        loss, factor = settled(example, error, None)
        return LossTerms(loss, drawn.t, {"error": error}, factor)

    @torch.no_grad()
    def _two_moves(self, denoiser: FlowMap, drawn: _Drawn, generators: Generators) -> Tensor:
        """Returns the average velocity (B, *) of two moves that meet in the middle."""
        middle = (drawn.t + drawn.s) / 2
        first = self._velocity(denoiser, drawn.x_t, drawn.t, middle, drawn.cond, generators)
        x = drawn.x_t - over(drawn.t - middle, first) * first
        return (first + self._velocity(denoiser, x, middle, drawn.s, drawn.cond, generators)) / 2

    def _velocity(
        self, denoiser: FlowMap, x: Tensor, t: Tensor, s: Tensor, cond: Mapping[str, Tensor], generators: Generators
    ) -> Tensor:
        same_dropout(generators)
        until = denoiser.schedule.c_noise(s)
        return denoiser.output(x, denoiser.schedule.point(t), denoiser.aimed(x, until, cond))[0]


def _draw(
    loss: MeanFlow | Shortcut, denoiser: FlowMap, example: Example, generators: Generators, t: Tensor | None
) -> _Drawn:
    """Draws both times, and the noise of a batch."""
    first, second = (loss.time_sampler(denoiser.schedule, generators.at(name)).t for name in ("time", "until"))
    first = first if t is None else t.to(first)
    t, s = torch.maximum(first, second) if t is None else first, torch.minimum(first, second)
    s = torch.where(generators.at("share").uniform() < loss.share, s, t)
    now = denoiser.schedule.point(t)
    x_t, eps = denoiser.noise.within(example.batch).corrupt(example.x_0, now, generators.at("noise"))
    return _Drawn(t, s, x_t, eps - example.x_0, denoiser.prepare(x_t, now, example.cond, generators.at("prepare")))


def _chosen(cond: Mapping[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    return {name: value[index] for name, value in cond.items()}


def _require_straight(denoiser: Any, time_sampler: TimeSampler, name: str) -> None:
    """Raises `ValueError` unless a denoiser is a flow map whose output is the velocity of (1 - t) x_0 + t eps."""
    if not hasattr(denoiser, "toward"):
        raise ValueError(f"loss={name} trains a map between two times: set denoiser=flow_map")
    t = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    point = denoiser.schedule.point(t)
    straight = torch.allclose(point.alpha, 1 - t) and torch.allclose(point.sigma, t)
    weights = [float(each) for each in denoiser.prediction.target_weights(denoiser.schedule.points([0.5])[0])]
    if not straight or weights != [-1.0, 1.0]:
        raise ValueError(f"loss={name} needs the straight path and its velocity: set schedule=linear prediction=flow")
    time_sampler.quantile(denoiser.schedule, torch.tensor([0.5]).double())
