"""Signals stop a run between two steps, on every rank; the same command goes on to the bit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import entry_scripts
import pytest
from entry_scripts import ROOT
from lightning.pytorch import Callback
from moments import at_call, wait_until
from runs import POINTS, differing, logged, run
from small_tasks import fit, small_task

from inkdrop.callbacks import EMA, StopOnSignal
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.checkpoints import CheckpointFolder, read_checkpoint
from inkdrop.distributed.signals import SIGNALS
from inkdrop.distributed.slurm import folder_option, job, requeue
from inkdrop.loggers.jsonl import JSONLines
from inkdrop.tasks import DiffusionTask

LIMIT = 300  # seconds, for what never ends
# Long enough to be met in the middle, and slow enough: a step waits a little.
SLOW = [
    *(option for option in POINTS if "checkpoint.every" not in option and "max_steps" not in option),
    "trainer.max_steps=40",
    "scheduler.num_steps=40",
    "callbacks.checkpoint.every.steps=1000",
    "trainer.val_check_interval=5",
    "allow_targets=[slow.]",
    "loss._target_=slow.SlowLoss",
    "+loss.seconds=0.2",
]


def begin(folder: Path | None, *overrides: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """train.py in a session of its own."""
    options = [*SLOW, *([] if folder is None else [f"output_dir={folder}"]), *overrides]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    modules = {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'src'}"}
    return entry_scripts.begin(str(ROOT / "train.py"), *options, cwd=cwd, environment=modules, **streams)


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Returns when the record tells of this step."""
    record = folder / "metrics.jsonl"

    def reached() -> bool:
        assert process.poll() is None, process.communicate()[1]
        lines = record.read_text().splitlines(True)[:-1] if record.exists() else []
        return any(json.loads(line)["step"] >= step for line in lines)

    wait_until(reached)


def other_rank(process: subprocess.Popen[str]) -> int:
    """The only process that rank 0 has begun."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run ends with if nobody disturbs it."""
    sys.path.insert(0, str(ROOT / "tests"))
    return run(tmp_path_factory.mktemp("undisturbed") / "run", "loss.seconds=0.0", model=SLOW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)],
    ids=["TERM", "INT", "USR1"],
)
def test_a_signal_stops_the_run_and_the_same_command_goes_on(
    signum: int, code: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = begin(folder)
    wait_for_step(process, folder, 7)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == code, errors
    assert "the same command resumes the run" in errors
    assert "Traceback" not in errors
    stopped = read_checkpoint(folder)
    assert 7 <= stopped["global_step"] < 40
    assert [file.suffix for file in (folder / "checkpoints").iterdir()].count(".ckpt") == 1
    assert not (folder / "result.json").exists()
    assert differing(run(folder, "loss.seconds=0.0", "resume_allow=[loss.seconds]", model=SLOW), whole) == []


# name: (what is called, how many times until the signal comes, step that the run stops after); a step has two batches,
# and one batch is tried before the run
MOMENTS: dict[str, tuple[Any, str, int, int]] = {
    "first step": (DiffusionTask, "training_step", 2, 1),
    "middle of accumulation": (DiffusionTask, "training_step", 8, 4),
    "gradient": (DiffusionTask, "configure_gradient_clipping", 5, 5),
    "update": (DiffusionTask, "_note_step", 6, 6),
    "average": (EMA, "after_step", 7, 7),
    "validation": (DiffusionTask, "validation_step", 3, 8),
    "record": (JSONLines, "log_metrics", 5, 5),
    "save": (CheckpointFolder, "save", 10, 10),
    "last step": (DiffusionTask, "training_step", 45, 22),
    "last save": (Checkpoint, "on_train_end", 1, 22),
}
MEASURED = ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=8"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 22 steps that nobody disturbs."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    run(folder, *MEASURED)
    return folder


@pytest.mark.many
@pytest.mark.parametrize(("owner", "name", "number", "step"), MOMENTS.values(), ids=MOMENTS)
def test_whenever_a_signal_comes_the_run_stops_after_its_step(
    owner: Any, name: str, number: int, step: int, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_call(patch, owner, name, number, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as stopped:
            run(tmp_path / "run", *MEASURED)
    assert stopped.value.code == 143
    assert read_checkpoint(tmp_path / "run")["global_step"] == step
    assert not (tmp_path / "run" / "result.json").exists()
    assert differing(run(tmp_path / "run", *MEASURED), read_checkpoint(recorded)) == []
    assert logged(tmp_path / "run") == logged(recorded)
    assert (tmp_path / "run" / "result.json").exists()


SLURM = {
    "SLURM_JOB_ID": "71",
    "SLURM_JOB_NAME": "train.sh",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "node",
    "SLURM_NNODES": "1",
}


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "asked"), [(signal.SIGUSR1, ["requeue 71"]), (signal.SIGTERM, [])])
def test_a_job_of_slurm_is_requeued_once_and_finds_its_folder(
    signum: int, asked: list[str], whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "asked").touch()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $* >> {tmp_path}/asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert folder_option(["seed=1"]) == ["output_dir=runs/${name}/slurm-71"]
    assert folder_option(["output_dir=here"]) == []
    process = begin(None, cwd=tmp_path)
    folder = tmp_path / "runs" / "moons" / "slurm-71"
    wait_for_step(process, folder, 7)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 143, errors
    assert ("job 71 is back in the queue" in errors) == bool(asked)
    assert differing(run(folder, "loss.seconds=0.0", "resume_allow=[loss.seconds]", model=SLOW), whole) == []
    assert (tmp_path / "asked").read_text().splitlines() == asked


def test_jobs_are_named_as_scontrol_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert job() is None
    assert folder_option([]) == []
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert job() == "4_2"
    monkeypatch.setenv("PATH", "")
    requeue()
    assert "warning: job 4_2 could not be requeued" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert job() is None


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    process = begin(tmp_path / "run", "loss.seconds=1000.0", f"+loss.begun={tmp_path / 'begun'}")
    wait_until((tmp_path / "begun").exists)  # within the first step
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any("stopping after this step" in line for line in process.stderr)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGINT
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_handlers_are_given_back_however_a_run_ends(tmp_path: Path) -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    held: list[Any] = []

    class Failing(Callback):
        def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, index: int) -> None:
            held.extend(signal.getsignal(signum) for signum in SIGNALS)
            if index == 1:
                raise ValueError("a fault of the code")

    for num_steps, ending in ((1, contextlib.nullcontext()), (2, pytest.raises(ValueError, match="a fault"))):
        with ending:
            fit(small_task(), num_steps, [StopOnSignal(), Failing()], tmp_path)
        assert [signal.getsignal(signum) for signum in SIGNALS] == before
    assert len(held) == 12
    assert not set(held) & {*before} - {signal.SIG_IGN}  # under nohup SIGHUP stays ignored


TWO = ["trainer.devices=2", "trainer.strategy=ddp"]
IMPATIENT = ["timeout_minutes=10", "+loss.minutes=10", "+loss.patience=15"]


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of each step of a run of two ranks that nobody disturbs."""
    folder = tmp_path_factory.mktemp("two") / "run"
    process = begin(folder, *TWO, "resume=never", "loss.seconds=0.0", "callbacks.checkpoint.every.steps=1")
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return folder / "checkpoints"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["rank 0", "rank 1", "group"])
@pytest.mark.parametrize("step", [1, 4, 5])  # the first, and the steps before and after a validation
def test_two_ranks_leave_together(target: str, step: int, whole_of_two: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder, *TWO)
    wait_for_step(process, folder, step)
    other = other_rank(process)
    if target == "group":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        os.kill(process.pid if target == "rank 0" else other, signal.SIGTERM)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 143, errors
    wait_until(lambda: not alive(other))
    (file,) = (folder / "checkpoints").glob("step-*.ckpt")
    stopped = read_checkpoint(file)
    assert stopped["world_size"] == 2
    assert step <= stopped["global_step"] < 40
    assert differing(stopped, read_checkpoint(whole_of_two / file.name)) == []


def session(process: subprocess.Popen[str]) -> list[int]:
    """All processes that it has begun and that are still there, whoever their parent is now."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = stat.read_text().rsplit(")", 1)[1].split()[:4]
            found += [int(stat.parent.name)] if number == str(process.pid) and state != "Z" else []
    return found


def begin_failing(folder: Path, rank: int, hangs: bool) -> subprocess.Popen[str]:
    """Two ranks with two worker processes each, of which one has a fault; returns at step 6, before the fault."""
    fault = [
        "allow_targets=[faulty.]",
        "loss._target_=faulty.FailingLoss",
        f"+loss.rank={rank}",
        f"+loss.hangs={hangs}",
    ]
    options = ["data._target_=faulty.WorkedToy", "callbacks.checkpoint.every.steps=3"]
    process = begin(folder, *TWO, *IMPATIENT, *fault, *options)
    wait_for_step(process, folder, 6)
    assert len(session(process)) >= 6
    return process


def begin_endless(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """Two ranks after step 7, and the number of the second."""
    options = ["callbacks.checkpoint.every.steps=3", "trainer.max_steps=10000", "scheduler.num_steps=10000"]
    process = begin(folder, *TWO, *IMPATIENT, *options)
    wait_for_step(process, folder, 7)
    return process, other_rank(process)


@pytest.mark.slow
def test_a_rank_that_raises_leaves_nobody(tmp_path: Path) -> None:
    process = begin_failing(tmp_path / "run", rank=1, hangs=False)
    _, errors = process.communicate(timeout=LIMIT)  # it also waits for all who can still write
    assert process.returncode not in (0, None), errors
    assert "rank 1 has a fault" in errors
    wait_until(lambda: not session(process))
    assert read_checkpoint(tmp_path / "run")["global_step"] in (3, 6)


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_other(tmp_path: Path) -> None:
    process, other = begin_endless(tmp_path / "run")
    os.kill(other, signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode not in (0, None), errors
    wait_until(lambda: not alive(other))
    assert read_checkpoint(tmp_path / "run")["global_step"] % 3 == 0


@pytest.mark.slow
def test_a_rank_that_hangs_leaves_nobody(tmp_path: Path) -> None:
    """One that the machine stops, and one that its code does; both at once, as most of the time is waiting."""
    stopped, other = begin_endless(tmp_path / "stopped")
    os.kill(other, signal.SIGSTOP)
    hanging = begin_failing(tmp_path / "hanging", rank=0, hangs=True)
    for process in (stopped, hanging):
        _, errors = process.communicate(timeout=LIMIT)
        assert process.returncode not in (0, None), errors
    wait_until(lambda: not alive(other))
    wait_until(lambda: not session(hanging))
    assert read_checkpoint(tmp_path / "stopped")["global_step"] % 3 == 0
    assert read_checkpoint(tmp_path / "hanging")["global_step"] in (3, 6)


@pytest.mark.slow
def test_two_ranks_go_on_as_if_nothing_had_been(whole_of_two: Path, tmp_path: Path) -> None:
    process = begin(tmp_path / "run", *TWO)
    wait_for_step(process, tmp_path / "run", 5)
    process.terminate()
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 143, errors
    again = begin(tmp_path / "run", *TWO, "loss.seconds=0.0", "resume_allow=[loss.seconds]")
    output, errors = again.communicate(timeout=LIMIT)
    assert again.returncode == 0, errors
    assert "resumed from step" in output
    last = read_checkpoint(tmp_path / "run")
    assert last["global_step"] == 40
    assert differing(last, read_checkpoint(whole_of_two.parent)) == []
