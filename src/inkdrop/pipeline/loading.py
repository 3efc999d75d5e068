"""Pipelines from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from inkdrop.checkpoints import checked_part, model_weights, read_checkpoint, reconstructed
from inkdrop.checkpoints.building import built, opened
from inkdrop.checkpoints.content import require_fit
from inkdrop.classifier import NoisyClassifier
from inkdrop.configuration import CHECKPOINT_TARGETS
from inkdrop.errors import CheckpointError
from inkdrop.files.showing import warn
from inkdrop.pipeline.base import Pipeline


def load(
    path: str | Path,
    weights: str = "ema",
    allow_targets: Sequence[str] = (),
    length: float | None = None,
    step: int | None = None,
) -> Pipeline:
    """The pipeline of a run folder or checkpoint file, with the sampler it was evaluated with, on the CPU.

    `weights` is `ema`, `raw`, or the name of another average: its decay, or `length:0.05`. With `length` they are the
    average of this length that the snapshots of a run folder make, at the `step` of one of them (None: the last). The
    model is built from the configuration inside the checkpoint, of inkdrop's own parts and those whose import path
    begins with one of `allow_targets`. `ValueError` for files that cannot be used.
    """
    with opened(path):
        content = _content(path, weights, length, step)
        pipeline = restored(content, weights, allow_targets, path)
    guidance = checked_part(path, content, "pipeline", allow_targets)["guidance"]  # of which this model may be a part
    pipeline.guidance = built(path, guidance, (*CHECKPOINT_TARGETS, *allow_targets))
    return pipeline


def loaded(
    checkpoint: str, weights: str = "ema", length: float | None = None, step: int | None = None
) -> Pipeline | NoisyClassifier:
    """The model of another run that guides this one, as in `load` but unguided: a pipeline, or a classifier."""
    with opened(checkpoint):
        return restored(_content(checkpoint, weights, length, step), weights, (), checkpoint)


def _content(path: str | Path, weights: str, length: float | None, step: int | None) -> dict[str, Any]:
    if length is None:
        if step is not None:
            raise ValueError(f"step={step} says where an average of a length ends: give length too")
        return read_checkpoint(path)
    if weights != "ema":
        raise ValueError(f"weights={weights} and length={length} are two choices: leave one of them out")
    return reconstructed(path, length, step)


def restored(
    checkpoint: Mapping[str, Any], weights: str = "ema", allow_targets: Sequence[str] = (), path: str | Path = ""
) -> Pipeline:
    """The pipeline in the content of a checkpoint, as in `load`; `path` names it where something is wrong.

    It has no guidance, which may need other files that are no longer there.
    """
    config = {**checked_part(path, checkpoint, "pipeline", allow_targets)}
    config.pop("guidance", None)
    targets = (*CHECKPOINT_TARGETS, *allow_targets)
    pipeline: Pipeline = built(path, config, targets, checkpoint["state_dict"])
    set_weights(pipeline, model_weights(checkpoint, weights), str(path))
    if isinstance(pipeline, Pipeline):  # a classifier is told no words
        pipeline.classes = checkpoint.get("classes", [])
    return pipeline.eval()


def set_weights(pipeline: Pipeline, weights: Mapping[str, Tensor], source: str) -> None:
    """Puts weights into a pipeline, and says so if this changes their type; `CheckpointError` if they do not fit."""
    own = pipeline.state_dict()
    try:
        require_fit(weights, own)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    for before, now in dict.fromkeys((weights[name].dtype, own[name].dtype) for name in own):
        if before != now:
            warn(f"{source}: weights in {before} are cast to {now}")
    pipeline.load_state_dict(weights)
