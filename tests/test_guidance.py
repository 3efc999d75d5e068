"""What limits the estimate of x_0, against its formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from analytic import SCHEDULES, exact_pipeline, mixture
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.guidance import DynamicThreshold, Guidance, Rescale
from inkdrop.noises import Gaussian
from inkdrop.schedules import Point


class Fixed(Denoiser):
    """Always the same estimate."""

    def __init__(self, x_0: Tensor):
        super().__init__()
        self.x_0, self.schedule, self.noise = x_0, SCHEDULES["vp"], Gaussian()

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return Estimate(self.x_0, {"kept": x_t})


def guided(guide: Guidance, x_0: Tensor) -> Mapping[str, Any]:
    pipeline = exact_pipeline(mixture(SCHEDULES["vp"]))
    x_0, extras = guide(Fixed(x_0), pipeline, {})(x_0, SCHEDULES["vp"].points([0.5])[0], {})
    return {"x_0": x_0, **extras}


def test_dynamic_threshold_clips_at_the_quantile_and_divides_by_it() -> None:
    x_0 = torch.tensor([[0.5, -1.0, 2.0, -4.0], [0.1, -0.2, 0.3, -0.4]]).double().reshape(2, 1, 2, 2)
    found = guided(DynamicThreshold(0.75), x_0)
    assert torch.allclose(found["x_0"][0].flatten(), torch.tensor([0.25, -0.5, 1.0, -1.0]).double())
    assert torch.equal(found["x_0"][1], x_0[1])  # within the range: as it is
    assert torch.equal(found["kept"], x_0)
    wider = guided(DynamicThreshold(0.75, limit=4.0), x_0)["x_0"]
    assert torch.allclose(wider, x_0)


def test_dynamic_threshold_of_the_largest_value_only_divides() -> None:
    x_0 = torch.randn(3, 5).double() * 3
    scale = x_0.abs().amax(1, keepdim=True).clamp(min=1)
    assert torch.allclose(guided(DynamicThreshold(1.0), x_0)["x_0"], x_0 / scale)


def test_rescaling_goes_a_share_of_the_way_to_the_deviation_of_the_data() -> None:
    x_0 = torch.stack([torch.linspace(-3, 3, 9), torch.linspace(-0.1, 0.1, 9)]).double()
    spread = x_0[0].std(correction=0).item()
    found = guided(Rescale(0.5, share=1.0), x_0)["x_0"]
    assert found[0].std(correction=0).item() == pytest.approx(0.5)
    assert torch.equal(found[1], x_0[1])
    half = guided(Rescale(0.5, share=0.5), x_0)["x_0"]
    assert half[0].std(correction=0).item() == pytest.approx((0.5 + spread) / 2)


@pytest.mark.parametrize("guide", [DynamicThreshold(0.9), Rescale(0.5)], ids=["threshold", "rescale"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_estimate_does_not_come_to_look_sound(guide: Guidance, broken: float) -> None:
    x_0 = torch.tensor([[0.1, broken, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]])
    found = guided(guide, x_0)["x_0"]
    assert not found[0].isfinite().all()
    assert found[1].isfinite().all()
