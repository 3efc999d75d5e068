"""A device that refuses a step by itself: the host reads the verdict one step late, and nothing has changed."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty import FaultyLoss
from lightning.pytorch import Callback
from pretended import Pretended, There
from small_tasks import fit, parameters, records, small_task

from inkdrop.callbacks import EMA, Every
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.errors import NonFiniteError
from inkdrop.tasks import DiffusionTask
from inkdrop.tasks.guard import refuses_itself
from inkdrop.time_samplers import Uniform
from inkdrop.weightings import Unit

NAN, INF = float("nan"), float("inf")
BAD = 5  # the step that is refused, which is not logged


class BrokenGradient(Callback):
    """Puts a value into the gradient of a weight, by its number, in the bad step."""

    def __init__(self, number: int, value: float):
        self.number, self.value = number, value

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step + 1 == BAD:
            with torch.no_grad():
                list(pl_module.parameters())[self.number].grad.view(-1)[-1:].fill_(self.value)


class BrokenData(Callback):
    """Puts NaN into one sample of the bad step."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step + 1 == BAD:
            batch["x"][2].fill_(NAN)


LOSSES: dict[str, dict[str, float]] = {
    "loss of NaN": {"factor": NAN},
    "loss of infinity": {"term": INF},
    "loss of minus infinity": {"term": -INF},
    "norm above the largest": {"factor": 1e5},
}
OTHERS: dict[str, Any] = {
    "gradient of the first weight": partial(BrokenGradient, 0, NAN),
    "gradient of a middle weight": partial(BrokenGradient, 3, NAN),
    "gradient of the last weight": partial(BrokenGradient, -1, NAN),
    "infinite gradient": partial(BrokenGradient, 2, INF),
    "negative infinite gradient": partial(BrokenGradient, 4, -INF),
    "data": BrokenData,
}
PLACES = [*LOSSES, *OTHERS]


def trained(
    place: str | None,
    folder: Path,
    batches: int,
    steps: int = 9,
    skipped: int = 1,
    clip: float | None = None,
    **there: Any,
) -> tuple[DiffusionTask, EMA, Any]:
    """A run with a fault at this place, on a CPU or the pretended device."""
    task, ema = small_task(), EMA([0.9, 0.99])
    task.optimizer = partial(torch.optim.AdamW, lr=1e-2, fused=True)
    task.guard.max_skipped_steps, task.guard.max_gradient_norm = skipped, 1e3
    if place in LOSSES:
        task.loss = FaultyLoss(Uniform(), Unit(), calls=[(BAD - 1) * batches + 1], **LOSSES[place])
    callbacks = [ema, *([OTHERS[place]()] if place in OTHERS else []), *there.get("callbacks", ())]
    folder.mkdir()
    with there.get("device") or contextlib.nullcontext():
        trainer = fit(task, steps, callbacks, folder, accumulate_grad_batches=batches, gradient_clip_val=clip)
    return task, ema, trainer


def state(task: DiffusionTask, ema: EMA, trainer: Any) -> Any:
    """Weights, moments, averages and the learning rate."""
    (optimizer,) = trainer.optimizers
    moments = [[each[name].clone() for name in ("step", "exp_avg", "exp_avg_sq")] for each in optimizer.state.values()]
    return parameters(task), moments, ema.averages, ema.num_updates, optimizer.param_groups[0]["lr"]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> dict[int, int]:
    """How often a run without a fault updates its averages, by the batches of a step."""
    folder = tmp_path_factory.mktemp("whole")
    return {batches: state(*trained(None, folder / str(batches), batches))[3] for batches in (1, 2)}


@pytest.mark.many
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_a_step_that_the_device_refuses_leaves_everything_as_it_was(
    place: str,
    batches: int,
    updates: dict[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """To the bit as on a CPU, where the host looks at the norm before the step, and refuses it itself."""
    device = {"device": Pretended(monkeypatch), "callbacks": [There()]}
    late = state(*trained(place, tmp_path / "late", batches, **device))
    warned = [line for line in capfd.readouterr().err.splitlines() if "skipped" in line]
    soon = state(*trained(place, tmp_path / "soon", batches))
    assert equal(late, soon)
    assert warned == [line for line in capfd.readouterr().err.splitlines() if "skipped" in line]
    assert len(warned) == 1
    assert f"optimizer step {BAD}: " in warned[0]
    assert [records(tmp_path / name, "train/skipped_steps") for name in ("late", "soon")] == [[(BAD, 1.0)]] * 2
    assert late[3] == updates[batches] - 1


@pytest.mark.parametrize("place", PLACES[::3])
def test_a_run_that_must_not_skip_ends_with_the_state_of_the_step_before(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    class Noted(There):
        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            steps.append(trainer.global_step)
            left.append(state(pl_module, next(each for each in trainer.callbacks if isinstance(each, EMA)), trainer))

    left: list[Any] = []
    saved = Checkpoint(Every(steps=BAD), str(tmp_path / "checkpoints"))
    with pytest.raises(NonFiniteError, match=f"optimizer step {BAD}: .*; it changed nothing: "):
        trained(place, tmp_path / "late", 1, skipped=0, device=Pretended(monkeypatch), callbacks=[Noted(), saved])
    assert steps == [BAD]  # one step late, before the checkpoint of that step
    assert not list((tmp_path / "checkpoints").glob("*.ckpt"))
    before = state(*trained(None, tmp_path / "before", 1, steps=BAD - 1))
    assert equal(left[0], before)


def test_the_device_clips_as_the_host_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = {"device": Pretended(monkeypatch), "callbacks": [There()]}
    late, _, _ = trained("loss of NaN", tmp_path / "late", 1, clip=0.05, **device)
    soon, _, _ = trained("loss of NaN", tmp_path / "soon", 1, clip=0.05)
    whole, _, _ = trained("loss of NaN", tmp_path / "whole", 1)
    ours, theirs, unclipped = map(parameters, (late, soon, whole))
    assert all(torch.allclose(ours[name], value, atol=1e-6) for name, value in theirs.items())
    assert not all(torch.allclose(unclipped[name], value, atol=1e-5) for name, value in theirs.items())


@pytest.mark.parametrize(("fused", "late"), [(True, True), (False, False)])
def test_only_a_fused_optimizer_on_a_gpu_is_judged_late(
    fused: bool, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool] = []

    class Asked(There):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            answers.append(refuses_itself(pl_module, trainer.optimizers[0]))

    task = small_task()
    task.optimizer = partial(torch.optim.AdamW, lr=1e-2, fused=fused, foreach=None if fused else True)
    with Pretended(monkeypatch):
        trainer = fit(task, 2, [Asked()], tmp_path)
    assert answers == [late, late]
    assert refuses_itself(task, trainer.optimizers[0]) is False  # its weights lie on a CPU in truth
