"""Adapters without their base: those of a run, and those of a folder that is shared.

A shared folder has the layout of peft: `adapter_config.json`, and weights by peft's names in
`adapter_model.safetensors`, whose metadata say which base they are for and how inkdrop builds the adapter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inkdrop.checkpoints.content import model_weights
from inkdrop.checkpoints.files import read_checkpoint
from inkdrop.checkpoints.parts import checked_adapters
from inkdrop.errors import CheckpointError
from inkdrop.files.plain import json_of
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_safetensors, safetensors_metadata
from inkdrop.files.writing import make_folder, write_bytes, write_text

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
BASE, NODE = "inkdrop_base", "inkdrop_adapter"  # in the metadata of the weights
BASE_DIGEST = "base_digest"  # in the state of a model
_PREFIX = "base_model.model."  # of peft's names


class SharedAdapter(NamedTuple):
    """An adapter without its base.

    - `node`: its checked configuration.
    - `weights`: its weights, by their names in the state of a model without the name of the adapter.
    - `base`: the SHA-256 of the base in hexadecimal digits.
    """

    node: dict[str, Any]
    weights: dict[str, Tensor]
    base: str


def portable(path: str, name: str) -> str | None:
    """Returns the name of a weight without that of its adapter, as peft writes it; None for any other weight."""
    found = re.fullmatch(rf"(.*)\.{re.escape(name)}(\..*)?", path)
    return None if found is None else found[1] + (found[2] or "")


def adapters_of(
    path: str | Path, weights: str = "ema", allow_targets: tuple[str, ...] = ()
) -> dict[str, SharedAdapter]:
    """Returns the adapters of a run folder, a checkpoint or a shared folder, by name.

    Raises `CheckpointError` for files that have none or cannot be used.
    """
    if (Path(path) / WEIGHTS).is_file():
        return {"shared": _shared(Path(path), allow_targets)}
    content = read_checkpoint(path, "adapters")
    nodes = checked_adapters(path, content, allow_targets)
    if not nodes:
        raise CheckpointError(
            f"{harmless(path)} has no adapters: name a run of adapter=..., or a folder that it exported"
        )
    state = model_weights(content, weights)
    if BASE_DIGEST not in state:
        raise CheckpointError(f"{harmless(path)} does not say which base its adapters are for: use the original file")
    trained = [each.removeprefix("pipeline.") for each in content["trainable"]]
    return {
        name: SharedAdapter(
            node,
            {short: state[each] for each in trained if (short := portable(each, name)) is not None},
            bytes(state[BASE_DIGEST].tolist()).hex(),
        )
        for name, node in nodes.items()
    }


def _shared(folder: Path, allow_targets: Sequence[str]) -> SharedAdapter:
    weights = read_safetensors(folder / WEIGHTS, CheckpointError)
    metadata = safetensors_metadata(folder / WEIGHTS, CheckpointError)
    if BASE not in metadata or NODE not in metadata:
        raise CheckpointError(
            f"{harmless(folder)} was not written by inkdrop: it does not say which base the adapter is for"
        )
    node = json_of(metadata[NODE].encode(), f"{folder / WEIGHTS}", error=CheckpointError)
    content = {"config": {"pipeline": {"_target_": "inkdrop.pipeline.Pipeline", "adapters": {"shared": node}}}}
    checked = checked_adapters(folder, content, allow_targets)["shared"]
    return SharedAdapter(
        checked, {each.removeprefix(_PREFIX): value for each, value in weights.items()}, metadata[BASE]
    )


def write_adapter(folder: Path, adapter: SharedAdapter, options: Mapping[str, Any] | None) -> None:
    """Writes an adapter into a new folder; `options` are those of peft, if peft knows the adapter."""
    from safetensors.torch import save

    make_folder(folder)
    metadata = {"format": "pt", BASE: adapter.base, NODE: json.dumps(adapter.node)}
    weights = {f"{_PREFIX}{name}": value.detach().float().contiguous() for name, value in adapter.weights.items()}
    write_bytes(folder / WEIGHTS, save(weights, metadata))
    if options is not None:
        layers = sorted({name.partition(".lora_")[0] for name in adapter.weights})
        write_text(folder / CONFIG, json.dumps({**options, "target_modules": layers}, indent=2, default=sorted) + "\n")


def base_of(state: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of the base in the state of a model with adapters, in hexadecimal digits."""
    return bytes(state[BASE_DIGEST].to(torch.uint8).tolist()).hex()
