"""Loads pipelines from checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from inkdrop.checkpoints import checked_guidance, checked_part, model_weights, open_checkpoint, reconstructed
from inkdrop.checkpoints.building import built, opened
from inkdrop.checkpoints.content import require_fit
from inkdrop.checkpoints.models import digest_of_snapshots, foreign_files, note, note_files
from inkdrop.configuration import CHECKPOINT_TARGETS
from inkdrop.configuration.building import foreign_targets
from inkdrop.errors import CheckpointError
from inkdrop.files.showing import warn
from inkdrop.files.tensors import tensors
from inkdrop.guidance import Guidance
from inkdrop.models import ForeignFiles, Model
from inkdrop.models.classifier import NoisyClassifier
from inkdrop.pipeline.base import Pipeline


def load(
    path: str | Path,
    weights: str = "ema",
    allow_targets: Sequence[str] = (),
    length: float | None = None,
    step: int | None = None,
) -> Pipeline:
    """Loads the pipeline of a run folder or checkpoint file, with the sampler of its evaluation, on the CPU.

    The model is built from the configuration inside the checkpoint.

    - `path`: the run folder or checkpoint file.
    - `weights`: `ema`, `raw`, or the name of another average, which is its decay or `length:0.05`.
    - `allow_targets`: import paths of packages that the checkpoint may use in addition to the parts of inkdrop.
    - `length`: the relative length of an average to reconstruct from the snapshots of a run; None uses `weights`.
    - `step`: the optimizer step of the snapshot at which that average ends; None is the last one.

    Raises `ValueError` for files that cannot be used.
    """
    with opened(path):
        content, _ = _content(path, weights, length, step)
        pipeline = restored(content, weights, allow_targets, path)
    guidance = checked_part(path, content, "pipeline", allow_targets).get("guidance")
    if guidance is not None:  # the model may be a part of its own guidance
        pipeline.guidance = guides(content, guidance, allow_targets, path)
    return pipeline


def guides(
    checkpoint: Mapping[str, Any], guidance: Any, allow_targets: Sequence[str] = (), path: str | Path = ""
) -> dict[str, Guidance]:
    """Builds the guides of a checkpoint's configuration, or the same with other numbers.

    Their models are those that the checkpoint holds; a checkpoint of an earlier version holds none, and they are read
    from their files. Raises `CheckpointError` for guides that cannot be built; messages name `path`.
    """
    node = checked_guidance(path, checkpoint, guidance, allow_targets)
    made: dict[str, Guidance] = built(path, node, (*CHECKPOINT_TARGETS, *allow_targets), dict(tensors(node)))
    return made


def loaded(
    checkpoint: str, weights: str = "ema", length: float | None = None, step: int | None = None
) -> Pipeline | NoisyClassifier | Model:
    """Loads the model of another run as a part of this one: a pipeline without guidance, or a classifier; see `load`.

    The packages that the user has allowed for this configuration are allowed for the other one too.
    """
    source = {"checkpoint": checkpoint, "weights": weights, "length": length, "step": step}
    with opened(checkpoint):
        content, digest = _content(checkpoint, weights, length, step)
        model = restored(content, weights, foreign_targets(), checkpoint)
    note(model, source, content, digest)
    return model


def foreign(path: str) -> ForeignFiles:
    """Reads a foreign model, such as a text encoder, as a part of this one: its configuration and its tokenizer.

    `path` is a folder with `config.json`, the files of a tokenizer, and weights in `model.safetensors`. Nothing is
    downloaded. Raises `CheckpointError` for files that cannot be read.
    """
    files = foreign_files(path)
    note_files(path, files)
    return ForeignFiles(files, path)


def embedded(
    model: Model, classes: list[str], weights: dict[str, Tensor] | None = None
) -> Pipeline | NoisyClassifier | Model:
    """Returns a part of a checkpoint that was trained as a model, with the names of its classes.

    `weights` are those of a model that is not a part of the checkpoint's own model, such as a guide. Raises
    `CheckpointError` if they do not fit.
    """
    getattr(model, "adapt", lambda: None)()
    if weights is not None:
        set_weights(model, weights, "a model within the checkpoint")
    model.classes = classes
    return model.eval()


def _content(
    path: str | Path, weights: str, length: float | None, step: int | None
) -> tuple[dict[str, Any], Callable[[], str]]:
    """Returns the content of a checkpoint, and a function that computes its digest."""
    if length is None:
        if step is not None:
            raise ValueError(f"step={step} is where an average of a given length ends: set length too")
        checkpoint = open_checkpoint(path)
        return checkpoint.content, lambda: checkpoint.digest
    if weights != "ema":
        raise ValueError(f"weights={weights} and length={length} exclude each other: leave one of them out")
    return reconstructed(path, length, step), lambda: digest_of_snapshots(path, step)


def restored(
    checkpoint: Mapping[str, Any], weights: str = "ema", allow_targets: Sequence[str] = (), path: str | Path = ""
) -> Pipeline:
    """Builds the pipeline from the content of a checkpoint, as in `load`; error messages name `path`.

    It has no guidance, which `guides` builds: that of an earlier version needs other files, which may no longer exist.
    """
    config = {**checked_part(path, checkpoint, "pipeline", allow_targets)}
    config.pop("guidance", None)
    targets = (*CHECKPOINT_TARGETS, *allow_targets)
    weights_of_parts = {**checkpoint["state_dict"], **dict(tensors(config))}
    pipeline: Pipeline = built(path, config, targets, weights_of_parts, _adapt)
    set_weights(pipeline, model_weights(checkpoint, weights), str(path))
    pipeline.classes = checkpoint.get("classes", [])
    return pipeline.eval()


def _adapt(model: Model) -> None:
    model.adapt()


def set_weights(pipeline: Model, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads weights into a pipeline, and warns if this changes their type.

    Raises `CheckpointError` if they do not fit.
    """
    current = pipeline.state_dict()
    try:
        require_fit(weights, current)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    for before, now in dict.fromkeys((weights[name].dtype, current[name].dtype) for name in current):
        if before != now:
            warn(f"{source}: weights in {before} are cast to {now}")
    pipeline.load_state_dict(weights)
