"""How a checkpoint is sampled: as in its run, unless the options say otherwise, and whether that can work."""

from __future__ import annotations

from typing import Any

from inkdrop.checkpoints import read_checkpoint
from inkdrop.configuration import CHECKPOINT_TARGETS, build, check
from inkdrop.randomness import MAX_SEED


def completed(plain: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the sampler and the time grid of the run wherever it names none of its own.

    `ValueError` if the checkpoint cannot be read.
    """
    run = read_checkpoint(plain["checkpoint"])["config"]["pipeline"]["sampler"]
    chosen = plain["time_grid"]
    if "_target_" not in chosen:
        chosen = {**run["time_grid"], **{name: value for name, value in chosen.items() if value is not None}}
    return {**plain, "time_grid": chosen, "sampler": {**(plain.get("sampler") or run), "time_grid": chosen}}


def check_seeds(plain: dict[str, Any]) -> None:
    """`ValueError` if the seeds of the samples run over the largest."""
    if plain["seed"] + plain["num_samples"] - 1 > MAX_SEED:
        raise ValueError(
            f"seed={plain['seed']} and num_samples={plain['num_samples']} go beyond the largest seed, {MAX_SEED}"
        )


def check_grid(plain: dict[str, Any], allowed: tuple[str, ...]) -> None:
    """`ValueError` if the times of a completed configuration do not fit the schedule of the run."""
    schedule = read_checkpoint(plain["checkpoint"])["config"]["pipeline"]["denoiser"]["schedule"]
    trusted = (*CHECKPOINT_TARGETS, *plain["allow_targets"])
    check(schedule, trusted, "schedule")
    build(plain["sampler"], allowed).time_grid(build(schedule, trusted))
