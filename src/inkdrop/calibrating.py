"""`python -m inkdrop calibrate`: from a checkpoint to the file that `sampler=calibrated` takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from inkdrop.calibration import Calibration, calibrate, calibration_file, rms, way, write_calibration
from inkdrop.checkpoints import find_checkpoint
from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.denoiser import Condition, Denoiser
from inkdrop.pipeline import Pipeline, load
from inkdrop.samplers import Calibrated, Sampler
from inkdrop.sampling_options import completed, sampled_model
from inkdrop.time_grids import Explicit


def calibrate_checkpoint(plain: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Fits what `conf/calibrate.yaml` describes; returns the file and what is in it."""
    begin = time.monotonic()
    check_settings(plain)
    plain = {**plain, **completed({**plain, "evaluate": False})}
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    check(plain, allowed)
    num_steps = plain["time_grid"].get("num_steps")
    if num_steps is None or not build(plain["sampler"], allowed).deterministic:
        raise ValueError("a solver without noise on a grid with num_steps is calibrated: sampler=abm time_grid=centred")
    file = find_checkpoint(plain["checkpoint"])
    pipeline = load(plain["checkpoint"], plain["weights"], plain["allow_targets"], **plain["ema"]).to(
        _device(plain["device"])
    )
    pipeline.guidance = build(plain["guidance"], allowed)

    def solver(count: int) -> Sampler:
        sampler: Sampler = build({**plain["sampler"], "time_grid": {**plain["time_grid"], "num_steps": count}}, allowed)
        return sampler

    count = plain["num_trajectories"] or max(128, -(-16384 // torch.Size(pipeline.shape).numel()))
    seeds = [range(plain["seed"] + place * count, plain["seed"] + (place + 1) * count) for place in range(2)]
    with Progress(transient=True) as bar:
        task = bar.add_task("calibrating", total=plain["num_rounds"])
        fitted = calibrate(
            *_start(pipeline, seeds[0]), solver, num_steps, plain["refinement"], plain["memory"], plain["num_rounds"],
            lambda: bar.advance(task),
        )  # fmt: skip
    held_out = _difference(_start(pipeline, seeds[1]), solver, fitted, num_steps * plain["refinement"])
    content = {
        **sampled_model(plain),
        "num_steps": num_steps,
        "times": fitted.times,
        "coefficients": fitted.coefficients,
        "difference": {"before": fitted.before, "after": fitted.after},
        "difference_on_other_seeds": dict(zip(("before", "after"), held_out, strict=True)),
        "num_trajectories": count,
        "seconds": round(time.monotonic() - begin, 1),
    }
    output = calibration_file(file, sampled_model(plain), num_steps)
    write_calibration(output, file, content)
    return output, content


def _device(name: str) -> str:
    """The device of this name; `ValueError` if there is none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # of torch built without it
        raise ValueError(f"device={name} is not here: leave it at auto") from None
    return name


def _start(pipeline: Pipeline, seeds: Sequence[int]) -> tuple[Denoiser, Tensor, Condition]:
    """The guided denoiser, eps and condition of samples with these seeds."""
    device = next(pipeline.parameters()).device
    batch = {name: value.to(device) for name, value in pipeline.request(seeds).items()}
    denoiser, cond = pipeline.guided(batch)
    return denoiser, pipeline.start(seeds).to(device), cond


def _difference(
    start: tuple[Denoiser, Tensor, Condition], solver: Callable[[int], Sampler], fitted: Calibration, fine_steps: int
) -> tuple[float, float]:
    """How far the plain and the calibrated solver are from the fine solution."""
    denoiser, eps, cond = start
    fine = way(denoiser, eps, cond, solver(fine_steps))
    few = Calibrated(Explicit(fitted.times), fitted.coefficients)
    before, after = (rms(way(denoiser, eps, cond, each) - fine) for each in (solver(len(fitted.times)), few))
    return before, after
