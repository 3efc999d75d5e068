"""The weights of a folder of diffusers as the initial ones of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkdrop.conditioners import Label
from inkdrop.data.module import DataModule
from inkdrop.errors import CheckpointError
from inkdrop.files.showing import harmless
from inkdrop.networks import DiT, LearnedVariance, UNet
from inkdrop.networks.diffusers_dit import CLASSES
from inkdrop.networks.diffusers_format import is_diffusers_folder, read_diffusers_folder

_TABLES = {UNet: {"num_class_embeds": "class_embedding.weight"}, DiT: {"num_embeds_ada_norm": CLASSES}}


def begin_with(path: str, pipeline: Any, option: str) -> None:
    """Loads the weights of a published network, and the vectors of its classes into a conditioner of labels.

    Raises `CheckpointError`, which names the option of the path, if they do not fit.
    """
    try:
        _begin(Path(path), pipeline)
    except ValueError as error:
        raise CheckpointError(f"{option}={harmless(path)}: {error}") from None


def lend_base(plain: Mapping[str, Any], data: DataModule, pipeline: Any, is_base: bool) -> None:
    """Gives the data the model of a published base, which is in no file as a whole, before adapters change it.

    `is_base` is whether the model has the weights of the base: one that resumes has others.
    """
    if plain.get("base") and is_diffusers_folder(Path(plain["base"])):
        described = {name: each for name, each in plain["pipeline"].items() if name != "adapters"}
        data.lend(json.dumps(described, sort_keys=True, default=str), pipeline if is_base else None)


def _begin(path: Path, pipeline: Any) -> None:
    network, conditioner = pipeline.network, pipeline.conditioner
    if type(network) is LearnedVariance:
        network = network.network
    if (tables := _TABLES.get(type(network))) is None or not network.doors["vector"] or type(conditioner) is not Label:
        network.load_state_dict(read_diffusers_folder(path, network))
        return
    vector, network.vector = network.vector, None  # of a published network a table takes its place
    try:
        weights = read_diffusers_folder(path, network, tables)
        (name,) = tables.values()
        table = weights.pop(name, None)
        network.load_state_dict(weights)
    finally:
        network.vector = vector
    _set_classes(table, conditioner, vector)


@torch.no_grad()
def _set_classes(table: Tensor | None, conditioner: Label, vector: Any) -> None:
    """Makes a table of classes (N, E) the vectors of a conditioner; without a row for no class, that is their mean."""
    if table is None:
        raise ValueError("the published network has no classes: set conditioner=none, or use a network that has them")
    count, is_map = conditioner.num_classes, type(vector) is torch.nn.Linear
    width = vector.out_features if is_map else conditioner.dim
    if table.dim() != 2 or len(table) not in (count, count + 1) or table.shape[1] != width or conditioner.dim != width:
        raise ValueError(
            f"the published table of classes has the shape {tuple(table.shape)}: set conditioner.num_classes and "
            f"conditioner.dim={width} to it"
        )
    rows = table if len(table) == count + 1 else torch.cat([table, table.mean(0, keepdim=True)])
    conditioner.embedding.weight.copy_(rows)
    if is_map:
        torch.nn.init.eye_(vector.weight)
        torch.nn.init.zeros_(vector.bias)
