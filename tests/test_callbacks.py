"""Callbacks in short real trainings: averages, cadences, what is logged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from small_tasks import History, fit, parameters, records, small_task
from torch import Tensor

from inkdrop.callbacks import EMA, Every, LossByNoiseLevel, Throughput, averaged_weights
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.checkpoints import model_weights
from inkdrop.data.toys import Toy, moons
from inkdrop.losses import LossTerms
from inkdrop.schedules import VP, Schedule, linear_beta
from inkdrop.time_samplers import spread


def test_accumulated_steps_run_on_over_the_end_of_a_pass(tmp_path: Path) -> None:
    """Four batches are a pass and three a step: every step is that of one batch of three times the size."""
    small, large = small_task(), small_task()
    fit(small, 4, [], tmp_path, accumulate_grad_batches=3)
    fit(large, 4, [], tmp_path, batch_size=48)
    for name, weight in parameters(large).items():
        assert torch.allclose(parameters(small)[name], weight, atol=1e-5), name
    norms = [norm for _, norm in records(tmp_path, "train/gradient_norm")]
    assert norms[:2] == pytest.approx(norms[2:], rel=1e-4)


@pytest.mark.parametrize(("accumulate", "every_steps"), [(1, 1), (3, 1), (1, 2)])
def test_ema_is_the_recursion_over_optimizer_steps(accumulate: int, every_steps: int, tmp_path: Path) -> None:
    task, history, ema = small_task(), History(), EMA([0.5, 0.999], every_steps)
    start = parameters(task)
    fit(task, 6, [history, ema], tmp_path, accumulate_grad_batches=accumulate)
    assert len(history.weights) == 6
    for decay in (0.5, 0.999):
        expected = start
        for k, weights in enumerate(history.weights[every_steps - 1 :: every_steps], 1):
            d = min(decay**every_steps, (1 + k) / (10 + k))
            expected = {name: d * expected[name] + (1 - d) * weights[name] for name in expected}
        for name, value in expected.items():
            assert torch.allclose(ema.averages[str(decay)][name], value, atol=1e-6), name


def test_averages_stand_in_the_network_within_the_block_only(tmp_path: Path) -> None:
    task, ema = small_task(), EMA([0.9])
    trainer = fit(task, 5, [ema], tmp_path)
    raw, averages = parameters(task), {name: value.clone() for name, value in ema.averages["0.9"].items()}
    counter = task.pipeline.denoiser.network.counter.clone()  # type: ignore[union-attr, operator]
    with pytest.raises(RuntimeError, match="inside"), averaged_weights(trainer, task):  # noqa: PT012
        assert all(torch.equal(value, averages[name]) for name, value in parameters(task).items())
        with pytest.raises(AssertionError, match="an average is in the network"):
            ema.on_save_checkpoint(trainer, task, {})
        raise RuntimeError("inside")
    assert all(torch.equal(value, raw[name]) for name, value in parameters(task).items())
    assert all(torch.equal(value, averages[name]) for name, value in ema.averages["0.9"].items())
    assert torch.equal(task.pipeline.denoiser.network.counter, counter)  # type: ignore[union-attr]


def test_nothing_is_saved_while_averages_stand_in_the_network(tmp_path: Path) -> None:
    task, ema = small_task(), EMA([0.9])
    saved = Checkpoint(Every(steps=100), str(tmp_path / "c"))
    trainer = fit(task, 5, [ema, saved], tmp_path)
    with pytest.raises(AssertionError, match="must not be written"), ema.averaged(task):
        trainer.save_checkpoint(tmp_path / "c" / "step-00000006.ckpt")
    assert [file.name for file in (tmp_path / "c").glob("*.ckpt")] == ["step-00000005.ckpt"]
    trainer.save_checkpoint(tmp_path / "c" / "again.ckpt")  # after training, under the name of the step
    saved.files.wait()
    content = torch.load(tmp_path / "c" / "step-00000005.ckpt", weights_only=True)
    assert all(torch.equal(content["state_dict"][name], weight) for name, weight in parameters(task).items())
    assert any(not torch.equal(content["ema"]["0.9"][name], weight) for name, weight in parameters(task).items())


def test_a_profile_that_joins_later_keeps_its_own_decay(tmp_path: Path) -> None:
    task, ema = small_task(), EMA([0.5, 0.999])
    known = {name: value.clone() for name, value in parameters(task).items()}
    ema.on_load_checkpoint(None, task, {"ema": {"0.999": known}})  # type: ignore[arg-type]
    ema.num_updates = 10_000  # the warm-up is over
    fit(task, 5, [ema], tmp_path)
    name = "pipeline.denoiser.network.output.1.weight"
    moved = {decay: (ema.averages[decay][name] - known[name]).norm() for decay in ("0.5", "0.999")}
    assert moved["0.999"] < 0.02 * moved["0.5"]


def test_a_checkpoint_holds_raw_and_averaged_weights_apart(tmp_path: Path) -> None:
    task, ema = small_task(), EMA([0.9, 0.5])
    fit(task, 6, [ema, Checkpoint(Every(steps=2), str(tmp_path / "c"), keep=2)], tmp_path)
    files = sorted((tmp_path / "c").glob("*.ckpt"))
    assert [file.name for file in files] == ["step-00000004.ckpt", "step-00000006.ckpt"]
    checkpoint = torch.load(files[-1], weights_only=True)
    raw = model_weights(checkpoint, "raw")
    for name, value in parameters(task).items():
        assert torch.equal(raw[name.removeprefix("pipeline.")], value)
    for weights, decay in (("ema", "0.9"), ("0.9", "0.9"), ("0.5", "0.5")):
        averaged = model_weights(checkpoint, weights)
        assert all(torch.equal(averaged[n.removeprefix("pipeline.")], v) for n, v in ema.averages[decay].items())
    with pytest.raises(ValueError, match=r"raw, 0\.9, 0\.5"):
        model_weights(checkpoint, "0.7")


def test_training_does_not_depend_on_the_global_seed(tmp_path: Path) -> None:
    """Not even dropout: all randomness is keyed by the run's seed and the position."""
    results = []
    for number, global_seed in enumerate((1, 2)):
        task = small_task(dropout=0.3)
        torch.manual_seed(global_seed)
        (tmp_path / str(number)).mkdir()
        fit(task, 8, [], tmp_path / str(number))
        results.append(parameters(task))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    other = small_task(seed=1, dropout=0.3)
    fit(other, 8, [], tmp_path)
    assert not all(torch.equal(results[0][name], value) for name, value in parameters(other).items())


def test_validation_loss_is_the_same_for_every_seed(tmp_path: Path) -> None:
    losses = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        task = small_task(seed)
        task.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)
        fit(task, 2, [], folder, val_check_interval=2)
        losses += records(folder, "validation/loss")
    assert losses[0] == losses[1]


@pytest.mark.parametrize("batch_size", [16, 24])
@pytest.mark.parametrize("schedule", [VP(), linear_beta(10, 1e-3, 0.5)], ids=["vp", "table"])
def test_validation_times_are_those_of_the_items(schedule: Schedule, batch_size: int, tmp_path: Path) -> None:
    task, seen = small_task(), list[Tensor]()
    task.pipeline.denoiser.schedule = schedule
    terms = task.terms

    def watched(batch: Any, generators: Any, t: Tensor | None = None) -> LossTerms:
        seen.extend([] if t is None else [t])
        return terms(batch, generators, t)

    task.terms = watched  # type: ignore[method-assign]
    fit(task, 1, [], tmp_path, batch_size, val_check_interval=1)
    assert torch.equal(torch.cat(seen), spread(schedule, range(64)))


@pytest.mark.parametrize(("limit", "within"), [(1, 0.1), (4, 0.06), (0.5, 0.04)])
def test_the_validation_loss_of_a_part_is_comparable_to_that_of_all(
    limit: float, within: float, tmp_path: Path
) -> None:
    losses = []
    for name, options in (("all", {}), ("part", {"limit_val_batches": limit})):
        (tmp_path / name).mkdir()
        data = Toy(moons, 2048, [2], 0, 64)
        fit(small_task(), 3, [], tmp_path / name, data=data, val_check_interval=3, **options)
        ((_, loss),) = records(tmp_path / name, "validation/loss")
        losses.append(loss)
    assert losses[1] == pytest.approx(losses[0], rel=within)


@pytest.mark.parametrize(
    ("cadence", "steps"),
    [
        ({"steps": 3}, [3, 6, 9, 12]),
        ({"epochs": 1}, [4, 8, 12]),  # 64 points, batches of 16
        ({"epochs": 0.5}, [2, 4, 6, 8, 10, 12]),
        ({"samples": 100}, [7]),
        ({"minutes": 60.0}, []),
    ],
)
def test_cadences(cadence: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    due: list[int] = []

    class Watch(Callback):
        every = Every(**cadence)

        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if self.every.due(trainer):
                due.append(trainer.global_step)

    fit(small_task(), 12, [Watch()], tmp_path)
    assert due == steps


@pytest.mark.slow
def test_a_cadence_is_due_at_the_step_that_completes_an_interval() -> None:
    def due(last: int, items: int, **cadence: float) -> list[int]:
        loader, every = SimpleNamespace(batch_size=10, num_items=items), Every(**cadence)  # type: ignore[arg-type]
        steps = (
            SimpleNamespace(global_step=i + 1, train_dataloader=loader, accumulate_grad_batches=1) for i in range(last)
        )
        return [trainer.global_step for trainer in steps if every.due(trainer)]  # type: ignore[arg-type]

    for steps in range(1, 200):  # 49 in an epoch, for one
        assert due(3 * steps, 10 * steps, epochs=1) == [steps, 2 * steps, 3 * steps]
    for fraction, parts in ((0.1, 10), (0.2, 5), (0.02, 50), (1 / 3, 3), (1 / 13, 13), (1.5, 2 / 3)):
        interval = round(1950 / parts)
        assert due(3900, 19500, epochs=fraction) == list(range(interval, 3901, interval)), fraction
    assert due(3000, 10000, epochs=0.1) == list(range(100, 3001, 100))
    assert due(12, 10, epochs=1e-12) == list(range(1, 13))
    assert due(40, 95, epochs=1) == [10, 19, 29, 38]
    assert due(12, 95, samples=25) == [3, 5, 8, 10]


def test_a_cadence_of_minutes_follows_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    every, clock = Every(minutes=2.0), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    every._start = 0.0
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path, accelerator="cpu")
    due = []
    for clock[0] in (60.0, 119.0, 121.0, 200.0, 500.0):
        due.append(every.due(trainer))
    assert due == [False, False, True, False, True]


@pytest.mark.parametrize("units", [{}, {"steps": 1, "epochs": 1}])
def test_a_cadence_has_one_unit(units: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Every(**units)


def test_loss_by_noise_level_is_the_mean_over_its_interval(tmp_path: Path) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
            seen.append((outputs["t"], outputs["error"]))

    fit(small_task(), 4, [Watch(), LossByNoiseLevel(Every(steps=4), num_bins=2)], tmp_path)
    t, error = (torch.cat(each) for each in zip(*seen, strict=True))
    for low, name in ((0.0, "loss_by_t/0.00-0.50"), (0.5, "loss_by_t/0.50-1.00")):
        expected = error[(low <= t) & (t < low + 0.5)].mean().item()
        assert records(tmp_path, name) == [(4, pytest.approx(expected, rel=1e-5))]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_throughput_and_gradient_norm_are_logged(
    accumulate: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    norms: list[float] = []
    monkeypatch.setattr("inkdrop.callbacks.throughput.time", SimpleNamespace(monotonic=lambda: 100 + 0.5 * len(norms)))

    class Watch(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            gradients = torch.cat([p.grad.flatten() for p in pl_module.parameters()])
            norms.append(gradients.norm().item())

    options = {"gradient_clip_val": 1e-3, "accumulate_grad_batches": accumulate}
    fit(small_task(), 6, [Watch(), Throughput()], tmp_path, **options)
    logged = records(tmp_path, "train/gradient_norm")
    assert [value for _, value in logged] == pytest.approx(norms[1::2], rel=1e-5)  # before clipping
    rate = 16 * accumulate / 0.5
    assert records(tmp_path, "train/samples_per_second") == [(step, pytest.approx(rate)) for step in (2, 4, 6)]
