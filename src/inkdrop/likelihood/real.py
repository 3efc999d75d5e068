"""Likelihoods of real data: bits per dimension by the variational bound or by the ODE, and the loss by noise level."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser
from inkdrop.deviations import Deviation, decoder, large
from inkdrop.errors import NonFiniteError
from inkdrop.likelihood.base import Likelihood, finite, prepared
from inkdrop.losses import DenoisingLoss, Example
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators
from inkdrop.time_grids import Linspace, Trailing
from inkdrop.time_samplers import even
from inkdrop.variational import decoder_term, prior_term, step_terms
from inkdrop.weightings import Unit


def _bits(nats: Tensor, data: Tensor) -> Tensor:
    """Returns the bits per dimension of nats (B) of raw data (B, *); raises `NonFiniteError` unless all are finite."""
    return finite(nats, "likelihood") / (data[0].numel() * math.log(2))


class LossByNoiseLevel(Likelihood):
    """The unweighted error of the network's output, `|F - F*|^2`, by intervals of t.

    Each item is noised to its own time in each of `num_bins` equal intervals; the times of a discrete schedule are its
    steps. A weighted mean of it over t is the bound in continuous time. Source: Kingma and Gao 2023, arXiv 2303.00848.
    """

    unit = "loss"

    def __init__(self, num_bins: Annotated[int, Ge(1)] = 10):
        self.num_bins = num_bins

    def check(self, pipeline: Pipeline) -> None:
        """Does nothing, because this loss is defined for any noise."""

    def __call__(self, pipeline: Pipeline, batch: Mapping[str, Tensor], generators: Generators) -> dict[str, Tensor]:
        """Returns the mean of each interval, such as `0.00-0.10`, and of all intervals, `total`."""
        denoiser: Any = pipeline.denoiser
        law = even(denoiser.schedule)
        loss, means = DenoisingLoss(law, Unit()), {}
        with prepared(pipeline, batch) as (raw, cond):
            x_0 = pipeline.codec.encode(raw)
            for number in range(self.num_bins):
                streams = generators.at("loss", number)
                t = law.quantile(denoiser.schedule, (number + streams.at("time").uniform()) / self.num_bins)
                name = f"{number / self.num_bins:.2f}-{(number + 1) / self.num_bins:.2f}"
                means[name] = finite(loss(denoiser, Example(x_0, cond), streams, t).loss, "loss")
        return {"total": torch.stack(list(means.values())).mean(0), **means}


class VariationalBound(Likelihood):
    """An upper bound on -log2 p of the reverse chain: `prior + diffusion + decoder = total`, in bits per dimension.

    The smallest time of the chain is 1 / num_steps, or t_min where that is below the trained times. Each step is
    estimated without bias by one fresh noise per sample.

    - `num_steps`: the number of even steps of the chain; null is every step of a discrete schedule.
    - `deviation`: the standard deviation of the steps, as in ancestral sampling. With `large` the bound of smooth data
      becomes exact as the number of steps grows, with `small` it does not.

    `check` raises `ValueError` for a continuous schedule without `num_steps`, and for more steps than a discrete
    schedule has.
    """

    def __init__(self, num_steps: Annotated[int, Ge(1)] | None = None, deviation: Deviation = large):
        self.num_steps, self.deviation = num_steps, deviation

    def check(self, pipeline: Pipeline) -> None:
        super().check(pipeline)
        self._times(pipeline)

    def _times(self, pipeline: Pipeline) -> list[float]:
        """Returns the times t_1 < ... < t_T = 1 of the chain."""
        schedule = pipeline.denoiser.schedule
        num_steps = self.num_steps or schedule.num_timesteps
        if num_steps is None:
            raise ValueError(f"{type(schedule).__name__} has no discrete steps: set likelihood.bound.num_steps")
        grid = Trailing if num_steps * schedule.t_min <= 1 else Linspace
        return grid(num_steps)(schedule)[-2::-1]

    def __call__(self, pipeline: Pipeline, batch: Mapping[str, Tensor], generators: Generators) -> dict[str, Tensor]:
        """Returns the parts `prior`, `diffusion` and `decoder`, and their sum `total`."""
        self.check(pipeline)
        denoiser, codec = pipeline.denoiser, pipeline.codec
        chain = denoiser.schedule.points(self._times(pipeline))
        first, second = chain[0], chain[1] if len(chain) > 1 else None
        with prepared(pipeline, batch) as (raw, cond):
            data, x_0 = raw["x"], codec.encode(raw)

            def look(number: int) -> Any:
                eps = denoiser.noise(x_0.shape[1:], generators.at("bound", number), x_0.dtype).to(x_0.device)
                return denoiser(chain[number].alpha * x_0 + chain[number].sigma * eps, chain[number], cond)

            steps = [x_0.new_zeros(len(x_0))]
            for number in range(len(chain) - 1, 0, -1):
                now, next = chain[number], chain[number - 1]
                estimate, extras = look(number)
                steps.append(step_terms(x_0, estimate, now, next, self.deviation(now, next, extras)))
            estimate, extras = look(0)
            parts = {
                "prior": prior_term(x_0, chain[-1]),
                "diffusion": torch.stack(steps).sum(0),
                "decoder": decoder_term(data, estimate, decoder(first, second, extras), codec.log_probability),
            }
        bits = {name: _bits(nats, data) for name, nats in parts.items()}
        return {"total": torch.stack(list(bits.values())).sum(0), **bits}


class ODELikelihood(Likelihood):
    """-log2 p of the probability-flow ODE, in bits per dimension, within the tolerances of the integration.

    In the angle `phi = atan2(sigma, alpha)` and `z = x / sqrt(alpha^2 + sigma^2)` the flow is
    `dz/dphi = (cos(phi) z - D) / sin(phi)`, for every schedule and finite everywhere, and log p(z) changes along it by
    minus its divergence. It is integrated in log(phi) from `t_min`, where z is taken to be x_0 (an error of order
    phi^2), to t = 1, where `z ~ N(0, sin(phi)^2 I)`. Levels are spread evenly over their bins, so that the mean is an
    upper bound on -log2 of their probability. The result is then named `dequantized`.

    - `num_probes`: the number of random sign vectors per sample, constant along the path, that estimate the divergence.
      null is the exact trace, with as many backward passes as x has elements.
    - `rtol`, `atol`: the tolerances of scipy's RK45.
    - `t_min`: the time at which the integration starts; null is that of the schedule.

    Sources: Song et al. 2021, arXiv 2011.13456, section 4.3; Grathwohl et al. 2019, arXiv 1810.01367.
    """

    def __init__(
        self,
        num_probes: Annotated[int, Ge(1)] | None = 1,
        rtol: Annotated[float, Gt(0)] = 1e-5,
        atol: Annotated[float, Gt(0)] = 1e-5,
        t_min: Annotated[float, Gt(0)] | None = None,
    ):
        self.num_probes, self.rtol, self.atol, self.t_min = num_probes, rtol, atol, t_min

    def __call__(self, pipeline: Pipeline, batch: Mapping[str, Tensor], generators: Generators) -> dict[str, Tensor]:
        """Returns `total`, or `dequantized` for levels, and `network_calls`, which is the same for the whole batch."""
        from scipy.integrate import solve_ivp

        self.check(pipeline)
        with prepared(pipeline, batch) as (raw, cond):
            data = raw["x"]
            x_0, log_volume = pipeline.codec.dequantize(data, generators.at("dequantize"))
            t_min = self.t_min or pipeline.denoiser.schedule.t_min
            volume = log_volume.cpu().double().expand_as(x_0).numpy().ravel()
            flow = _Flow(pipeline.denoiser, cond, *self._probes(x_0, generators), t_min)
            z_0 = x_0.double().cpu().numpy().ravel()
            start, log_phi = np.append(z_0, np.zeros(len(x_0))), np.log(flow.phi)
            path = solve_ivp(flow, log_phi, start, method="RK45", t_eval=log_phi[1:], rtol=self.rtol, atol=self.atol)
        if not path.success:
            raise NonFiniteError(f"the probability-flow ODE cannot be integrated: {path.message}")
        z_1, gain = np.split(path.y[:, -1], [len(z_0)])
        deviation = math.sin(flow.phi[1])
        log_prior = -0.5 * (z_1 / deviation) ** 2 - math.log(deviation) - 0.5 * math.log(2 * math.pi)
        nats = -(log_prior + volume).reshape(len(x_0), -1).sum(1) - gain
        bits = _bits(torch.from_numpy(nats), data)
        name = "dequantized" if pipeline.codec.discrete else "total"
        return {name: bits, "network_calls": torch.full_like(bits, path.nfev)}

    def _probes(self, x: Tensor, generators: Generators) -> tuple[list[Tensor], float]:
        """Returns vectors v that broadcast to x (B, *), and the factor in `trace(J) = factor sum(v J v)`."""
        if self.num_probes is None:
            return list(torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])), 1.0
        streams = [generators.at("probe", number) for number in range(self.num_probes)]
        signs = [2.0 * (each.uniform(x.shape[1:]) < 0.5) - 1 for each in streams]
        return [each.to(x.device, x.dtype) for each in signs], 1 / self.num_probes


class _Flow:
    """The right-hand side of the ODE for scipy: (z, integral of the divergence) of a batch, over log(phi)."""

    def __init__(self, denoiser: Denoiser, cond: Condition, probes: list[Tensor], factor: float, t_min: float):
        self.denoiser, self.cond, self.probes, self.factor, self.t_min = denoiser, cond, probes, factor, t_min
        ends: list[Any] = denoiser.schedule.points([t_min, 1.0])
        self.phi = [math.atan2(end.sigma, end.alpha) for end in ends]

    def __call__(self, log_phi: float, state: np.ndarray) -> np.ndarray:
        phi = min(max(math.exp(log_phi), self.phi[0]), self.phi[1])
        schedule, shape = self.denoiser.schedule, self.probes[0].shape[1:]
        log_snr = torch.tensor(-2 * math.log(math.tan(phi)), dtype=torch.float64)
        t = min(max(schedule.time(log_snr[None]).item(), self.t_min), 1.0)
        now: Any = schedule.points([t])[0]
        scale = math.hypot(now.alpha, now.sigma)
        dim = shape.numel()
        z = state[: len(state) * dim // (dim + 1)].reshape(-1, dim)
        x = torch.from_numpy(scale * z).to(self.probes[0].dtype).to(self.probes[0].device).reshape(-1, *shape)
        D, trace = self._denoised(x, now)
        slope = phi / math.sin(phi)
        velocity = slope * (math.cos(phi) * z - D.reshape(z.shape))
        return np.append(velocity, slope * (math.cos(phi) * dim - scale * trace))

    def _denoised(self, x: Tensor, now: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns the estimate of x_0 (B, *) and the trace (B) of its derivative with respect to x."""
        with torch.enable_grad():
            x.requires_grad_()
            D = self.denoiser(x, now, self.cond).x_0
        trace = torch.zeros(len(x), dtype=torch.float64)
        for v in self.probes:
            (product,) = torch.autograd.grad(D, x, v.expand_as(D), retain_graph=True)
            trace += self.factor * (product * v).flatten(1).sum(1).cpu()
        return D.detach().double().cpu().numpy(), trace.numpy()
