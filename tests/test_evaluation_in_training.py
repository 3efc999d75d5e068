"""Evaluation while training goes on: variants, shares of time, early stopping and best checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from runs import sampled, trained
from small_tasks import fit, records, small_task

from inkdrop.callbacks import EMA, Evaluate, Every, StopEarly, Variant
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.callbacks.measured import improves_upwards
from inkdrop.guidance import Clip
from inkdrop.metrics import Evaluation, FrechetDistance, Identity, PrecisionRecall
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Trailing


def evaluation(num_samples: int = 12) -> Evaluation:
    return Evaluation(Identity(2), {"frechet": FrechetDistance()}, num_samples=num_samples, batch_size=5)


def test_variants_are_measured_on_the_same_seeds_and_leave_no_trace(tmp_path: Path) -> None:
    task = small_task()
    sampler, guidance = task.pipeline.sampler, task.pipeline.guidance
    variants = {
        "same": Variant(),
        "raw": Variant(weights="raw"),
        "slow": Variant(weights="0.999"),
        "two": Variant(sampler=DDIM(Trailing(2))),
        "clipped": Variant(guidance={"clip": Clip(-0.01, 0.01)}),
    }
    callback = Evaluate(Every(steps=4), evaluation(), variants)
    fit(task, 4, [EMA([0.9, 0.999]), callback], tmp_path)
    results = callback.results
    assert results["fd_raw_12@same"] == pytest.approx(results["fd_raw_12"], rel=1e-9)
    values = [results["fd_raw_12"], *(results[f"fd_raw_12@{name}"] for name in ("raw", "two", "clipped"))]
    assert len(set(values)) == 4
    assert {name for name in results if "@" in name} == {f"fd_raw_12@{name}" for name in variants}  # no floors again
    assert task.pipeline.sampler is sampler
    assert task.pipeline.guidance == guidance
    assert callback.protocol["sampling"]["weights"] == "0.9"
    assert callback.protocol["sampling"]["network_calls"] == 5
    assert records(tmp_path, "fd_raw_12@raw") == [(4, results["fd_raw_12@raw"])]


def test_a_variant_of_an_average_that_is_not_kept_is_refused_at_the_start(tmp_path: Path) -> None:
    callback = Evaluate(Every(steps=4), evaluation(), {"other": Variant(weights="0.5")})
    with pytest.raises(ValueError, match=r"weights=0\.5 is not kept in this run; available: 0\.9, raw"):
        fit(small_task(), 4, [EMA([0.9]), callback], tmp_path)
    assert callback.results == {}


def test_the_share_of_time_is_told(tmp_path: Path) -> None:
    fit(small_task(), 4, [Evaluate(Every(steps=2), evaluation())], tmp_path)
    shares = records(tmp_path, "evaluation/share_of_time")
    assert [step for step, _ in shares] == [2, 4]
    assert all(0 < share < 1 for _, share in shares)
    assert records(tmp_path, "evaluation/sampling_seconds")


class Told(Callback):
    """Gives out these values of a metric, one after each step."""

    def __init__(self, values: list[float], better: str = "lower") -> None:
        self.protocol = {"metrics": {"fd": {"better": "higher"} if better == "higher" else {}}}
        self.values: Iterator[float] = iter(values)
        self.results: dict[str, float] = {}
        self.measured_at = -1

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.measured_at, self.results = trainer.global_step, {"fd": next(self.values)}


@pytest.mark.parametrize(
    ("metric", "values", "options", "steps"),
    [
        ("fd", [3.0, 2.0, 2.5, 2.0, 1.0, 0.0, 0.0, 0.0], {"patience": 2}, 4),
        ("-fd", [3.0, 4.0, 3.5, 5.0, 1.0, 2.0, 0.0, 9.0], {"patience": 2}, 6),
        ("fd", [3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3], {"patience": 3, "min_change": 0.5}, 4),
        ("fd", [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], {"patience": 1}, 8),
    ],
)
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_training_ends_when_nothing_gets_better(
    metric: str, better: str, values: list[float], options: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    if better == "higher":  # which the metric itself says, unless its name does
        values = values if metric == "-fd" else [-value for value in values]
    stop = StopEarly(metric, **options)
    saved = Checkpoint(Every(steps=100), str(tmp_path / "c"))
    trainer = fit(small_task(), 8, [Told(values, better), stop, saved], tmp_path)
    assert trainer.global_step == steps
    assert [file.name for file in (tmp_path / "c").glob("*.ckpt")] == [f"step-{steps:08d}.ckpt"]
    again = StopEarly(metric, **options)
    again.load_state_dict(stop.state_dict())
    assert again.num_worse == stop.num_worse


@pytest.mark.parametrize(
    ("best", "better", "steps"), [("fd", "lower", 3), ("fd", "higher", 2), ("-fd", "lower", 2), ("-fd", "higher", 2)]
)
def test_the_best_checkpoint_is_that_of_the_direction_of_the_metric(
    best: str, better: str, steps: int, tmp_path: Path
) -> None:
    saved = Checkpoint(Every(steps=100), str(tmp_path / "c"), keep=1, best=best)
    fit(small_task(), 4, [Told([3.0, 4.0, 1.0, 2.0], better), saved], tmp_path)
    assert sorted(file.name for file in (tmp_path / "c").glob("*.ckpt")) == [
        f"step-{step:08d}.ckpt" for step in (steps, 4)
    ]


def test_a_resumed_run_knows_the_direction_before_it_measures_again(tmp_path: Path) -> None:
    precision = Evaluation(Identity(2), {"precision": PrecisionRecall()}, num_samples=12)
    callback = Evaluate(Every(steps=4), precision)
    fit(small_task(), 4, [callback], tmp_path)
    again = Evaluate(Every(steps=4), precision)
    again.load_state_dict(callback.state_dict())
    trainer: Any = SimpleNamespace(callbacks=[again])
    assert improves_upwards(trainer, "precision_raw_12")
    assert not improves_upwards(trainer, "validation/loss")


def test_validation_loss_stops_too_and_a_name_that_never_comes_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = fit(
        small_task(), 20, [StopEarly("validation/loss", patience=1, min_change=100.0)], tmp_path, val_check_interval=2
    )
    assert trainer.global_step == 4
    assert "is not measured" not in capsys.readouterr().err
    callbacks = [Told([1.0] * 4), StopEarly("fid"), Checkpoint(Every(steps=100), str(tmp_path / "c"), best="-fdd")]
    fit(small_task(), 4, callbacks, tmp_path)
    errors = capsys.readouterr().err
    assert "callbacks.stop_early.metric=fid is not measured in this run; available:" in errors
    assert "callbacks.checkpoint.best=fdd is not measured in this run; available: fd" in errors


@pytest.mark.slow
def test_a_variant_has_a_record_of_its_own(tmp_path: Path) -> None:
    sampler = "{_target_: inkdrop.samplers.DDIM, time_grid: {_target_: inkdrop.time_grids.Trailing, num_steps: 2}}"
    two = f"two: {{_target_: inkdrop.callbacks.Variant, sampler: {sampler}}}"
    raw = "raw: {_target_: inkdrop.callbacks.Variant, weights: raw}"
    protocol = trained(tmp_path / "run", f"callbacks.evaluate.variants={{{two}, {raw}}}")["protocol"]
    variants = protocol["variants"]
    assert set(variants) == {"two", "raw"}
    assert variants["raw"]["sampling"] == {**protocol["sampling"], "weights": "raw"}
    assert variants["two"]["sampling"]["network_calls"] == 2
    assert variants["two"]["sampling"]["sampler"]["time_grid"]["num_steps"] == 2
    assert len({protocol["hash"], *(each["hash"] for each in variants.values())}) == 3


@pytest.mark.slow
def test_results_of_a_run_carry_the_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = trained(tmp_path / "run")
    terminal = capsys.readouterr().out
    share = result["evaluation_share_of_time"]
    assert 0 < share < 1
    assert f"evaluation took {share:.1%} of the time" in terminal
    lines = {line.split()[0]: line for line in terminal.splitlines() if line.startswith("fd_digits")}
    for name in ("fd_digits_20", "fd_digits_20_floor", "fd_digits_20_baseline"):
        assert lines[name].endswith(result["protocol"]["metrics"]["fd_digits_20"]["hash"])
    (name,) = result["protocol"]["metrics"]
    assert name == "fd_digits_20"
    assert result["protocol"]["sampling"]["weights"] == "0.997"
    assert result["protocol"]["sampling"]["network_calls"] == 4
    assert len(result["protocol"]["hash"]) == 12


@pytest.mark.slow
def test_mixed_precision_is_that_of_training_alone(tmp_path: Path) -> None:
    """Callbacks are called outside of autocast, and the record says so."""
    result = trained(tmp_path / "run", "trainer.precision=bf16-mixed")
    assert result["protocol"]["sampling"]["precision"] == "32-true"


@pytest.mark.slow
def test_what_is_sampled_as_in_training_has_its_value_and_its_protocol(tmp_path: Path) -> None:
    result = trained(tmp_path / "run")
    _, alike = sampled(tmp_path / "run", tmp_path / "alike", "num_samples=20", "evaluate=true")
    assert alike["protocol"] == result["protocol"]
    assert alike["metrics"]["fd_digits_20"] == pytest.approx(result["metrics"]["fd_digits_20"], rel=1e-4)
    options = ["num_samples=20", "evaluate=true", "time_grid.num_steps=3"]
    _, other = sampled(tmp_path / "run", tmp_path / "other", *options)
    assert other["protocol"]["hash"] != result["protocol"]["hash"]
    assert other["protocol"]["metrics"] == result["protocol"]["metrics"]  # measured alike
