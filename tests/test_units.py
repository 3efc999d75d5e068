"""A newcomer's series and tables of unlike units: the samples have the data's mean and deviation in each channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import sampled, trained

UNITS, MEANS = np.array([5.0, 600.0, 2e-3]), np.array([21.0, 101_325.0, 4e-3])  # of degrees, pascals and shares
SMALL = {
    "series": ["network.base_channels=8", "network.norm_groups=4", "network.num_blocks=1", "data.batch_size=32"],
    "table": ["network.width=64", "network.num_blocks=2"],
}
STEPS = {
    "series": ["trainer.max_steps=150", "optimizer.lr=8e-3", "callbacks.ema.decays=[0.95]"],
    "table": ["trainer.max_steps=400", "optimizer.lr=4e-3", "callbacks.ema.decays=[0.98]"],
}


def series(count: int, length: int) -> np.ndarray:
    """Series (N, T, 3), float64, of waves and noise."""
    random = np.random.default_rng(0)
    phase = random.uniform(0, 2 * np.pi, (count, 1, 3))
    waves = np.sqrt(2) * np.sin(2 * np.pi * np.arange(length)[:, None] / 8 + phase)
    return MEANS + UNITS * (0.8 * waves + 0.6 * random.normal(size=(count, length, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_samples_have_the_mean_and_the_deviation_of_each_channel(kind: str, tmp_path: Path) -> None:
    x = series(100, 16) if kind == "series" else series(400, 1)[:, 0]
    np.savez(tmp_path / "data.npz", x=x)
    options = [f"experiment={kind}", f"data.path={tmp_path / 'data.npz'}", "~callbacks.pictures", *SMALL[kind]]
    result = trained(tmp_path / "run", *options, *STEPS[kind], options=[])
    samples, _ = sampled(tmp_path / "run", tmp_path / "samples", "num_samples=500")
    found = samples["x"].transpose(0, 2, 1) if kind == "series" else samples["x"]
    axes = tuple(range(found.ndim - 1))
    assert np.abs((found.mean(axes) - x.mean(axes)) / x.std(axes)).max() < 0.1
    assert np.abs(found.std(axes) / x.std(axes) - 1).max() < 0.1
    assert {name.rsplit("_", 1)[0] for name in result["metrics"] if name.startswith("swd")} >= {"swd_standardized"}
