"""Completes the options of sampling with those of the checkpoint's run, and checks them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inkdrop.calibration import calibration_file, read_calibration
from inkdrop.checkpoints import Checkpoint, checked_part
from inkdrop.checkpoints.snapshots import find_snapshots
from inkdrop.configuration.building import CHECKPOINT_TARGETS, USER_TARGETS, build, locate
from inkdrop.configuration.guides import SHORT, acting, as_in_run, assigned, differing
from inkdrop.configuration.suggestions import options
from inkdrop.errors import ConfigurationError
from inkdrop.guidance import Guidance
from inkdrop.pipeline import Pipeline, guides
from inkdrop.randomness import MAX_SEED

_NOISE = 3.0  # least sigma / alpha at which sampling from pure noise may start
CALIBRATED = "inkdrop.samplers.Calibrated"
_OF_EVALUATION = (  # options that need evaluate=true
    *("likelihood", "metric", "derive", "per_item", "extractor", "held_out"),
    *("save_neighbours", "save_features"),
)
_EVALUATION = {  # options of sample.py that replace fields of the evaluation
    **{name: name for name in ("extractor", "held_out", "likelihood", "num_samples", "per_item", "repeats", "seed")},
    "metric": "metrics",
}


def completed(plain: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the configuration with the run's sampler, time grid, guidance and evaluation where it has none itself.

    Raises `ValueError` if the checkpoint names a target that is not allowed, or for options of an evaluation without
    `evaluate=true`.
    """
    if not plain["evaluate"]:
        for option in _OF_EVALUATION:
            takes_items = option == "held_out" and plain.get("origin")  # an origin may start from held-out items
            if plain.get(option) and not takes_items:
                raise ValueError(f"{option} has no effect without an evaluation: set evaluate=true")
    run = _part(plain, checkpoint, "pipeline")
    plain = {**plain, "view": plain.get("view") or run.get("view"), "origin": plain.get("origin")}
    evaluation = {**_part(plain, checkpoint, "evaluation"), **_chosen(plain)} if plain["evaluate"] else None
    if "sampler" not in run:
        return {**plain, **_without_sampler(plain, run), "evaluation": evaluation}
    sampler, grid = plain.get("sampler") or run["sampler"], plain["time_grid"]
    grid = {name: value for name, value in grid.items() if value is not None}
    if "_target_" not in grid:
        grid = {**run["sampler"]["time_grid"], **grid}
    grid = _with_inner_steps(grid, plain["allow_targets"])
    guidance = plain.get("guidance")
    if guidance is None or set(guidance) & set(SHORT):
        guidance = assigned(run["guidance"], guidance or {})
    if sampler["_target_"] == CALIBRATED and sampler.get("coefficients") is None:
        sampler, grid = _calibrated({**plain, "guidance": guidance}, checkpoint, sampler, grid.get("num_steps"))
    return {
        **plain,
        "time_grid": grid,
        "sampler": {**sampler, "time_grid": grid},
        "guidance": guidance,
        "constraint": plain.get("constraint") or run.get("constraint"),
        "evaluation": evaluation,
    }


def _with_inner_steps(grid: dict[str, Any], allowed: Sequence[str]) -> dict[str, Any]:
    """Returns a time grid whose `num_steps` is that of the grid which it changes, if it has no such option itself."""
    inner = grid.get("time_grid")
    if "num_steps" not in grid or not isinstance(inner, Mapping):
        return grid
    if "num_steps" in inspect.signature(locate(grid["_target_"], (*USER_TARGETS, *allowed))).parameters:
        return grid
    outer = {name: value for name, value in grid.items() if name != "num_steps"}
    return {**outer, "time_grid": {**inner, "num_steps": grid["num_steps"]}}


def built_guides(plain: Mapping[str, Any], chosen: Any, content: Mapping[str, Any]) -> dict[str, Guidance]:
    """Returns the guides of a completed configuration.

    `chosen` is its guidance before it was completed. The models of the run's own guides are those that its checkpoint
    holds; guides that are chosen for sampling read their files.
    """
    if as_in_run(chosen):
        return guides(content, plain["guidance"], plain["allow_targets"], plain["checkpoint"])
    made: dict[str, Guidance] = build(plain["guidance"], (*USER_TARGETS, *plain["allow_targets"]))
    return made


def _chosen(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of the evaluation that options of the command replace."""
    return {field: plain.get(option) for option, field in _EVALUATION.items() if plain.get(option) is not None}


def _without_sampler(plain: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a model without a sampler; raises `ValueError` if it draws nothing, or is given one."""
    model: Any = locate(run["_target_"], (*CHECKPOINT_TARGETS, *plain["allow_targets"]))
    what = f"checkpoint={plain['checkpoint']} is a {getattr(model, '__name__', run['_target_'])}"
    if not getattr(model, "draws", False):
        guides = getattr(model, "guides", None)
        advice = options({"guidance": guides, "guidance.checkpoint": plain["checkpoint"]}) if guides else ""
        raise ValueError(f"{what}, which draws no samples{advice and f' but guides another model: {advice}'}")
    given = [name for name in ("sampler", "constraint", "origin") if plain.get(name)]
    if given or "_target_" in plain["time_grid"]:
        raise ValueError(f"{what}, which has no sampler: remove {(given or ['time_grid'])[0]}")
    return {"sampler": None, "time_grid": None, "guidance": {}, "constraint": None}


def sampled_model(plain: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns weights and guidance of a completed configuration, equal for all options that select the same model."""
    check_average(plain)
    weights: Any = str(plain["weights"])
    if (length := plain["ema"]["length"]) is not None:
        last = find_snapshots(plain["checkpoint"], plain["ema"]["step"])[-1]
        weights = {"length": float(length), "step": last["step"]}
    elif weights == "ema":
        weights = next(iter(checkpoint.content.get("ema", {})), "raw")
    return {"weights": weights, "guidance": acting(plain["guidance"])}


def model_options(plain: dict[str, Any], checkpoint: Checkpoint) -> str:
    """Returns checkpoint, weights and guidance of a completed configuration as options of a shell command."""
    chosen = {"checkpoint": plain["checkpoint"]}
    if plain["weights"] != "ema":
        chosen["weights"] = plain["weights"]
    chosen |= {f"ema.{name}": value for name, value in plain["ema"].items() if value is not None}
    chosen |= differing(plain["guidance"], _part(plain, checkpoint, "pipeline")["guidance"])
    if plain["allow_targets"]:
        chosen["allow_targets"] = plain["allow_targets"]
    return options(chosen)


def find_calibration(plain: dict[str, Any], checkpoint: Checkpoint, num_steps: int) -> Path:
    """Returns the file of the calibration of a completed configuration's model for this number of steps."""
    return calibration_file(checkpoint, sampled_model(plain, checkpoint), num_steps)


def _calibrated(
    plain: dict[str, Any], checkpoint: Checkpoint, sampler: dict[str, Any], num_steps: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the sampler and the time grid that were fitted to this model."""
    if num_steps is None:
        raise ConfigurationError("sampler=calibrated requires time_grid.num_steps: set it as in the calibration")
    if [name for name, value in plain["time_grid"].items() if name != "num_steps" and value is not None]:
        raise ConfigurationError(
            "sampler=calibrated has its own times: set time_grid.num_steps and no other option of time_grid"
        )
    command = f"python -m inkdrop calibrate {model_options(plain, checkpoint)} time_grid.num_steps={num_steps}"
    found = read_calibration(find_calibration(plain, checkpoint, num_steps), checkpoint, command)
    grid = {"_target_": "inkdrop.time_grids.Explicit", "times": found["times"]}
    return {**sampler, "coefficients": found["coefficients"]}, grid


def check_seeds(plain: dict[str, Any]) -> None:
    """Raises `ValueError` if a seed of the samples would be larger than the largest one."""
    count = plain["num_samples"] * plain["repeats"]
    if plain["seed"] + count - 1 > MAX_SEED:
        sets = f" in {plain['repeats']} sets" * (plain["repeats"] > 1)
        shown = f"seed={plain['seed']} and num_samples={plain['num_samples']}{sets}"
        raise ValueError(f"{shown} exceed the largest seed, {MAX_SEED}: lower one of them")


def check_files(folder: Path, names: Sequence[str]) -> None:
    """Raises `ValueError` if folders below this one contain files that those with these names would not replace."""
    paths = {folder / name for name in names}
    there = {file for place in {path.parent for path in paths} - {folder} for file in place.glob("*")}
    if others := sorted(there - paths):
        raise ConfigurationError(f"{others[0]} is not one of these samples: choose a new folder")


def check_grid(pipeline: Pipeline) -> None:
    """Raises `ValueError` if the sampler and its times do not fit the schedule of the run."""
    schedule = pipeline.denoiser.schedule
    first, whole = pipeline.sampler.points(schedule)[0], schedule.points([1.0])[0]
    if first.half > max(whole.half, -math.log(_NOISE)) + 1e-9:
        raise ConfigurationError(
            f"the time grid starts at t = {first.t:.3g}, where sigma / alpha is only {math.exp(-first.half):.2g}, but "
            "sampling starts from pure noise: start the grid nearer to t = 1"
        )


def check_graphs(plain: dict[str, Any]) -> None:
    """Raises `ValueError` for CUDA graphs without compilation or without a CUDA device."""
    if plain["cuda_graphs"] and not (plain["compile"] and torch.cuda.is_available()):
        raise ConfigurationError("cuda_graphs=true requires compile=true and a CUDA device")


def check_average(plain: dict[str, Any]) -> None:
    """Raises `ValueError` if options of `ema` conflict with others, or if there is no snapshot at this step."""
    length, step = plain["ema"]["length"], plain["ema"]["step"]
    if length is None:
        if step is not None:
            raise ConfigurationError(f"ema.step={step} has no effect without ema.length: set ema.length too")
        return
    if plain["weights"] != "ema":
        raise ConfigurationError(f"ema.length={length} selects its own weights: remove weights={plain['weights']}")
    find_snapshots(plain["checkpoint"], step)


def _part(plain: dict[str, Any], checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Returns a part of the configuration in the checkpoint, whose targets are checked."""
    return checked_part(checkpoint.path, checkpoint.content, name, plain["allow_targets"])
