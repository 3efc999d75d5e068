"""Sweeps whose trials a scheduler runs: submitit, SLURM as a few scripts, and Ray."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from entry_scripts import Script
from swept import OPTIONS, Sweep, waited_for

from inkdrop.commands.sweep.record import read_trials

FEW = ["trainer.max_steps=4", "scheduler.num_steps=4", "seed=0,1"]
# A scheduler without queues: it starts a batch script at once, and again when it is asked to.
SCRIPTS = {
    "sbatch": """#!/bin/sh
for file; do :; done
id=$(( $(cat "$SCHEDULER/last" 2>/dev/null || echo 0) + 1 )); echo $id > "$SCHEDULER/last"
cp "$file" "$SCHEDULER/$id.sh"
"$SCHEDULER/start" $id
echo "Submitted batch job $id"
""",
    "start": """#!/bin/sh
export SLURM_JOB_ID=$1 SLURM_JOB_NAME=trial SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=1
export SLURM_JOB_NODELIST=here SLURM_JOB_NUM_NODES=1
setsid sh "$SCHEDULER/$1.sh" > "$SCHEDULER/$1.out" 2>&1 < /dev/null &
echo $! > "$SCHEDULER/$1.pid"
""",
    "srun": """#!/bin/sh
while case "$1" in --unbuffered) shift;; --output | --error) shift 2;; *) false;; esac; do :; done
exec "$@"
""",
    "scontrol": """#!/bin/sh
echo "$@" >> "$SCHEDULER/asked"
[ "$1" = requeue ] && "$SCHEDULER/start" "$2"
""",
    "sacct": """#!/bin/sh
echo 'JobID|State|NodeList'
for file in "$SCHEDULER"/*.pid; do
  id=$(basename "$file" .pid)
  kill -0 $(cat "$file") 2>/dev/null && echo "$id|RUNNING|here" || echo "$id|COMPLETED|here"
done
""",
    "scancel": """#!/bin/sh
for id; do :; done
kill -TERM -- -$(cat "$SCHEDULER/$id.pid")
""",
}


def metrics(sweep: Sweep) -> dict[str, Any]:
    return {name: json.loads(result)["metrics"] for name, result in sweep.results().items()}


@pytest.mark.slow
def test_schedulers_run_the_same_trials(tmp_path: Path) -> None:
    results = []
    launchers = ([], ["slurm", "cluster=local"], ["ray", "num_cpus=1"])
    for number, (name, *options) in enumerate([each or ["processes"] for each in launchers]):
        (tmp_path / str(number)).mkdir()
        sweep = Sweep(tmp_path / str(number))
        own = [f"hydra.launcher.{each}" for each in options]
        code, out = sweep.run(*FEW, f"hydra/launcher={name}", "hydra.launcher.jobs=2", *own)
        assert code == 0, out
        assert "2 finished" in out
        results.append(metrics(sweep))
        assert (sweep.folder / "seed=1" / "console.log").read_text().count("fresh run") == 1
    assert len(results[0]) == 2
    assert results[0] == results[1] == results[2]


@pytest.mark.slow
def test_a_job_of_slurm_that_meets_its_time_limit_is_queued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal before the limit ends the run with a checkpoint, from which the requeued job resumes it."""
    scheduler = tmp_path / "scheduler"
    scheduler.mkdir()
    for name, text in SCRIPTS.items():
        (scheduler / name).write_text(text)
        (scheduler / name).chmod(0o755)
    monkeypatch.setenv("SCHEDULER", str(scheduler))
    monkeypatch.setenv("PATH", f"{scheduler}:{os.environ['PATH']}")
    sweep = Sweep(tmp_path)
    process = sweep.start("seed=0", "hydra/launcher=slurm")
    steps = waited_for(lambda: [each for each in sweep.steps().values() if len(each) > 3] or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    (step,) = (
        each for each in sweep.processes() if b"submitit.core._submit" in Path(f"/proc/{each}/cmdline").read_bytes()
    )
    os.kill(step, signal.SIGUSR2)
    out, _ = process.communicate()
    assert process.returncode == 0, out + "".join(file.read_text() for file in scheduler.glob("*.out"))
    assert (scheduler / "asked").read_text().splitlines()[-1].startswith("requeue 1")
    (recorded,) = sweep.steps().values()
    assert recorded == list(range(1, 41))
    assert len(steps[0]) < 40
    (trial,) = read_trials(sweep.folder)
    assert (trial.state, trial.attempts) == ("finished", 1)
    log = (sweep.folder / trial.name / "console.log").read_text()
    assert log.count("fresh run") == log.count("resumed from step") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["hydra/launcher=slurm", "hydra.launcher.cluster=moon"], "hydra/launcher=slurm does not work here: "),
        (["hydra/launcher=slurm", "hydra.launcher.cluster=local", "+hydra.launcher.gpu=1"], "does not work here: "),
        (["hydra/launcher=slurm", "hydra.launcher.start=fresh"], "unknown option hydra.launcher.start"),
    ],
)
def test_a_scheduler_that_cannot_work_is_refused(options: list[str], said: str, script: Script) -> None:
    ended = script("train.py", "-m", *OPTIONS, "seed=0,1", *options, "output_dir=sweep")
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert list(Path.cwd().iterdir()) == []
