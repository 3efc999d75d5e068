"""Adds adapters of other runs to a loaded model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from inkdrop.adapters import Adapter
from inkdrop.checkpoints.adapters import adapters_of, base_of, portable
from inkdrop.checkpoints.building import built
from inkdrop.checkpoints.content import require_fit
from inkdrop.configuration import CHECKPOINT_TARGETS
from inkdrop.errors import CheckpointError
from inkdrop.files.showing import harmless
from inkdrop.pipeline.base import Pipeline


def add_adapters(
    pipeline: Pipeline,
    path: str | Path,
    scale: float = 1.0,
    weights: str = "ema",
    allow_targets: Sequence[str] = (),
) -> list[str]:
    """Adds the adapters of a run folder, a checkpoint or a shared folder to a model, and returns their names in it.

    The changes of several adapters add up, in any order.

    - `pipeline`: the model that the adapters were trained on, which is changed in place.
    - `path`: the run folder, checkpoint, or folder with `adapter_model.safetensors`.
    - `scale`: their strength.
    - `weights`: `ema`, `raw`, or the name of another average of a run.
    - `allow_targets`: import paths of packages that the file may use in addition to the parts of inkdrop.

    Raises `CheckpointError` for adapters of another base.
    """
    base, added = base_of({"base_digest": pipeline.sign()}), []
    for name, shared in adapters_of(path, weights, tuple(allow_targets)).items():
        if shared.base != base:
            raise CheckpointError(
                f"adapters: {harmless(path)} changes the model with SHA-256 {harmless(shared.base)}, but this one has "
                f"{base}: use the checkpoint, and its average of the weights, that the adapter was trained on"
            )
        now = next(each for each in (name, *(f"{name}_{n}" for n in range(2, 1000))) if each not in pipeline.adapters)
        attached = partial(_attach, pipeline, now, scale)
        targets = (*CHECKPOINT_TARGETS, *allow_targets)
        built(path, shared.node, targets, {**pipeline.state_dict(), **shared.weights}, attached)
        places = {short: each for each in pipeline.trained if (short := portable(each, now)) is not None}
        state = pipeline.state_dict()
        try:
            require_fit(shared.weights, {short: state[each] for short, each in places.items()})
        except ValueError as error:
            raise CheckpointError(f"adapters: {harmless(path)}: {error}") from None
        with torch.no_grad():
            for short, each in places.items():
                state[each].copy_(shared.weights[short])
        added.append(now)
    return added


def _attach(pipeline: Pipeline, name: str, scale: float, adapter: Adapter) -> None:
    pipeline.attach({name: adapter})
    adapter.rescale(pipeline, name, scale)
