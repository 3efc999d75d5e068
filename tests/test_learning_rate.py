"""Learning rates over a training: ours by their formulas, and torch's own step by step as a bare loop has them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from small_tasks import fit, records, small_task
from torch.optim import lr_scheduler

from inkdrop.callbacks import Every
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.configuration import build, check
from inkdrop.tasks import DiffusionTask
from inkdrop.tasks.learning_rate import foresee, inverse_square_root, move, warmup_cosine

STEPS = 12
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 0.01, "betas": [0.8, 0.99]},
    "SGD": {"lr": 0.01, "momentum": 0.7},
}
WARM = {"_target_": "torch.optim.lr_scheduler.LinearLR", "_partial_": True, "start_factor": 0.1, "total_iters": 4}
COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_partial_": True, "T_max": 8}
DECAY = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "_partial_": True, "gamma": 0.9}
SCHEDULERS: dict[str, list[dict[str, Any]]] = {
    "ChainedScheduler": [{"schedulers": [WARM, DECAY]}],
    "ConstantLR": [{"factor": 0.5, "total_iters": 3}],
    "CosineAnnealingLR": [{"T_max": 12, "eta_min": 1e-4}],
    "CosineAnnealingWarmRestarts": [{"T_0": 3, "T_mult": 2}],
    "CyclicLR": [
        {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 3},
        {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 2, "mode": "exp_range", "gamma": 0.9},
        {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 3, "cycle_momentum": False},
    ],
    "ExponentialLR": [{"gamma": 0.8}],
    "LinearLR": [{"start_factor": 0.1, "total_iters": 5}],
    "MultiStepLR": [{"milestones": [2, 7], "gamma": 0.1}],
    "OneCycleLR": [
        {"max_lr": 0.1, "total_steps": STEPS},
        {"max_lr": 0.1, "total_steps": 20, "three_phase": True, "anneal_strategy": "linear"},
        {"max_lr": 0.1, "epochs": 3, "steps_per_epoch": 4, "cycle_momentum": False},
    ],
    "PolynomialLR": [{"total_iters": 10, "power": 2.0}],
    "SequentialLR": [
        {"schedulers": [WARM, COSINE], "milestones": [4]},
        {"schedulers": [WARM, COSINE, DECAY], "milestones": [3, 9]},
    ],
    "StepLR": [{"step_size": 4, "gamma": 0.1}],
}  # fmt: skip
# Made of functions, which no YAML holds; following a metric; the base class.
OTHERS = {"LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau", "LRScheduler"}
CYCLIC = ("CyclicLR", "OneCycleLR")  # which change the momentum too, named differently by each optimizer
CASES = [
    (name, number, kind)
    for name, each in SCHEDULERS.items()
    for number in range(len(each))
    for kind in (OPTIMIZERS if name in CYCLIC else ["SGD"])
]


def partial_of(module: str, name: str, options: dict[str, Any]) -> Any:
    """As a run makes it from its configuration."""
    node = {"_target_": f"torch.optim.{module}{name}", "_partial_": True, **copy.deepcopy(options)}
    check(node)
    return build(node)


def state(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """The learning rate and the momentum that the next step is made with."""
    (group,) = optimizer.param_groups
    return group["lr"], group["betas"][0] if "betas" in group else group["momentum"]


class Seen(Callback):
    def __init__(self) -> None:
        self.states: list[tuple[float, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.states.append(state(optimizer))


def bare(name: str, options: dict[str, Any], kind: str) -> list[tuple[float, float]]:
    """What a loop of nothing but torch does."""
    optimizer = getattr(torch.optim, kind)([torch.nn.Parameter(torch.zeros(2))], **OPTIMIZERS[kind])
    scheduler, states = bare_scheduler(name, options, optimizer), []
    for _ in range(STEPS):
        states.append(state(optimizer))
        optimizer.step()
        scheduler.step()
    return states


def bare_scheduler(name: str, options: dict[str, Any], optimizer: torch.optim.Optimizer) -> Any:
    options = {key: value for key, value in options.items() if not key.startswith("_")}
    if "schedulers" in options:
        parts = [bare_scheduler(p["_target_"].rpartition(".")[2], p, optimizer) for p in options["schedulers"]]
        options["schedulers"] = parts
    return getattr(lr_scheduler, name)(optimizer=optimizer, **options)


def task_with(name: str, options: dict[str, Any], kind: str) -> DiffusionTask:
    task = small_task()
    task.optimizer = partial_of("", kind, OPTIMIZERS[kind])
    task.scheduler = partial_of("lr_scheduler.", name, options)
    return task


def test_each_scheduler_of_torch_is_among_the_cases() -> None:
    known = {
        n for n, each in inspect.getmembers(lr_scheduler, inspect.isclass) if each.__module__ == lr_scheduler.__name__
    }
    assert {name for name in known if not name.startswith("_")} == SCHEDULERS.keys() | OTHERS


@pytest.mark.many
@pytest.mark.parametrize(("name", "number", "kind"), CASES)
def test_schedulers_of_torch_follow_their_own_curve(name: str, number: int, kind: str, tmp_path: Path) -> None:
    options, seen = SCHEDULERS[name][number], Seen()
    expected = bare(name, options, kind)
    assert len({rate for rate, _ in expected}) > 1
    steps = (1, 7) if number == 0 and kind == "SGD" else (7,)
    saved = Checkpoint(Every(steps=steps[0]), str(tmp_path / "c"), keep=100)
    fit(task_with(name, options, kind), STEPS, [seen, saved], tmp_path)
    assert seen.states == expected
    for step in steps:
        again = Seen()
        file = tmp_path / "c" / f"step-{step:08d}.ckpt"
        fit(task_with(name, options, kind), STEPS, [again, Checkpoint(Every(steps=99), str(tmp_path / "d"))],
            tmp_path, checkpoint=file)  # fmt: skip
        assert again.states == expected[step:], step


def configured(task: DiffusionTask, name: str, options: dict[str, Any], kind: str) -> DiffusionTask:
    optimizer = {"_target_": f"torch.optim.{kind}", **OPTIMIZERS[kind]}
    task.config = {"task": {"optimizer": optimizer, "scheduler": {"_target_": name, **options}}}
    return task


# name: scheduler, its options and the optimizer before, and afterwards
CHANGES: dict[str, tuple[tuple[str, dict[str, Any], str], tuple[str, dict[str, Any], str]]] = {
    "none": (("StepLR", {"step_size": 2}, "SGD"), ("StepLR", {"step_size": 2}, "SGD")),
    "option": (("StepLR", {"step_size": 2}, "SGD"), ("StepLR", {"step_size": 4}, "SGD")),
    "cycle": tuple(("OneCycleLR", {"max_lr": rate, "total_steps": STEPS}, "AdamW") for rate in (0.1, 0.2)),  # type: ignore[dict-item]
    "momentum": (("ExponentialLR", {"gamma": 0.5}, "SGD"), ("CyclicLR", SCHEDULERS["CyclicLR"][0], "SGD")),
    "parts": (("SequentialLR", SCHEDULERS["SequentialLR"][0], "SGD"), ("StepLR", {"step_size": 2}, "SGD")),
    "chained": (("ChainedScheduler", SCHEDULERS["ChainedScheduler"][0], "SGD"), ("StepLR", {"step_size": 2}, "SGD")),
    "optimizer": (("StepLR", {"step_size": 2}, "SGD"), ("StepLR", {"step_size": 2}, "AdamW")),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_in_force_as_if_it_had_always_been(before: Any, after: Any, tmp_path: Path) -> None:
    saved = Checkpoint(Every(steps=5), str(tmp_path / "c"))
    fit(configured(task_with(*before), *before), 5, [saved], tmp_path)
    seen = Seen()
    file = tmp_path / "c" / "step-00000005.ckpt"
    last = Checkpoint(Every(steps=99), str(tmp_path / "d"))
    fit(configured(task_with(*after), *after), STEPS, [seen, last], tmp_path, checkpoint=file)
    assert seen.states == bare(*after)[5:]


# name: (scheduler, options, the message)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "metric": ("ReduceLROnPlateau", {}, "ReduceLROnPlateau follows a metric.*choose another scheduler, or callbacks"),
    "short": ("OneCycleLR", {"max_lr": 1.0, "total_steps": 11}, "scheduler: it ends at step 12: .* 11"),
    "zero": ("StepLR", {"step_size": 0}, "scheduler: it ends at step 1: "),
    "negative": ("ExponentialLR", {"gamma": -0.5}, "the learning rate of step 2 is -0.005, but must be finite"),
    "grows": ("ExponentialLR", {"gamma": 1e200}, "the learning rate of step 3 is inf, but must be finite"),
    "no number": ("ExponentialLR", {"gamma": float("nan")}, "the learning rate of step 2 is nan, but must be finite"),
    "restart": ("StepLR", {"step_size": 1, "last_epoch": 4}, "initial_lr"),
    "unmade part": ("SequentialLR", {"schedulers": [3, DECAY], "milestones": [4]}, "not callable"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_schedulers_that_cannot_be_followed_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    task = small_task()
    with pytest.raises(ValueError, match=message):
        DiffusionTask(task.pipeline, task.loss, task.optimizer, partial_of("lr_scheduler.", name, options)).foresee(
            STEPS
        )


CURVES: dict[str, Callable[[int], float]] = {
    "negative": lambda step: 7.5 - step,
    "no number": lambda step: float("nan") if step > 3 else 1.0,
    "ends": lambda step: [1.0, 0.5, 0.25][step],
    "holds": lambda step: 0.5**step,
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_a_function_of_the_step_is_foreseen_as_if_it_were_stepped(curve: Callable[[int], float]) -> None:
    def said(look: Callable[..., None]) -> str:
        try:
            look(lr_scheduler.LambdaLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25), curve), STEPS)
        except ValueError as error:
            return str(error)
        return ""

    assert said(foresee) == said(move)
    assert bool(said(foresee)) == (curve is not CURVES["holds"])


def test_a_long_run_is_foreseen_to_its_last_step_by_few_calls() -> None:
    called: list[int] = []

    def curve(step: int) -> float:
        called.append(step)
        return -1.0 if step == 10**8 - 1 else 1.0

    scheduler = lr_scheduler.LambdaLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.25), curve)
    with pytest.raises(ValueError, match=r"the learning rate of step 100000000 is -0\.25"):
        foresee(scheduler, 10**8)
    assert len(called) < 30_000
    foresee(scheduler, -1)  # a run without an end


def test_the_learning_rate_is_logged(tmp_path: Path) -> None:
    fit(task_with("StepLR", {"step_size": 3}, "SGD"), 8, [], tmp_path)
    assert [rate for _, rate in records(tmp_path, "train/learning_rate")] == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4])


def test_warmup_and_cosine() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    schedule = warmup_cosine(optimizer, 4, 12, final_factor=0.1)
    rates = []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[8] == pytest.approx(2 * 0.55)
    assert rates[12] == pytest.approx(0.2)


def test_inverse_square_root() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = inverse_square_root(optimizer, 4, 9)
    rates = []
    for _ in range(37):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[9::9] == pytest.approx([2, 2 * 0.5**0.5, 2 * (1 / 3) ** 0.5, 1])
