"""Runs that measure nothing: they train, resume and sample like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from entry_scripts import Script
from runs import TINY, as_a_command, sampled, trained
from small_tasks import fit, small_task

import inkdrop
from inkdrop.callbacks import Evaluate, Every, Variant
from inkdrop.metrics import Evaluation, FrechetDistance, NoFeatures

SMALL = [each for each in TINY if not each.startswith(("metric.", "trainer.max_steps"))]
SERIES = ("codec=standardize", "conditioner=none", "guidance=none", "metric=none", "extractor=none")


@pytest.mark.slow
def test_a_run_without_evaluation_trains_resumes_and_samples(tmp_path: Path, script: Script) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 2, 16)))
    options = ["data=arrays", f"data.path={tmp_path}/x.npy", "scheduler.num_steps=4", *SERIES]
    run = tmp_path / "run"
    result = trained(run, *options, "trainer.max_steps=2", options=SMALL)
    assert "protocol" not in result
    assert not any(name.startswith(("evaluation/", "swd", "fd")) for name in result["metrics"])
    longer = ["logger=none", "trainer.max_steps=4", "resume_allow=[trainer.max_steps]", f"output_dir={run}"]
    assert as_a_command(inkdrop.train, *SMALL, *options, *longer)["steps"] == 4
    samples, _ = sampled(run, tmp_path / "plain", "num_samples=8")
    assert samples["x"].shape[1:] == (2, 16)
    trusted = f"data_folders=[{tmp_path}]"
    chosen = ["num_samples=8", "evaluate=true", "metric=[sliced_wasserstein]", "extractor=identity", trusted]
    _, measured = sampled(run, tmp_path / "measured", *chosen)
    assert any(name.startswith("swd_raw") for name in measured["metrics"])
    wrong = {
        "evaluate=true": "evaluate=true has nothing to measure: choose metrics",
        "evaluate=true likelihood=noise_levels save_features=true": "save_features=true needs features",
    }
    for typed, message in wrong.items():
        ended = script("sample.py", f"checkpoint={run}", f"output_dir={tmp_path}/none", trusted, *typed.split())
        assert ended.code == 2
        assert message in ended.err
        assert not (tmp_path / "none").exists()


def test_a_metric_of_features_without_an_extractor_is_refused(tmp_path: Path, script: Script) -> None:
    ended = script("train.py", *TINY, "extractor=none", f"output_dir={tmp_path}/run")
    assert ended.code == 2
    assert "metric frechet needs features, and extractor=none has none: choose an extractor" in ended.err
    assert not (tmp_path / "run").exists()


def test_nothing_is_recorded_where_nothing_is_measured(tmp_path: Path) -> None:
    callback = Evaluate(Every(steps=2), Evaluation(NoFeatures(), {}), {"raw": Variant(weights="raw")})
    fit(small_task(), 4, [callback], tmp_path)
    assert callback.results == callback.protocol == {}
    assert callback.measured_at == -1


@pytest.mark.parametrize("is_empty", [True, False])
def test_an_evaluation_knows_whether_it_measures(is_empty: bool) -> None:
    metrics = {} if is_empty else {"frechet": FrechetDistance()}
    assert Evaluation(NoFeatures(), metrics).is_empty == is_empty
