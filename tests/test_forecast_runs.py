"""Runs of forecasts from a table to a fan: training, resumption, forecasts of held-out windows and of a history."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import RECORDED, differing, interrupted, run, sampled, trained

import inkdrop

SMALL = [
    "data.history=12",
    "data.num_windows=3",
    "data.batch_size=8",
    "time_grid.num_steps=3",
    "evaluation.per_item=4",
    "callbacks.pictures.num_samples=6",
]
STATEFUL = ["conditioner.context=4", "conditioner.concat_channels=6"]
NETWORKS = {
    "exchange_rate": [*STATEFUL, "network.network.width=4", "network.network.depth=2"],
    "exchange_rate_joint": ["data.horizon=3", "data.derive.mask.horizon=3", "network.width=16", "network.depth=1"]
    + [f"metric.{name}.horizon=3" for name in ("crps_sum", "crps", "nd", "energy_score")],
}


def table(folder: Path) -> list[str]:
    """The options of a table of two random walks over 80 days."""
    walks = 5 + np.random.default_rng(0).normal(size=(80, 2)).cumsum(0)
    days = np.arange("2024-01-01", "2024-03-21", dtype="datetime64[D]")
    with (folder / "walks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["day", "a", "b"], *([day, *row] for day, row in zip(days, walks, strict=True))])
    return ["data=series_table", f"data.path={folder / 'walks.csv'}", "data.time=day", "data.shape=[2,6]"]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", NETWORKS)
def test_forecasts_go_from_a_table_to_scores_and_a_fan(experiment: str, tmp_path: Path) -> None:
    options = [f"experiment={experiment}", *table(tmp_path), *SMALL, *NETWORKS[experiment], "trainer.max_steps=3"]
    options += ["++data.derive.truth._target_=inkdrop.data.degradations.Copy", "++trainer.limit_val_batches=1"]
    result = trained(tmp_path / "run", options=options)["metrics"]
    for name in ("crps_sum", "crps", "nd", "energy_score"):
        for ending in ("", "_baseline_persistence", "_baseline_random_walk"):
            assert np.isfinite(result[f"{name}_12{ending}"])
    assert result["crps_12"] != result["crps_12_baseline_random_walk"]
    settings = ["evaluate=true", "num_samples=12", "save_images=true", f"data_folders=[{tmp_path}]"]
    arrays, again = sampled(tmp_path / "run", tmp_path / "fan", *settings)
    assert arrays["x"].shape == (12, 2, 6)
    assert arrays["history"].shape == (12, 2, 12)
    assert again["metrics"]["crps_12"] == pytest.approx(result["crps_12"], rel=1e-5), "the same seeds and windows"
    assert (tmp_path / "fan" / "grid.png").exists()
    rows = list(csv.DictReader((tmp_path / "fan" / "forecasts.csv").read_text().splitlines()))
    assert len(rows) == 3 * 6 * 2
    assert float(rows[0]["quantile_0.05"]) <= float(rows[0]["quantile_0.5"]) <= float(rows[0]["quantile_0.95"])
    assert float(rows[0]["truth"]) == pytest.approx(float(arrays["truth"][0, 0, 0]))


@pytest.mark.slow
def test_a_history_of_ones_own_is_forecast(tmp_path: Path) -> None:
    options = ["experiment=exchange_rate", *table(tmp_path), *SMALL, *NETWORKS["exchange_rate"]]
    trained(tmp_path / "run", options=[*options, "trainer.max_steps=1", "metric=none", "callbacks.pictures=null"])
    history = np.random.default_rng(1).normal(size=(2, 20)).cumsum(1).astype(np.float32)
    np.save(tmp_path / "history.npy", history)
    arrays, _ = sampled(
        tmp_path / "run", tmp_path / "own", f"condition.history={tmp_path / 'history.npy'}", "num_samples=4"
    )
    assert arrays["x"].shape == (4, 2, 6)
    pipeline = inkdrop.load(tmp_path / "run")
    alone = pipeline({"history": torch.from_numpy(history)[None]}, [2])
    assert np.allclose(alone[0].numpy(), arrays["x"][2], atol=1e-4)


@pytest.mark.slow
def test_a_run_of_forecasts_goes_on_to_the_bit(tmp_path: Path) -> None:
    model = ["experiment=exchange_rate", *table(tmp_path), "data.history=12", *NETWORKS["exchange_rate"], *RECORDED]
    model += ["trainer.max_steps=6"]
    whole = run(tmp_path / "whole", model=model)
    for step in (1, 4):
        folder = interrupted(tmp_path / "whole", step, tmp_path / f"from {step}")
        assert not differing(whole, run(folder, model=model))
