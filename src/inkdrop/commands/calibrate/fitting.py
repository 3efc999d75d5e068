"""`python -m inkdrop calibrate`: from a checkpoint to the file that `sampler=calibrated` takes."""

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
from inkdrop.commands.sample.options import check_average, completed, find_calibration, model_options, sampled_model
from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.denoiser import Condition, Denoiser
from inkdrop.errors import CheckpointError
from inkdrop.pipeline import Pipeline, restored
from inkdrop.samplers import Calibrated, Sampler
from inkdrop.time_grids import Explicit

_WANTED = "a solver without noise on a grid with num_steps is calibrated: sampler=abm time_grid=centred"


class Calibrating(NamedTuple):
    """A file, and the content of a new calibration, which is in it unless the earlier one there was nearer.

    `earlier` is how far that one is from the fine solution on the other seeds, `options` name the model in a command.
    """

    file: Path
    content: dict[str, Any]
    earlier: float | None
    kept: bool
    options: str


def calibrate_checkpoint(plain: dict[str, Any]) -> Calibrating:
    """Fits what `conf/calibrate.yaml` describes; `ValueError` where the fit comes no nearer than the solver itself."""
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
            f"nothing is written: on other samples the fit is {after:.4f} from the fine solution, and the solver "
            f"itself {before:.4f}: raise num_trajectories={count} or num_rounds={rounds}"
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
    """The completed configuration, the checkpoint, the model, and the solver for a number of steps.

    `ValueError` if they cannot be.
    """
    check_settings(plain)
    checkpoint = open_checkpoint(plain["checkpoint"])
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
    pipeline.guidance = build(plain["guidance"], allowed)

    def solver(count: int) -> Sampler:
        sampler: Sampler = build({**plain["sampler"], "time_grid": {**plain["time_grid"], "num_steps": count}}, allowed)
        return sampler

    times = solver(num_steps).time_grid(pipeline.denoiser.schedule)
    if len(times) != num_steps + 1 or any(a <= b for a, b in pairwise(times)):
        raise ValueError(_WANTED)
    return plain, checkpoint, pipeline, solver


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


def _earlier(file: Path, checkpoint: Checkpoint) -> list[Sampler]:
    """The steps in a file, if they are of this checkpoint."""
    try:
        found = read_calibration(file, checkpoint, "")
        return [Calibrated(Explicit(found["times"]), found["coefficients"])]
    except CheckpointError:  # absent, damaged or of another checkpoint
        return []


def _differences(start: tuple[Denoiser, Tensor, Condition], fine: Sampler, samplers: Sequence[Sampler]) -> list[float]:
    """How far each of the samplers is from the fine solution."""
    denoiser, eps, cond = start
    x_0 = solution(denoiser, eps, cond, fine)
    return [rms(solution(denoiser, eps, cond, each) - x_0) for each in samplers]
