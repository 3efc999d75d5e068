"""Sweeps whose trials a scheduler runs: submitit, SLURM as a few scripts, and Ray."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from entry_scripts import Script
from scripted import Scripted
from swept import OPTIONS, Sweep, waited_for

from inkdrop.commands.sweep.record import read_trials
from inkdrop.commands.sweep.remote import Remote, Run
from inkdrop.commands.sweep.starters import Job

FEW = ["trainer.max_steps=4", "scheduler.num_steps=4"]
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
    """One each of those that start an interpreter for a trial."""
    launchers = {"processes": ["seed=0,1"], "slurm": ["seed=0,0", "cluster=local"], "ray": ["seed=1,1", "num_cpus=1"]}
    results = {}
    for name, (seeds, *options) in launchers.items():
        (tmp_path / name).mkdir()
        sweep = Sweep(tmp_path / name)
        own = [f"hydra.launcher.{each}" for each in ["jobs=2", *options]]
        code, out = sweep.run(*FEW, seeds, f"hydra/launcher={name}", *own)
        assert code == 0, out
        results[name] = metrics(sweep)
        assert f"{len(results[name])} finished" in out
        for log in sweep.folder.glob("*/console.log"):
            assert log.read_text().count("fresh run") == 1
    assert sorted(results["processes"]) == ["seed=0", "seed=1"]
    assert sorted({**results["slurm"], **results["ray"]}.items()) == sorted(results["processes"].items())


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


class Counted(Remote):
    """A scheduler whose jobs end when they have been looked at `looks` times."""

    def __init__(self, looks: list[int]):
        super().__init__()
        self.looks, self.cancelled = looks, list[int]()

    def submit(self, run: Run) -> int:
        return int(run.command[-1])

    def code(self, job: int) -> int | None:
        self.looks[job] -= 1
        return None if self.looks[job] else 40 + job

    def cancel(self, job: int) -> None:
        self.cancelled.append(job)


def test_each_of_several_jobs_of_a_scheduler_ends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkdrop.commands.sweep.remote.Processes", lambda: Scripted([]))
    monkeypatch.setattr("inkdrop.commands.sweep.remote._POLL", 0.0)
    starter = Counted([3, 1, 2, 9])
    numbers = [starter.start(Job(["train.py", str(job)], tmp_path / "log")) for job in range(4)]
    assert len(set(numbers)) == 4
    ended = [starter.ended(timeout=0) for _ in range(4)]
    assert ended == [[(numbers[1], 41)], [(numbers[2], 42)], [(numbers[0], 40)], []]
    starter.send(numbers[1], signal.SIGTERM)
    starter.send(numbers[3], signal.SIGTERM)
    assert starter.cancelled == [3]


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
