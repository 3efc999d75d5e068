"""A run knows the sweep that it is a trial of."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkdrop.runs.sweep_of import FOLDER, TRIAL, Sweep, sweep_of


def test_a_trial_knows_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(tmp_path / "sweep", "lr=0.002,seed=1")
    for name, value in sweep.variables.items():
        monkeypatch.setenv(name, value)
    assert sweep_of(tmp_path / "sweep" / "lr=0.002,seed=1") == sweep
    assert sweep.name == "sweep"


@pytest.mark.parametrize("missing", [FOLDER, TRIAL])
def test_a_run_without_the_variables_is_no_trial(missing: str, tmp_path: Path) -> None:
    variables = {**Sweep(tmp_path, "seed=1").variables, missing: ""}
    assert sweep_of(tmp_path / "seed=1", variables) is None
    del variables[missing]
    assert sweep_of(tmp_path / "seed=1", variables) is None


def test_a_run_elsewhere_that_inherits_the_variables_is_no_trial(tmp_path: Path) -> None:
    variables = Sweep(tmp_path / "sweep", "seed=1").variables
    assert sweep_of(tmp_path / "samples", variables) is None
    assert sweep_of(tmp_path / "sweep" / "seed=1" / "samples", variables) is None
    (tmp_path / "link").symlink_to(tmp_path / "sweep")
    assert sweep_of(tmp_path / "link" / "seed=1", variables) is not None


def test_a_folder_that_is_only_a_time_is_named_with_the_one_around_it() -> None:
    assert Sweep(Path("/runs/digits/2026-11-30_15-00-00-2"), "seed=1").name == "digits/2026-11-30_15-00-00-2"
