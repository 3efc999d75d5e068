"""The work of `python -m inkdrop calibrate`: from a checkpoint to the file that `sampler=calibrated` uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import Progress
from torch import Tensor

from inkdrop.calibration import calibrate, read_calibration, rms, solution, write_calibration
from inkdrop.checkpoints import Checkpoint, open_checkpoint, reconstructed
from inkdrop.commands.sample.options import (
    built_guides,
    check_average,
    completed,
    find_calibration,
    model_options,
    sampled_model,
)
from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.denoiser import Condition, Denoiser
from inkdrop.errors import CheckpointError
from inkdrop.pipeline import Pipeline, restored
from inkdrop.samplers import Calibrated, Sampler
from inkdrop.time_grids import Explicit

_WANTED = "only a solver without noise on a grid with num_steps can be calibrated: use sampler=abm time_grid=centred"


class Calibrating(NamedTuple):
    """The result of a calibration.

    - `file`: file of the calibration.
    - `content`: the new calibration, which is written unless the earlier one in the file is better.
    - `earlier`: difference of the earlier one to the fine solution on other seeds, or None.
    - `kept`: whether the earlier one was kept.
    - `options`: options that select the model in a command.
    """

    file: Path
    content: dict[str, Any]
    earlier: float | None
    kept: bool
    options: str


def calibrate_checkpoint(plain: dict[str, Any]) -> Calibrating:
    """Fits the calibration of `conf/calibrate.yaml`; raises `ValueError` if the fit does not improve the solver."""
    begin = time.monotonic()
    plain, checkpoint, pipeline, solver = _prepared(plain)
    num_steps, rounds, refinement = plain["time_grid"]["num_steps"], plain["num_rounds"], plain["refinement"]
    count = plain["num_trajectories"] or max(128, -(-16384 // torch.Size(pipeline.shape).numel()))
    first, others = (range(plain["seed"] + place * count, plain["seed"] + (place + 1) * count) for place in range(2))
    with Progress(transient=True) as bar:
        shown = bar.add_task("calibrating", total=rounds)
        fitted = calibrate(
            *_start(pipeline, first), solver, num_steps, refinement, plain["memory"], rounds,
            lambda: bar.advance(shown),
        )  # fmt: skip
    few = Calibrated(Explicit(fitted.times), fitted.coefficients)
    file = find_calibration(plain, checkpoint, num_steps)
    samplers = [solver(num_steps), few, *_earlier(file, checkpoint)]
    before, after, *earlier = _differences(_start(pipeline, others), solver(num_steps * refinement), samplers)
    if not after < before:
        raise ValueError(
            f"nothing was written, because on other samples the fit differs by {after:.4f} from the fine solution, and "
            f"the solver itself by {before:.4f}: raise num_trajectories={count} or num_rounds={rounds}"
        )
    content = {
        **sampled_model(plain, checkpoint),
        "num_steps": num_steps,
        "times": fitted.times,
        "coefficients": fitted.coefficients,
        "difference": {"before": fitted.before, "after": fitted.after},
        "difference_on_other_seeds": {"before": before, "after": after},
        "num_trajectories": count,
        "seconds": round(time.monotonic() - begin, 1),
    }
    kept = any(each < after for each in earlier)
    if not kept:
        write_calibration(file, checkpoint, content)
    return Calibrating(file, content, earlier[0] if earlier else None, kept, model_options(plain, checkpoint))


def _prepared(plain: dict[str, Any]) -> tuple[dict[str, Any], Checkpoint, Pipeline, Callable[[int], Sampler]]:
    """Returns the completed configuration, the checkpoint, the model, and the solver for a number of steps.

    Raises `ValueError` for a solver that cannot be calibrated.
    """
    check_settings(plain)
    checkpoint = open_checkpoint(plain["checkpoint"])
    chosen = plain["guidance"]
    plain = {**plain, **completed({**plain, "evaluate": False}, checkpoint)}
    check_average(plain)
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    check(plain, allowed)
    num_steps = plain["time_grid"].get("num_steps")
    if num_steps is None or not build(plain["sampler"], allowed).deterministic:
        raise ValueError(_WANTED)
    own, content = plain["ema"]["length"], checkpoint.content
    content = content if own is None else reconstructed(checkpoint.path, **plain["ema"])
    pipeline = restored(content, str(plain["weights"]), plain["allow_targets"], checkpoint.path)
    pipeline.to(_device(plain["device"]))
    pipeline.guidance = built_guides(plain, chosen, content)

    def solver(count: int) -> Sampler:
        sampler: Sampler = build({**plain["sampler"], "time_grid": {**plain["time_grid"], "num_steps": count}}, allowed)
        return sampler

    times = solver(num_steps).time_grid(pipeline.denoiser.schedule)
    if len(times) != num_steps + 1 or any(a <= b for a, b in pairwise(times)):
        raise ValueError(_WANTED)
    return plain, checkpoint, pipeline, solver


def _device(name: str) -> str:
    """Returns the device of this name; raises `ValueError` if it is not available."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):  # torch may be built without it
        raise ValueError(f"device={name} is not available on this machine: use device=auto") from None
    return name


def _start(pipeline: Pipeline, seeds: Sequence[int]) -> tuple[Denoiser, Tensor, Condition]:
    """Returns the guided denoiser, eps and condition of samples with these seeds."""
    device = next(pipeline.parameters()).device
    batch = {name: value.to(device) for name, value in pipeline.request(seeds).items()}
    denoiser, cond = pipeline.guided(batch)
    return denoiser, pipeline.start(seeds).to(device), cond


def _earlier(file: Path, checkpoint: Checkpoint) -> list[Sampler]:
    """Returns the sampler in a file, if it is for this checkpoint."""
    try:
        content = read_calibration(file, checkpoint, "")
        return [Calibrated(Explicit(content["times"]), content["coefficients"])]
    except CheckpointError:  # missing, damaged or of another checkpoint
        return []


def _differences(start: tuple[Denoiser, Tensor, Condition], fine: Sampler, samplers: Sequence[Sampler]) -> list[float]:
    """Returns the difference of each sampler to the fine solution."""
    denoiser, eps, cond = start
    x_0 = solution(denoiser, eps, cond, fine)
    return [rms(solution(denoiser, eps, cond, each) - x_0) for each in samplers]
