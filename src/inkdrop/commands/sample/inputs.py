"""What samples are made from: checkpoints, held-out items, conditions, and where they start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inkdrop.checkpoints import Checkpoint, checked_data, open_checkpoint
from inkdrop.commands.command import Session
from inkdrop.configuration import CHECKPOINT_TARGETS, build
from inkdrop.data.module import DataModule
from inkdrop.metrics import Evaluation
from inkdrop.metrics.checks import VALIDATION, covered, require_split
from inkdrop.pipeline import Pipeline
from inkdrop.pipeline.origins import Origin


class Measured(NamedTuple):
    """The evaluation of samples, and the data with which they are compared."""

    evaluation: Evaluation
    data: DataModule


def checkpoint_of(path: str, session: Session) -> Checkpoint:
    """Returns the checkpoint of a run folder or file, which the trials of a sweep read once."""
    return session.keep("checkpoint", path, lambda: open_checkpoint(path))


def data_of(plain: dict[str, Any], checkpoint: Checkpoint, session: Session) -> DataModule:
    """Returns the data of the run with the derived fields that are asked for; they are not downloaded."""
    targets = plain["allow_targets"]
    config = checked_data(checkpoint.path, checkpoint.content, targets, plain["data_folders"])
    if plain["derive"]:
        config = {**config, "derive": {**(config.get("derive") or {}), **plain["derive"]}}
    data: DataModule = session.keep("data", config, lambda: build(config, (*CHECKPOINT_TARGETS, *targets)))
    return data


def items_of(
    plain: dict[str, Any],
    origin: Origin | None,
    checkpoint: Checkpoint,
    measured: Measured | None,
    session: Session,
) -> dict[str, Tensor]:
    """Returns the held-out items from which samples start, a row for each sample, or nothing where none do."""
    if origin is None or not origin.takes_items:
        return {}
    other = origin.checkpoint is not None
    data = data_of(plain, checkpoint_of(str(origin.checkpoint), session) if other else checkpoint, session)
    name = plain["held_out"] or (measured.evaluation.held_out if measured and not other else VALIDATION)
    require_split("held_out", name, data.splits)
    split, count = data.splits[name], plain["num_samples"]
    there = len(split["x"])
    period = covered(count, measured.evaluation.per_item, there) if measured and not other else there
    rows = torch.arange(count * plain["repeats"]) % count % period
    return {field: torch.as_tensor(column[rows]) for field, column in split.items()}


def conditions_of(
    pipeline: Pipeline,
    seeds: range,
    condition: dict[str, Any],
    measured: Measured | None,
    items: Mapping[str, Tensor],
    count: int,
) -> dict[str, Tensor]:
    """Returns the raw conditions of all samples: as asked for, or those of held-out items."""
    given = {name: value for name, value in condition.items() if value is not None}
    if measured is None:
        conditions = {name: values for name, values in items.items() if name in pipeline.names}
        complete = conditions.keys() >= set(pipeline.names) - set(given)
        return {**conditions, **(pipeline.request(seeds, **given) if given or not complete else {})}
    if given:
        raise ValueError("evaluate=true takes the conditions of held-out items: remove condition." + next(iter(given)))
    batch = measured.evaluation.conditions(measured.data, count, pipeline.names)
    return {name: values.repeat(len(seeds) // count, *[1] * (values.dim() - 1)) for name, values in batch.items()}


def origin_settings(
    node: Mapping[str, Any] | None, sources: Mapping[str, Tensor], session: Session
) -> dict[str, Any] | None:
    """Returns what samples depend on in their origin, with digests in place of files; None without an origin."""
    if node is None:
        return None
    digest = hashlib.sha256()
    for name, values in sorted(sources.items()):
        digest.update(f"{name}:{values.dtype}:{tuple(values.shape)}".encode() + values.numpy().tobytes())
    settings = {name: value for name, value in node.items() if name not in ("image", "checkpoint")}
    if node.get("checkpoint") is not None:
        settings["checkpoint"] = checkpoint_of(str(node["checkpoint"]), session).digest
    return {**settings, "sources": digest.hexdigest()}
