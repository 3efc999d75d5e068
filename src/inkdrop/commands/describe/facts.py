"""The facts of `python -m inkdrop describe`: what a configuration of train.py means and costs."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from inkdrop.callbacks import EMA
from inkdrop.commands.command import Asked, for_the_user
from inkdrop.commands.describe import costs
from inkdrop.commands.describe.passes import training_pass
from inkdrop.commands.train.prepare import PreparedTraining, prepare
from inkdrop.configuration import USER_TARGETS, build
from inkdrop.configuration.compose import composed_in, primary_of
from inkdrop.errors import ConfigurationError, DataError
from inkdrop.files.writing import replacing
from inkdrop.pictures.plots import process, schedules
from inkdrop.pipeline import Pipeline
from inkdrop.tasks.base import Task
from inkdrop.weightings import weights_at

_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
_QUANTILES = (0.05, 0.25, 0.75, 0.95)


def describe(
    overrides: list[str],
    seconds: float = 3.0,
    plot: Path | None = None,
    folder: str | None = None,
    name: str = "train",
) -> dict[str, Any]:
    """Returns facts about the run of train.py with these overrides; missing data and weights are only noted.

    - `overrides`: the options.
    - `seconds`: duration of trial steps on noise; 0 runs none.
    - `plot`: a PNG file to write.
    - `folder`: a folder of the user's own configurations.
    - `name`: name of the primary configuration.

    Raises `InkdropError` for a configuration that cannot work.
    """
    config = composed_in(folder, name, overrides)
    missing: list[DataError] = []
    with trainers_are_silent():
        with for_the_user():
            asked = Asked(config, Path(config.output_dir), name, overrides, primary_of(config.hydra))
            prepared = prepare(asked, missing.append)
        return {**facts(prepared, seconds, plot), "missing": "; ".join(map(str, missing))}


@contextlib.contextmanager
def trainers_are_silent() -> Iterator[None]:
    """Silences within the block what a trainer prints about its devices and its checkpoint."""
    loggers = [logging.getLogger(f"lightning.pytorch{name}") for name in ("", ".utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def facts(prepared: PreparedTraining, seconds: float, plot: Path | None = None) -> dict[str, Any]:
    """Returns the facts about a run as plain data, with times in seconds and sizes in bytes."""
    plain, task = prepared.plain, prepared.task
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    used = {**dict(_used(plain)), "loss": plain["task"]["loss"]}
    law = build(used.get("time_sampler"), allowed)
    weighting = build(used.get("weighting"), allowed)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        with replacing(plot) as file:
            _figure(task, plain["name"], law, weighting).savefig(file)
    training = numbers(plain, prepared.world_size)
    found = {
        "name": plain["name"],
        "estimate": task.estimate,
        "shape": list(task.pipeline.shape),
        "parts": {
            name: {"is": _named(node, plain), "does": _first_sentence(node, allowed)} for name, node in used.items()
        },
        "coefficients": _coefficients(task, weighting),
        "trained_log_snr": law and task.schedule and _quantiles(task.schedule, law),
        "parameters": costs.parameters(task),
        "training": training,
    }
    found |= _measured(task, plain, averages(prepared), training["samples_per_device"], seconds)
    return found


def averages(prepared: PreparedTraining) -> int:
    """Returns the number of weight averages of a run."""
    callbacks: list[Any] = prepared.trainer.callbacks  # type: ignore[attr-defined]
    return sum(len(each.names) for each in callbacks if isinstance(each, EMA))


def _measured(
    task: Task,
    plain: Mapping[str, Any],
    num_averages: int,
    batch_size: int,
    seconds: float,
) -> dict[str, Any]:
    """Returns the facts that need calls of the network.

    - `task`: the task.
    - `plain`: the resolved configuration.
    - `num_averages`: number of weight averages.
    - `batch_size`: samples on one device.
    - `seconds`: duration of trial steps, or 0.
    """
    pipeline = task.pipeline
    given, output, operations = training_pass(task)
    found: dict[str, Any] = {"conditions": {name: list(value.shape[1:]) for name, value in given[1].items()}}
    if "sampler" in plain["task"]["pipeline"]:
        found["sampling"] = _sampling(pipeline, output)
    found["operations"] = operations
    found["memory"] = costs.memory(task, num_averages, batch_size, plain["trainer"].get("precision", "32-true"))
    if seconds:
        found["speed"] = costs.speed(task, plain["trainer"], batch_size, seconds, plain["compile"])
    return found


def numbers(plain: Mapping[str, Any], devices: int) -> dict[str, Any]:
    """Returns the numbers of steps, samples and devices."""
    trainer, batch_size = plain["trainer"], plain["data"]["batch_size"]
    return {
        "steps": trainer.get("max_steps", 0),
        "samples_per_step": batch_size * trainer.get("accumulate_grad_batches", 1),
        "samples_per_device": batch_size // devices,
        "devices": devices,
        "precision": trainer.get("precision", "32-true"),
        "options": _step(plain),
    }


def _step(plain: Mapping[str, Any]) -> dict[str, str]:
    """Returns how a step is computed: the options of speed, which change nothing but the rounding."""
    optimizer, half = plain["optimizer"], str(plain["trainer"].get("precision", "")).startswith("16")
    fused = bool(optimizer.get("fused"))
    update = "all weights in one pass" if fused else "all weights in few passes" if optimizer.get("foreach") else "each"
    late = "on a GPU by the device, and read one step late" if fused and not half else "before each step"
    return {
        "layout": "channels_last" if plain["channels_last"] else "contiguous",
        "update": update if update != "each" else "each weight by itself, or as torch decides",
        "gradient": f"checked {late}",
        "compile": "compiled" if plain["compile"] else "eager",
    }


def _used(plain: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the parts by their groups, without those that the task does not use."""
    for name, node in plain.items():
        if name in ("task", "pipeline", "optimizer", "scheduler") or not isinstance(node, Mapping):
            continue
        for key, part in (
            {name: node}.items() if "_target_" in node else {f"{name}.{k}": v for k, v in node.items()}.items()
        ):
            if isinstance(part, Mapping) and "_target_" in part and _occurs(part, plain["task"]):
                yield key, part


def _occurs(part: Any, node: Any) -> bool:
    below = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return part == node or any(_occurs(part, each) for each in below)


def _named(node: Any, plain: Mapping[str, Any]) -> str:
    """Returns a part as a call with its options, without those that are parts themselves."""
    if not isinstance(node, Mapping):
        return f"{node:g}" if isinstance(node, float) else str(node)
    own = {name: value for name, value in node.items() if name not in ("_target_", "_partial_") and value is not None}
    shown = [
        f"{name}={_named(value, plain)}"
        for name, value in own.items()
        if not (isinstance(value, Mapping) and value in plain.values())
    ]
    called = node.get("_target_", "").rpartition(".")[2]
    return f"{called}({', '.join(shown)})" if shown or not called else called


def _first_sentence(node: Mapping[str, Any], allowed: tuple[str, ...]) -> str:
    target = build({"_target_": node["_target_"], "_partial_": True}, allowed).func
    summary = (inspect.getdoc(target) or "").split("\n\n")[0]  # a list of arguments may follow
    sentence = re.split(r"(?<!\.)\.\s+(?=[A-Z`])", " ".join(summary.split()))[0].rstrip(".")
    part = sentence.removeprefix("Returns ")  # a function is the part that it returns
    return part[:1].upper() + part[1:]


def _weight(task: Task, weighting: Any, t: Tensor) -> Tensor:
    """Returns the factor of the weighting at times (B)."""
    assert task.schedule is not None
    return weights_at(weighting, task.schedule, task.pipeline.denoiser.prediction, t)


def _coefficients(task: Task, weighting: Any) -> list[dict[str, float]]:
    """Returns alpha, sigma and log-SNR at some times, and for t > 0 the model's coefficients and the weight."""
    schedule: Any = task.schedule
    if schedule is None:
        return []
    rows = []
    for point in schedule.points(sorted({0.0, *(schedule.snap(max(t, schedule.t_min)) for t in _TIMES)})):
        row = {"t": point.t, "alpha": point.alpha, "sigma": point.sigma, "log-SNR": 2 * point.half}
        if point.t > 0:
            row |= task.pipeline.coefficients(point)
            if weighting is not None:
                row["weight"] = float(_weight(task, weighting, torch.tensor([point.t]).double()))
        rows.append(row)
    return rows


def _figure(task: Task, name: str, law: Any, weighting: Any) -> Figure:
    if task.schedule is None:
        raise ConfigurationError(f"{type(task).__name__} has no noise levels to draw: leave --plot out")
    if law is None or weighting is None:  # a loss without them
        return schedules({name: task.schedule})
    return process(task.schedule, name, _drawn(task.schedule, law), lambda t: _weight(task, weighting, t))


def _drawn(schedule: Any, law: Any) -> Tensor:
    """Returns log-SNRs (10000) at even quantiles of the training distribution."""
    return schedule.log_snr(law.quantile(schedule, (torch.arange(10_000).double() + 0.5) / 10_000))


def _quantiles(schedule: Any, law: Any) -> list[float]:
    return _drawn(schedule, law).quantile(torch.tensor(_QUANTILES).double()).tolist()


class _Recorded(nn.Module):
    """A network that always returns the same output, and counts its calls and their samples."""

    def __init__(self, output: Any):
        super().__init__()
        self.F, self.extras = output if isinstance(output, tuple) else (output, {})
        self.num_calls = self.num_samples = 0

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.num_calls, self.num_samples = self.num_calls + 1, self.num_samples + len(x)
        F = self.F if self.F.shape[1:] == x.shape[1:] else torch.zeros_like(x)  # of one step of a series
        return F.expand_as(x), {name: value.expand(len(x), *value.shape[1:]) for name, value in self.extras.items()}


def _sampling(pipeline: Pipeline, output: Any) -> dict[str, Any]:
    """Returns the times of sampling, and the network evaluations of one sample for a network of constant output."""
    network, schedule, constraint = pipeline.network, pipeline.denoiser.schedule, pipeline.constraint
    pipeline.denoiser.network = recorded = _Recorded(output)
    pipeline.constraint = None  # which needs known data
    try:
        pipeline(pipeline.example(1), [0])
    finally:
        pipeline.denoiser.network, pipeline.constraint = network, constraint
    points: Any = pipeline.sampler.points(schedule)
    return {
        "times": [point.t for point in points],
        "noise_levels": [math.exp(-point.half) for point in points if point.sigma > 0],
        "calls": recorded.num_calls,
        "passes": recorded.num_samples * getattr(constraint, "copies", 1),
    }
