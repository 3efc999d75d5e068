"""Sweeps from the command line: killed, continued, extended, refused, and on several devices."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from entry_scripts import ROOT, Script
from swept import OPTIONS, Sweep, waited_for

from inkdrop.commands.sweep.record import read_trials
from inkdrop.errors import TrialError


def wait_for_a_trial(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert any(line.startswith("running ") for line in process.stdout), "no trial has started"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by /proc")
def test_a_sweep_that_is_killed_is_continued_by_the_same_command(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    values = ["seed=0,1", "optimizer.lr=1e-3,2e-3"]

    # Everything is killed when a trial has finished and another one has not; here the program that forks starts afresh.
    process = sweep.start(*values, fresh=True)
    waited_for(lambda: sweep.results() and any(0 < max(each, default=0) < 40 for each in sweep.steps().values()))
    for each in sweep.processes():
        os.kill(each, signal.SIGKILL)
    process.communicate()
    first = sweep.results()
    assert first

    # The sweeping process alone is killed: its trials end by themselves.
    process = sweep.start(*values)
    wait_for_a_trial(process)
    process.kill()
    process.communicate()
    waited_for(lambda: not sweep.processes())

    # SIGTERM ends the trials after a checkpoint.
    process = sweep.start(*values)
    wait_for_a_trial(process)
    process.terminate()
    out, _ = process.communicate()
    assert process.returncode == 143, out
    assert "trials are left: repeat the command" in out
    assert not sweep.processes()

    code, out = sweep.run(*values)
    assert code == 0, out
    after = sweep.results()
    assert {name: after[name] for name in first} == first
    names = {f"seed={seed},lr={lr}" for seed in (0, 1) for lr in ("0.001", "0.002")}
    assert set(after) == names
    assert sweep.steps() == {name: list(range(1, 41)) for name in names}
    assert {each.state for each in read_trials(sweep.folder)} == {"finished"}

    # In another order, spelling and with a further value only the new ones run; a failing one stops nothing.
    code, out = sweep.run("optimizer.lr=0.002,1e-3", "seed=1,0")
    assert (code, "running" in out) == (0, False), out
    code, out = sweep.run("optimizer.lr=1e-3,1e30", "seed=0,2")
    assert code == 5, out
    assert "2 finished, 2 failed" in out
    assert "lr=1e+30,seed=0 failed with exit code 5: error: " in out
    assert {name: each for name, each in sweep.results().items() if name in names} == after
    assert {each.name: each.attempts for each in read_trials(sweep.folder) if each.name not in names} == {
        "lr=1e+30,seed=0": 1,
        "lr=1e+30,seed=2": 1,
        "lr=0.001,seed=2": 1,
    }


@pytest.mark.slow
def test_everything_that_cannot_work_is_listed_before_a_trial_starts(script: Script) -> None:
    options = ["-m", *OPTIONS, "network.num_blocks=-1,1", "network=mlp,nope", "output_dir=sweep"]
    ended = script("train.py", *options)
    assert ended.code == 2
    assert "3 of 4 trials cannot work, and none was started (hydra.launcher.invalid=skip runs the others):" in ended.err
    assert re.search(r"num_blocks=-1,network=mlp: .*network.num_blocks=-1: input should be greater", ended.err)
    names = "num_blocks=-1,network=nope, num_blocks=1,network=nope"
    assert f"{names}: In 'train': Could not find 'network/nope'" in ended.err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_what_cannot_work_may_be_left_out(script: Script) -> None:
    few = ["trainer.max_steps=2", "scheduler.num_steps=2"]
    options = ["-m", *OPTIONS, *few, "optimizer.lr=-1,1e-3", "output_dir=sweep", "hydra.launcher.invalid=skip"]
    ended = script("train.py", *options)
    assert ended.code == 2
    assert "1 finished, 1 refused" in ended.out
    assert [each.state for each in read_trials(Path("sweep"))] == ["refused", "finished"]
    assert [file.parent.name for file in Path("sweep").glob("*/result.json")] == ["lr=0.001"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["optimzer.lr=1,2"], "unknown option optimzer: did you mean optimizer?"),
        (["seed=0,1", "schedul=linear"], "did you mean schedule?"),
        (["seed=0,1", "run_id=mine"], "run_id=mine would be shared by all trials of the sweep: remove it"),
        (["seed=0,1", "hydra.launcher.jobs=none"], "hydra.launcher.jobs=none must be auto or a positive number"),
    ],
)
def test_a_mistyped_option_is_answered_without_torch(options: list[str], said: str, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[str(ROOT / 'train.py'), '-m', *options]!r}\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "2 []", done.stderr
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_forks_fresh_processes_and_two_ranks_compute_the_same(tmp_path: Path) -> None:
    """To the bit for one process, started either way; with two ranks each trial is one run with one record."""
    two = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    asked = {
        "forked": ["seed=0,1", "hydra.launcher.start=fork"],
        "fresh": ["seed=1,1", "hydra.launcher.start=fresh"],
        "ranks": ["seed=0,0", *two],
    }
    sweeps = {}
    for name, options in asked.items():
        (tmp_path / name).mkdir()
        sweeps[name] = Sweep(tmp_path / name)
        code, out = sweeps[name].run("trainer.max_steps=4", "scheduler.num_steps=4", *options)
        assert code == 0, out
        assert not sweeps[name].processes()
    results = {name: {seed: json.loads(each) for seed, each in of.results().items()} for name, of in sweeps.items()}
    assert [sorted(each) for each in results.values()] == [["seed=0", "seed=1"], ["seed=1"], ["seed=0"]]
    assert results["fresh"]["seed=1"]["metrics"] == results["forked"]["seed=1"]["metrics"]
    assert {each["threads"] for each in results["forked"].values()} == {1}
    assert sweeps["ranks"].steps() == {"seed=0": [1, 2, 3, 4]}
    assert len(list(sweeps["ranks"].folder.glob("*/run.json"))) == 1


@pytest.mark.slow
def test_a_configuration_may_be_a_sweep_of_its_own(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trials are single runs all the same; a trial that were a sweep is refused."""
    Path("own").mkdir()
    sweep = {"mode": "MULTIRUN", "sweeper": {"params": {"seed": "0,1"}}}
    Path("own/mine.yaml").write_text(json.dumps({"defaults": ["train", "_self_"], "hydra": sweep}))
    few = ["trainer.max_steps=2", "scheduler.num_steps=2", "output_dir=sweep"]
    own = ["--config-dir=own", "--config-name=mine"]
    ended = script("train.py", *own, *OPTIONS, *few)
    assert ended.code == 0, ended.err
    assert "2 finished" in ended.out
    assert sorted(file.parent.name for file in Path("sweep").glob("*/result.json")) == ["seed=0", "seed=1"]
    assert "--config-name=mine" in Path("sweep/seed=1/command.txt").read_text()
    monkeypatch.setenv("INKDROP_TRIAL", "seed=0")
    ended = script("train.py", *own, *OPTIONS, *few)
    assert (ended.code, "a trial of a sweep cannot be a sweep" in ended.err) == (2, True)


def test_a_sweep_of_samples_stays_in_one_process(script: Script) -> None:
    ended = script("sample.py", "-m", "checkpoint=a,b", "hydra/launcher=processes", "hydra/sweeper=grid")
    assert (ended.code, "runs trials of train, but sample needs hydra/launcher=basic" in ended.err) == (2, True)


def test_the_error_of_a_trial_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(TrialError("lr=1", 5)))
    assert (str(error), error.exit_code) == ("trial lr=1 failed with exit code 5", 5)
