"""A run that was interrupted goes on as if nothing had been, to the bit."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from entry_scripts import completed
from moments import at_call, full
from runs import POINTS, RECORDED, STEPS, TINY, differing, interrupted, logged, recorded, run

from inkdrop.callbacks import EMA
from inkdrop.checkpoints import read_checkpoint
from inkdrop.checkpoints.folder import CheckpointFolder, _Digest
from inkdrop.data.module import DataModule
from inkdrop.data.toys import Toy, moons
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.loggers.csv import CSV
from inkdrop.loggers.jsonl import JSONLines
from inkdrop.runs.ownership import locked
from inkdrop.runs.resumption import changed_facts, check_same, resume_point
from inkdrop.tasks import Task

DIGITS = [*TINY, *RECORDED, "network.dropout=0.2", "conditioner.dropout=0.3"]


def use_workers(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(DataModule, "_workers", lambda self, split: number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    run(folder)
    return folder


SOME = 12  # steps
ENDS = {1: [10, 11], 2: [5, 6]}  # either side of where a pass over the data ends, by the batches of a step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_workers", "accumulate", "validation"),
    [(0, 1, True), (0, 1, False), (0, 2, False), (2, 1, False), (2, 2, True)],
)
def test_a_run_goes_on_to_the_bit_from_every_step(
    num_workers: int, accumulate: int, validation: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From every step where all that a step can have comes together; else from those where something turns.

    These are the first and the last, a validation and what comes after it, and the end of a pass over the data.
    """
    use_workers(monkeypatch, num_workers)
    options = [
        f"trainer.max_steps={SOME}",
        "data.num_points=86",  # so that a pass over them ends within the run
        f"trainer.accumulate_grad_batches={accumulate}",
        f"trainer.val_check_interval={4 if validation else 1000}",
    ]
    whole = run(tmp_path / "whole", *options)
    assert whole["global_step"] == SOME
    assert whole["Toy"] == {"num_samples_seen": SOME * accumulate * 8}
    everything = num_workers == accumulate == 2 and validation
    turns = {1, *([4, 5] if validation else []), *ENDS[accumulate], SOME - 1}
    for step in range(1, SOME) if everything else sorted(turns):
        folder = interrupted(tmp_path / "whole", step, tmp_path / str(step))
        assert differing(run(folder, *options), whole) == [], step
        assert logged(folder) == logged(tmp_path / "whole"), step


@pytest.mark.slow
def test_a_run_of_images_goes_on_to_the_bit(tmp_path: Path) -> None:
    options = ["trainer.val_check_interval=7", "trainer.max_steps=9"]
    whole = run(tmp_path / "whole", *options, model=DIGITS)
    for step in (1, 7, 8):
        folder = interrupted(tmp_path / "whole", step, tmp_path / str(step))
        assert differing(run(folder, *options, model=DIGITS), whole) == [], step


MEASURED = [
    *(option for option in POINTS if option != "~callbacks.evaluate"),
    "callbacks.evaluate.every.steps=8",
    "evaluation.num_samples=20",
    "metric.frechet.min_samples=2",
    "time_grid.num_steps=3",
    "callbacks.stop_early={_target_:inkdrop.callbacks.StopEarly,metric:fd_raw_20,patience:9}",
]


@pytest.mark.slow
def test_a_run_goes_on_with_what_was_measured(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", model=MEASURED)
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["protocol"]["metrics"].keys() == {"fd_raw_20"}
    for step in (8, 15, 22):
        folder = interrupted(tmp_path / "whole", step, tmp_path / str(step))
        assert differing(run(folder, model=MEASURED), whole) == [], step
        again = json.loads((folder / "result.json").read_text())
        assert again["protocol"] == result["protocol"], step
        assert again["metrics"]["fd_raw_20"] == result["metrics"]["fd_raw_20"], step


@pytest.mark.slow
def test_two_devices_go_on_with_the_samples_of_one(tmp_path: Path) -> None:
    """The norm of the gradient of all samples of a step is as it was, but for the order of sums."""
    options = ["network.dropout=0.0", "trainer.max_steps=8"]
    run(tmp_path / "whole", *options)
    folder = interrupted(tmp_path / "whole", 3, tmp_path / "3")
    devices = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
    done = completed("train.py", *POINTS, *options, *devices, f"output_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert "dropout in the network, loss.coupling" in done.stdout
    one, two = (
        [line["train/gradient_norm"] for line in logged(path) if "train/gradient_norm" in line]
        for path in (tmp_path / "whole", folder)
    )
    assert len(one) == 8
    assert two == pytest.approx(one, rel=1e-4)
    assert min(abs(x - y) for i, x in enumerate(one) for y in one[:i]) > 1e-3  # which tells samples apart


def positions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of all samples that are trained on from now on."""
    seen: list[int] = []
    step = Task.training_step

    def watched(self: Task, batch: Any, number: int) -> Any:
        if self._trainer is not None:  # else what a step costs is looked at
            seen.extend(batch["position"].tolist())
        return step(self, batch, number)

    monkeypatch.setattr(Task, "training_step", watched)
    return seen


@pytest.mark.many
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_with_another_batch_size_no_sample_is_seen_twice_or_never(
    accumulate: int, num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_workers(monkeypatch, num_workers)
    options = [f"trainer.accumulate_grad_batches={accumulate}", "callbacks.checkpoint.every.steps=2"]
    allowed = "resume_allow=[data.batch_size,trainer.max_steps]"
    seen = positions(monkeypatch)
    run(tmp_path, *options, "trainer.max_steps=4", "scheduler.num_steps=22")
    run(tmp_path, *options, "trainer.max_steps=6", "scheduler.num_steps=22", "data.batch_size=20", allowed)
    last = run(tmp_path, *options, "trainer.max_steps=9", "scheduler.num_steps=22", "data.batch_size=6", allowed)
    count = accumulate * (4 * 8 + 2 * 20 + 3 * 6)
    assert seen == list(range(count))
    assert last["Toy"] == {"num_samples_seen": count}


@pytest.mark.slow
def test_a_run_that_counted_batches_goes_on_to_the_bit(whole: Path, tmp_path: Path) -> None:
    folder = interrupted(whole, 9, tmp_path / "9")
    file = folder / "checkpoints" / "step-00000009.ckpt"
    old = torch.load(file, weights_only=True)
    assert old["Toy"] == {"num_samples_seen": 72}
    file.unlink()
    torch.save({**old, "format": 3, "Toy": {"num_batches_seen": 9}}, file)
    (folder / "checkpoints" / "index.json").unlink()
    assert differing(run(folder), read_checkpoint(whole)) == []


@pytest.mark.parametrize("state", [{}, {"num_samples_seen": "8"}, {"num_samples_seen": -8}, {"num_samples_seen": 0.5}])
def test_a_number_of_samples_that_is_none_is_refused(state: Any) -> None:
    with pytest.raises(CheckpointError, match="use another file"):
        Toy(moons, 64, [2], 0, 8).load_state_dict(state)


def read_only() -> None:
    raise OSError(errno.EROFS, "Read-only file system")


# name: (what fails from its call with this number on, and how, what is said, the step of the last whole file)
WRITES: dict[str, tuple[Any, str, int, Callable[[], None], str, int]] = {
    "file": (_Digest, "write", 2000, full, "No space left on device", 3),
    "index": (CheckpointFolder, "_replace_index", 4, full, "No space left on device", 3),
    "rename": (Path, "replace", 11, read_only, "Read-only file system", 4),
    "open": (torch, "save", 5, read_only, "Read-only file system", 4),
}


@pytest.mark.many
@pytest.mark.parametrize(("owner", "name", "number", "fail", "said", "step"), WRITES.values(), ids=WRITES)
def test_a_run_that_cannot_write_ends_with_code_4_and_goes_on_later(
    owner: Any,
    name: str,
    number: int,
    fail: Callable[[], None],
    said: str,
    step: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_call(patch, owner, name, number, fail, again=True)
        with pytest.raises(SystemExit) as stopped:
            run(folder, "trainer.max_steps=8")
    assert stopped.value.code == 4
    errors = capsys.readouterr().err
    assert f"error: a checkpoint could not be written to {folder / 'checkpoints'}: " in errors
    assert said in errors
    assert not (folder / "result.json").exists()
    assert not list((folder / "checkpoints").glob("*.unfinished"))
    assert read_checkpoint(folder)["global_step"] == step
    whole = run(tmp_path / "whole", "trainer.max_steps=8")
    assert differing(run(folder, "trainer.max_steps=8"), whole) == []


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_workers(monkeypatch, 2)
    assert differing(run(interrupted(whole, 9, tmp_path / "9")), read_checkpoint(whole)) == []


@pytest.mark.slow
def test_the_comparison_notices_batches_that_are_seen_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(whole, 9, tmp_path / "9")
    monkeypatch.setattr(DataModule, "load_state_dict", lambda self, state: None)
    wrong = differing(run(folder), read_checkpoint(whole))
    assert "state_dict.pipeline.denoiser.network.input.weight" in wrong
    assert logged(folder) != logged(whole)


@pytest.mark.slow
def test_the_run_says_whether_it_is_fresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run(tmp_path / "whole")
    assert "fresh run " in capsys.readouterr().out
    folder = interrupted(tmp_path / "whole", 20, tmp_path / "20")
    again = run(folder)
    assert f"resumed from step 20: run {whole['config']['run_id']}" in capsys.readouterr().out
    assert again["config"]["run_id"] == whole["config"]["run_id"]
    before = (folder / "metrics.jsonl").read_bytes()
    (folder / "result.json").unlink()  # killed before it was written
    for _ in range(2):
        run(folder)
        assert "nothing to do: the run has all its 22 steps" in capsys.readouterr().out
        assert (folder / "metrics.jsonl").read_bytes() == before
        assert json.loads((folder / "result.json").read_text())["metrics"] == again["latest"]


@pytest.mark.slow
def test_a_tracker_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    tracked = [option for option in POINTS if option != "logger=none"] + ["trainer.max_steps=4"]
    begun = Mock(side_effect=lambda **options: Mock(id=options["id"], starting_step=0))
    monkeypatch.setattr(wandb, "init", begun)
    whole = run(tmp_path / "whole", model=tracked)
    run(interrupted(tmp_path / "whole", 2, tmp_path / "2"), model=tracked)
    assert [call.kwargs["id"] for call in begun.mock_calls] == [whole["config"]["run_id"]] * 2
    assert [call.kwargs["resume"] for call in begun.mock_calls] == ["allow"] * 2


TABLED = [*(option for option in POINTS if option != "logger=none"), "logger=csv", "trainer.val_check_interval=3"]


def table(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, without their empty cells."""
    rows = csv.DictReader((folder / "csv" / "metrics.csv").read_text().splitlines())
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def steps(rows: list[dict[str, float]]) -> list[float]:
    return [row["step"] for row in rows if "train/loss" in row]


@pytest.mark.slow
def test_a_table_goes_on_with_the_record(tmp_path: Path) -> None:
    run(tmp_path, model=TABLED)
    first = table(tmp_path)
    assert first == recorded(tmp_path)
    run(tmp_path, model=TABLED)  # has nothing to do
    assert table(tmp_path) == first
    run(tmp_path, "trainer.max_steps=28", "resume_allow=[trainer,scheduler]", model=TABLED)
    assert table(tmp_path)[: len(first)] == first
    assert table(tmp_path) == recorded(tmp_path)
    assert steps(table(tmp_path)) == list(range(1, 29))


@pytest.mark.slow
def test_a_table_has_the_steps_before_it_and_none_twice(whole: Path, tmp_path: Path) -> None:
    folder = interrupted(whole, 5, tmp_path / "5")  # its record goes on to step 22
    CSV(str(folder / "csv")).begin([{"step": 21, "train/loss": 1.0}])
    run(folder, "logger=csv")
    assert table(folder) == recorded(folder)
    assert steps(table(folder)) == list(range(1, STEPS + 1))


def test_a_line_that_is_broken_is_not_in_the_table(tmp_path: Path) -> None:
    record = JSONLines(tmp_path / "metrics.jsonl")
    record.log_metrics({"train/loss": 1.0}, 0)
    with record.path.open("a") as file:
        file.write('{"step": 1, "ti\n')
    assert record.rows() == [{"step": 0, "train/loss": 1.0}]


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"])
def test_the_first_process_of_a_run_begins_it_for_all(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path):
        (tmp_path / "config.yaml").touch()
        with pytest.raises(CheckpointError, match="another process writes"), locked(tmp_path):
            pass
        with pytest.raises(ConfigurationError, match="contains another run"):
            resume_point(tmp_path, "never")
        monkeypatch.setenv(name, "1")
        with locked(tmp_path):
            assert resume_point(tmp_path, "never") is None


@pytest.mark.slow
def test_what_was_changed_is_shown_and_refused_unless_it_is_named(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = interrupted(whole, 5, tmp_path / "5")
    with pytest.raises(SystemExit) as stopped:
        run(folder, "optimizer.lr=0.04", "network.num_blocks=2")
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "  optimizer.lr: 0.004 -> 0.04\n" in message
    assert "resume_allow=[network.num_blocks,optimizer.lr]" in message
    assert "task." not in message  # the same again, by reference
    again = run(folder, "optimizer.lr=0.04", "resume_allow=[optimizer.lr]")
    assert "changed: optimizer.lr: 0.004 -> 0.04" in capsys.readouterr().out
    (group,) = again["optimizer_states"][0]["param_groups"]
    assert group["initial_lr"] == again["lr_schedulers"][0]["base_lrs"][0] == 0.04


@pytest.mark.slow
def test_what_may_change_sums_is_said(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert torch.get_num_threads() == 1
    folder = interrupted(whole, 20, tmp_path / "20")
    torch.set_num_threads(2)
    try:
        run(folder)
    finally:
        torch.set_num_threads(1)
    assert "warning: threads is now 2 instead of 1\n" in capsys.readouterr().out
    facts = {"versions": {"torch": "2.1"}, "threads": 1, "git_commit": "a"}
    new = {"versions": {"torch": "2.2", "numpy": "2"}, "threads": 1, "git_commit": "b"}
    assert changed_facts(facts, new) == ["torch is now 2.2 instead of 2.1", "git_commit is now b instead of a"]


def test_a_fault_of_the_code_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EMA, "on_train_batch_end", Mock(side_effect=ValueError("a fault")))
    with pytest.raises(ValueError, match="a fault"):  # and no SystemExit that would hide where it comes from
        run(tmp_path / "run")


@pytest.mark.slow
def test_a_new_learning_rate_is_in_force_at_once(tmp_path: Path) -> None:
    options = ["scheduler.warmup_steps=0", "scheduler.final_factor=1.0"]  # constant
    run(tmp_path / "whole", *options)
    folder = interrupted(tmp_path / "whole", 5, tmp_path / "5")
    new = ["optimizer.lr=0.0", "trainer.max_steps=6", "scheduler.num_steps=22"]
    last = run(folder, *options, *new, "resume_allow=[optimizer.lr,trainer.max_steps]")
    assert last["global_step"] == 6
    before = read_checkpoint(folder / "checkpoints" / "step-00000005.ckpt")
    weights = [name for name in before["state_dict"] if "weight" in name]
    assert all(torch.equal(before["state_dict"][name], last["state_dict"][name]) for name in weights)


def test_differences_are_found_at_their_own_place() -> None:
    old = {"lr": 1, "task": {"lr": 1, "own": 2}, "output_dir": "a", "files": "a/b", "logger": {"csv": {"x": 1}}}
    new = {"lr": 3, "task": {"lr": 3, "own": 2}, "output_dir": "c", "files": "c/b", "logger": {}, "new": None}
    with pytest.raises(ConfigurationError, match=r"resume_allow=\[lr,new\]") as refused:
        check_same(old, new, [])
    assert "  lr: 1 -> 3\n  new: (nothing) -> None\n" in str(refused.value)
    assert check_same(old, new, ["lr", "new"]) == ["lr: 1 -> 3", "new: (nothing) -> None"]
    assert check_same(old, old, []) == []
    with pytest.raises(ConfigurationError, match="name: carp -> cart"):  # the old output_dir is no part of a path here
        check_same({"output_dir": "a", "name": "carp"}, {"output_dir": "c", "name": "cart"}, [])
    with pytest.raises(ConfigurationError, match="files: ab/d -> cb/d"):
        check_same({"output_dir": "a", "files": "ab/d"}, {"output_dir": "c", "files": "cb/d"}, [])
    assert check_same({"a": float("nan")}, {"a": float("nan")}, []) == []
    with pytest.raises(ConfigurationError, match=r"task.own: 2 -> 5"):
        check_same(old, {**old, "task": {"lr": 1, "own": 5}}, [])


def test_a_run_is_sought_as_it_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert resume_point(folder, "auto") is None
    assert resume_point(folder, "never") is None
    with pytest.raises(CheckpointError, match="resume=must requires a checkpoint in"):
        resume_point(folder, "must")
    store = CheckpointFolder(folder / "checkpoints")
    store.save({"state_dict": {}, "config": {}}, 7)
    store.wait()
    for resume in ("auto", "must"):
        assert resume_point(folder, resume) == folder / "checkpoints" / "step-00000007.ckpt"
    with pytest.raises(ConfigurationError, match="contains another run"):
        resume_point(folder, "never")
