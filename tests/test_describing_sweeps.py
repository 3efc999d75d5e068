"""`python -m inkdrop describe -m`: the trials of a sweep, what each distinct cost is, and the time of all of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from inkdrop.__main__ import main
from inkdrop.commands.describe import costs
from inkdrop.commands.describe.facts import describe
from inkdrop.commands.describe.sweep_page import sweep_page
from inkdrop.commands.describe.trials import Costs, describe_sweep, duration
from inkdrop.commands.sweep.record import Record
from inkdrop.commands.sweep.trials import FINISHED, INTERRUPTED, Trial
from inkdrop.errors import ConfigurationError
from inkdrop.runs.record import commit

SWEEP = ["experiment=moons", "optimizer.lr=1e-3,2e-3", "network.width=8,16", "hydra.launcher.jobs=2"]


class Speed:
    """Measured speeds that are known: ten steps per second, and how each was asked for."""

    def __init__(self) -> None:
        self.widths: list[int] = []
        self.threads: list[int] = []

    def __call__(self, task: Any, options: Any, batch_size: int, seconds: float, compiled: bool) -> dict[str, float]:
        self.widths.append(next(task.pipeline.network.parameters()).shape[0])
        self.threads.append(torch.get_num_threads())
        return {"steps_per_second": 10.0}


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Speed:
    made = Speed()
    monkeypatch.setattr(costs, "speed", made)
    return made


def trials(found: Costs) -> list[Trial]:
    return [trial for each in found.settings for trial in each.trials]


def finish(folder: Path, trial: Trial) -> None:
    trial.state = FINISHED
    (folder / trial.name).mkdir(parents=True)
    (folder / trial.name / "result.json").write_text(json.dumps({"git_commit": commit()}))


@pytest.mark.slow
def test_each_cost_is_measured_once_and_nothing_is_created(
    tmp_path: Path, speed: Speed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = torch.get_num_threads()
    found = describe_sweep([*SWEEP, f"output_dir={tmp_path / 'sweep'}"], 1.0)
    assert (found.runs, found.jobs, found.done, found.refused) == (4, 2, [], {})
    assert found.varies == {"optimizer.lr": ["0.001", "0.002"], "network.width": ["8", "16"]}
    assert [len(each.trials) for each in found.settings] == [2, 2]
    assert len(speed.widths) == 2
    assert (speed.threads, torch.get_num_threads()) == ([3, 3], before)
    assert found.seconds == 4 * 2000 / 10 / 2
    alone = describe(["experiment=moons", "network.width=16"], 0)
    second = found.settings[1]
    assert second.parameters == alone["parameters"]["trained"] > found.settings[0].parameters
    assert second.operations == alone["operations"]["training"] * 512
    assert second.memory == sum(alone["memory"].values())
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_steps_share_a_measurement_but_not_a_time(tmp_path: Path, speed: Speed) -> None:
    found = describe_sweep(["experiment=moons", "trainer.max_steps=100,300", f"output_dir={tmp_path}"], 1.0)
    assert ([each.steps for each in found.settings], len(speed.widths)) == ([100, 300], 1)
    rows = [line.split("|")[2].strip() for line in sweep_page(found).splitlines() if line.startswith("|")]
    assert rows[2:] == ["trainer.max_steps=100", "trainer.max_steps=300"]


@pytest.mark.slow
def test_finished_trials_cost_nothing_and_interrupted_ones_the_rest(tmp_path: Path, speed: Speed) -> None:
    options = [*SWEEP, f"output_dir={tmp_path}"]
    first, second, *_ = trials(describe_sweep(options, 0))
    finish(tmp_path, first)
    second.state, second.steps = INTERRUPTED, 500
    Record(tmp_path).update(first, second)
    found = describe_sweep(options, 1.0)
    assert found.done == [first.name]
    assert sorted(each.steps for each in trials(found)) == [0, 0, 500]
    assert found.seconds == (1500 + 2000) / 10  # on one of two places; the other one has a whole trial
    page = sweep_page(found)
    assert "- trials: 4; finished: 1" in page
    assert "5.8 minutes for the 3 trials that are left, 2 at a time" in page


@pytest.mark.slow
def test_a_finished_sweep_has_nothing_left(tmp_path: Path, speed: Speed) -> None:
    options = ["experiment=moons", "seed=0,1", f"output_dir={tmp_path}"]
    made = trials(describe_sweep(options, 0))
    for each in made:
        finish(tmp_path, each)
    Record(tmp_path).update(*made)
    assert "- total here: no trial is left to run" in sweep_page(describe_sweep(options, 1.0))
    assert speed.widths == []


@pytest.mark.slow
def test_trials_that_cannot_work_are_listed_as_the_launcher_lists_them(tmp_path: Path, speed: Speed) -> None:
    options = ["experiment=moons", "network.width=8,0", f"output_dir={tmp_path}"]
    with pytest.raises(ConfigurationError) as refused:
        describe_sweep(options, 1.0)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("1 of 2 trials cannot work, and none was started (hydra.launcher.invalid=skip runs")
    assert lines[1].startswith("width=0: denoiser.network.width=0: ")
    found = describe_sweep([*options, "hydra.launcher.invalid=skip"], 1.0)
    assert found.seconds == 2000 / 10
    assert "- cannot work: width=0: denoiser.network.width=0: " in sweep_page(found)
    with pytest.raises(ConfigurationError, match=r"nosuch"):
        describe_sweep(["experiment=moons", "sampler=nosuch,ddim", f"output_dir={tmp_path}"], 0)
    with pytest.raises(ConfigurationError, match=r"did you mean width\?"):
        describe_sweep(["experiment=moons", "network.widht=8,16", f"output_dir={tmp_path}"], 0)


@pytest.mark.slow
def test_a_search_costs_its_trials_and_seeds(tmp_path: Path, speed: Speed) -> None:
    pytest.importorskip("optuna")
    options = ["experiment=moons", "hydra/sweeper=optuna", "hydra.sweeper.trials=10", "hydra.launcher.jobs=2"]
    space = ["network.width=choice(8,16)", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "objective=swd_identity_10k"]
    found = describe_sweep([*options, *space, f"output_dir={tmp_path / 'sweep'}"], 1.0)
    assert found.varies == {"network.width": ["8", "16"], "optimizer.lr": ["0.0001 to 0.1, logarithmic"]}
    assert (found.runs, found.seconds, len(speed.widths)) == (10, 10 * 200 / 2, 2)
    seeds = ["hydra.sweeper.replicates=2", "hydra.sweeper.confirm=4"]
    assert describe_sweep([*options, *space, *seeds, f"output_dir={tmp_path / 'sweep'}"], 0).runs == 2 * 10 + 3 * 4
    assert "- trials: 10 of sampler tpe; finished or pruned: 0" in sweep_page(found)
    with pytest.raises(ConfigurationError, match=r"choose the seeds: set seed to one number"):
        describe_sweep([*options, *space, *seeds, "seed=0,1"], 0)
    with pytest.raises(ConfigurationError, match=r"sampler=grid needs choices and ranges"):
        describe_sweep([*options, *space, "hydra.sweeper.sampler=grid"], 0)
    assert not (tmp_path / "sweep").exists()


def test_places_are_taken_as_they_become_free() -> None:
    assert duration([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert duration([1.0, 1.0, 1.0], 2) == 2.0
    assert duration([], 4) == 0.0


@pytest.mark.slow
def test_the_command_prints_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    options = ["experiment=moons", "network.width=8,16", f"output_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["inkdrop", "describe", "-m", *options, "--no-probe"])
    main()
    page = capsys.readouterr().out
    assert "# sweep of moons" in page
    assert "- what varies: network.width=8,16" in page
    assert "at a time" in page
    assert "minutes" not in page  # nothing was measured
    monkeypatch.setattr(sys, "argv", ["inkdrop", "describe", "-m", *options, "--plot", str(tmp_path / "x.png")])
    with pytest.raises(SystemExit):
        main()
