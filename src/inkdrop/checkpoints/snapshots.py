"""Weight averages of any length, reconstructed from snapshots of the averages kept in training."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkdrop.averaging import gamma_of, reconstruction_weights
from inkdrop.checkpoints.content import Content
from inkdrop.checkpoints.files import places, read_checkpoint, read_index
from inkdrop.errors import CheckpointError

# `benchmarks/ema.py` finds errors below 1% of the distance to the raw weights up to here, and of 26% before 5%.
MAX_RESIDUAL = 0.01
_PREFIX = "length:"


def name_of(length: float) -> str:
    """Returns the name in a checkpoint of an average of this relative length."""
    return f"{_PREFIX}{length}"


def length_in(name: str) -> float:
    """Returns the relative length in such a name."""
    return float(name.removeprefix(_PREFIX))


def find_snapshots(path: str | Path, step: int | None = None) -> list[dict[str, Any]]:
    """Returns the index entries of a run's snapshots with their `file`, oldest first, up to this step (None: all).

    Raises `CheckpointError` without snapshots, and `ValueError` without one of this step.
    """
    folders = [each for each in places(Path(path), "snapshots") if each.is_dir()]
    known = [(each, entry) for each in folders for entry in (read_index(each) or {"files": []})["files"]]
    by_step = {entry["step"]: {**entry, "file": each / entry["name"]} for each, entry in known}
    entries = [by_step[each] for each in sorted(by_step)]
    if not entries:
        raise CheckpointError(
            f"{path} is not a run folder with snapshots, which averages of any length are made from: train with "
            "callbacks.ema.lengths=[0.05,0.1] and callbacks.ema.snapshots={_target_:inkdrop.callbacks.Every,steps:100}"
        )
    steps = [entry["step"] for entry in entries]
    if step is not None and step not in steps:
        nearest = min(steps, key=lambda each: abs(each - step))
        raise ValueError(f"{path} has no snapshot of step {step}: the nearest of {len(steps)} is of step {nearest}")
    return [entry for entry in entries if step is None or entry["step"] <= step]


def reconstructed(path: str | Path, length: float, step: int | None = None) -> Content:
    """Returns the checkpoint that a run would have at the step of a snapshot with only an average of this length.

    `content["reconstruction"]` has length, step, number of snapshots and residual; a large residual is warned of.
    Raises `CheckpointError` if a snapshot is damaged or missing, and `ValueError` for an impossible step or length.
    """
    gamma = gamma_of(length)
    entries = find_snapshots(path, step)
    files = [entry["file"] for entry in entries]
    content = read_checkpoint(files[-1])
    kept = {name: gamma_of(length_in(name)) for name in content["ema"]}
    updates = [entry["metrics"]["num_updates"] for entry in entries]
    times, gammas = zip(*itertools.product(updates, kept.values()), strict=True)
    kinds = {value.dtype for average in content["ema"].values() for value in average.values()}
    rounding = max(torch.finfo(kind).eps for kind in kinds) / 4  # its root mean square, about
    weights, residual = reconstruction_weights(gammas, times, gamma, updates[-1], rounding)
    if residual > MAX_RESIDUAL:
        print(
            f"warning: the average of length {length} at step {entries[-1]['step']} deviates from its profile by "
            f"{residual:.1%} (|sum - p| / |p|), because {len(files)} snapshots of {', '.join(kept)} are too few: store "
            "them more often (callbacks.ema.snapshots), or choose a length nearer to theirs",
            file=sys.stderr,
            flush=True,
        )
    average: dict[str, Tensor] = {}
    for file, shares in zip(files, weights.reshape(len(files), -1).tolist(), strict=True):
        stored = (content if file == files[-1] else read_checkpoint(file))["ema"]
        for name, share in zip(kept, shares, strict=True):
            for key, value in stored[name].items():
                average.setdefault(key, torch.zeros_like(value, dtype=torch.float64)).add_(value, alpha=share)
    facts = {"length": length, "step": entries[-1]["step"], "num_snapshots": len(files), "residual": residual}
    average = {key: value.float() for key, value in average.items()}
    return {**content, "ema": {name_of(length): average}, "reconstruction": facts}
