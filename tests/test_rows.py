"""Each record has one row for a step, under the number of steps that were then done."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Callback
from runs import POINTS, run
from small_tasks import fit, small_task
from torch import Tensor

from inkdrop.callbacks import Every, LossByNoiseLevel, Throughput
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.errors import NonFiniteError
from inkdrop.loggers.jsonl import JSONLines

EVERYTHING = [
    *(option for option in POINTS if option not in ("~callbacks.evaluate", "logger=none")),
    "callbacks.evaluate.every.steps=4",
    "evaluation.num_samples=20",
    "metric.frechet.min_samples=2",
    "time_grid.num_steps=3",
    "callbacks.loss_by_noise_level.every.steps=2",
    "trainer.max_steps=8",
    "trainer.log_every_n_steps=2",
]
AT_ALL = {"train/loss", "train/gradient_norm", "train/learning_rate", "train/samples_per_second"}
MEASURED = {"validation/loss", "fd_raw_20", "evaluation/share_of_time"}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "interval"), [(1, 4), (2, 8), (3, 10)])
def test_all_that_is_logged_of_a_step_is_one_row_of_every_record(
    accumulate: int, interval: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    tracker = Mock(starting_step=0)
    monkeypatch.setattr(wandb, "init", lambda **options: tracker)
    options = [f"trainer.accumulate_grad_batches={accumulate}", f"trainer.val_check_interval={interval}"]
    run(tmp_path, *options, "logger=[csv,wandb]", model=EVERYTHING)
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    for row in rows:
        assert row.keys() >= AT_ALL
        assert any(name.startswith("loss_by_t/") for name in row)
        assert (row.keys() >= MEASURED) == (row["step"] in (4, 8))
    table = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").read_text().splitlines()))
    assert [row["step"] for row in table] == ["2", "4", "6", "8"]
    sent = [call.args[0] for call in tracker.log.mock_calls]
    assert [each["trainer/global_step"] for each in sent] == [2, 4, 6, 8]
    assert [call.kwargs for call in tracker.log.mock_calls] == [{"step": n, "commit": True} for n in (2, 4, 6, 8)]
    for row, each in zip(rows, sent, strict=True):
        chart = each.pop("loss_by_t")
        intervals = zip(chart.bins, chart.bins[1:], chart.histogram, strict=False)
        heights = {f"loss_by_t/{low:.2f}-{high:.2f}": height for low, high, height in intervals if height}
        assert {k: v for k, v in row.items() if k not in ("step", "time")} == {
            k: v for k, v in {**each, **heights}.items() if k != "trainer/global_step"
        }


class Watch(Callback):
    """The losses by step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.losses[trainer.global_step] = outputs["loss"].item()


def test_a_row_is_of_the_step_that_it_names(tmp_path: Path) -> None:
    watch = Watch()
    fit(small_task(), 7, [watch, Throughput(), LossByNoiseLevel(Every(steps=3))], tmp_path, val_check_interval=5)
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == [2, 3, 4, 5, 6]
    assert {row["step"]: row["train/loss"] for row in rows if "train/loss" in row} == {
        step: watch.losses[step] for step in (2, 4, 6)
    }
    assert rows[3].keys() == {"step", "time", "validation/loss"}


def test_a_checkpoint_counts_the_row_of_its_step(tmp_path: Path) -> None:
    saved = Checkpoint(Every(steps=1), str(tmp_path / "c"), keep=100)
    fit(small_task(), 6, [saved, Throughput()], tmp_path, val_check_interval=3)
    record = (tmp_path / "metrics.jsonl").read_bytes()
    last = {1: None, 2: 2, 3: 3, 4: 4, 5: 4, 6: 6}  # rows at 2, 3, 4 and 6
    for step, latest in last.items():
        size = torch.load(tmp_path / "c" / f"step-{step:08d}.ckpt", weights_only=True)["logged"]["jsonl"]
        counted = record[:size].splitlines()
        assert (json.loads(counted[-1])["step"] if counted else None) == latest
        assert size == sum(len(line) + 1 for line in counted)


def test_a_run_that_fails_has_the_row_of_its_last_step(tmp_path: Path) -> None:
    task = small_task()
    terms = task.terms

    def broken(batch: Any, generators: Any, t: Tensor | None = None) -> Any:
        found = terms(batch, generators, t)
        return found if t is None else found._replace(loss=found.loss * float("nan"))

    task.terms = broken  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="validation after optimizer step 4"):
        fit(task, 8, [Throughput()], tmp_path, val_check_interval=4)
    assert [row["step"] for row in lines(tmp_path)] == [2, 4]
    assert "train/loss" in lines(tmp_path)[-1]


def test_a_record_is_written_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was skipped stands in the row of the step that was left out."""
    written = Counter[int]()
    write = JSONLines.write
    monkeypatch.setattr(JSONLines, "write", lambda self, row: (written.update([row["step"]]), write(self, row))[1])
    task = small_task()
    task.guard.max_skipped_steps, task.guard.max_gradient_norm = 8, 1e-9
    fit(task, 4, [Throughput()], tmp_path)
    assert written == {1: 1, 2: 1, 3: 1, 4: 1}
    assert [row["train/skipped_steps"] for row in lines(tmp_path)] == [1, 2, 3, 4]
    assert "train/loss" in lines(tmp_path)[1]


@pytest.mark.slow
def test_the_loss_of_a_step_is_that_of_all_its_batches(tmp_path: Path) -> None:
    """A step of two batches sees the positions that one of a batch twice as large sees."""
    for name, options in (("once", ["data.batch_size=32"]), ("twice", ["data.batch_size=16"])):
        accumulate = f"trainer.accumulate_grad_batches={2 if name == 'twice' else 1}"
        steps = ["trainer.max_steps=4", "trainer.log_every_n_steps=2", "trainer.val_check_interval=8"]
        run(tmp_path / name, *options, accumulate, *steps, "network.dropout=0")
    once, twice = (
        {row["step"]: row["train/loss"] for row in lines(tmp_path / name) if "train/loss" in row}
        for name in ("once", "twice")
    )
    assert once.keys() == twice.keys() == {2, 4}
    for step, loss in once.items():
        assert twice[step] == pytest.approx(loss, rel=1e-4)
