"""Steps by tolerance, over a whole run."""

from __future__ import annotations

import pytest
import torch
from analytic import ALL_SCHEDULES, gaussian, mixture, source

from inkdrop.samplers import Adaptive, heun
from inkdrop.time_grids import Linspace, LogSNR


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "zero_terminal_snr", "edm"])
def test_adaptive_steps_begin_where_nothing_is_left_of_the_data(name: str) -> None:
    """alpha = 0 at t = 1 on the first two: their first move is as long as all."""
    denoiser = mixture(ALL_SCHEDULES[name])
    eps = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    adaptive, fine = (
        sampler(denoiser, eps, {}, source(16, denoiser.noise))
        for sampler in (Adaptive(Linspace(2), 1e-5, 1e-5, "dopri5"), heun(LogSNR(400, highest=100.0, lowest=-16.0)))
    )
    assert (adaptive - fine).abs().max() < 2e-3


def test_one_tolerance_grows_with_x_and_the_other_does_not() -> None:
    """Around data of a thousand 1e-4 of x is 0.1."""
    denoiser = gaussian(ALL_SCHEDULES["linear"], torch.full((2,), 1000.0), torch.eye(2))
    eps = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    calls = []
    denoiser.register_forward_hook(lambda *_: calls.append(1))

    def num_calls(rtol: float, atol: float) -> int:
        calls.clear()
        Adaptive(Linspace(4), rtol, atol, "dopri5")(denoiser, eps, {}, source(16, denoiser.noise))
        return len(calls)

    assert num_calls(rtol=1e-4, atol=1e-12) < 0.7 * num_calls(rtol=1e-12, atol=1e-4)
