"""The configuration in a checkpoint, from which its model, data and evaluation are rebuilt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.checkpoints.models import GUIDES, embedded
from inkdrop.configuration import CHECKPOINT_TARGETS, arguments, check
from inkdrop.configuration.suggestions import options
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files.locations import data_dir, fetches, is_location, outside
from inkdrop.files.showing import harmless


def checked_part(
    path: str | Path, content: Mapping[str, Any], name: str, allow_targets: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns a checked part of the configuration in the content of a checkpoint, such as `pipeline`.

    Raises `CheckpointError` if the part is missing, its values do not fit, it contains a reference, or it names a
    target that is neither a part of inkdrop's models nor below one of `allow_targets`.
    """
    if not isinstance(node := content["config"].get(name), dict):
        raise CheckpointError(f"{path} is not an inkdrop checkpoint: its configuration has no {name}")
    guidance = {key: each for key, each in node.items() if f"{name}.{key}" == GUIDES}
    rest = {key: each for key, each in node.items() if key not in guidance}
    node = {**embedded(rest, content.get("models", {}), path, name), **guidance}
    _check(node, path, name, allow_targets)
    if "_target_" not in node or node.get("_partial_"):
        raise CheckpointError(f"{path} is not an inkdrop checkpoint: its {name} does not name a class to build")
    if "sampler" in node and node.get("guidance") is None:
        return {**node, "guidance": {}}
    return node


def checked_guidance(
    path: str | Path, content: Mapping[str, Any], guidance: Any, allow_targets: Sequence[str] = ()
) -> Any:
    """Returns checked guides of a checkpoint, whose models are those that it holds instead of those of other files.

    `guidance` is that of the checkpoint's configuration, with other numbers at most. Raises `CheckpointError` as
    `checked_part` does.
    """
    node = embedded(guidance, content.get("models", {}), path, GUIDES)
    _check(node, path, GUIDES, allow_targets)
    return node


def checked_adapters(
    path: str | Path, content: Mapping[str, Any], allow_targets: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Returns the checked adapters in the configuration of a checkpoint by name; raises as `checked_part` does."""
    node = content["config"].get("pipeline")
    found = (node.get("adapters") or {}) if isinstance(node, dict) else {}
    if not isinstance(found, dict) or not all(isinstance(each, dict) and "_target_" in each for each in found.values()):
        raise CheckpointError(f"{harmless(path)} is not an inkdrop checkpoint: its adapters are not parts to build")
    _check(found, path, "pipeline.adapters", allow_targets)
    return found


def _check(node: Any, path: str | Path, name: str, allow_targets: Sequence[str]) -> None:
    if _refers(node):  # as part of another configuration, it would read the environment
        raise CheckpointError(f"{path} is not an inkdrop checkpoint: its configuration has a reference in {name}")
    try:
        check(node, (*CHECKPOINT_TARGETS, *allow_targets), name)
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _refers(node: Any) -> bool:
    if isinstance(node, Mapping):
        return any(_refers(each) for pair in node.items() for each in pair)
    if isinstance(node, list | tuple):
        return any(map(_refers, node))
    return isinstance(node, str) and "${" in node


def checked_data(
    path: str | Path, content: Mapping[str, Any], allow_targets: Sequence[str] = (), folders: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns the checked data node in the configuration of a checkpoint, with downloads turned off.

    Raises `CheckpointError` as `checked_part` does, and if the data are neither in the data folder nor in one of
    `folders`.
    """
    node = copy.deepcopy(checked_part(path, content, "data", allow_targets))
    for owner, name, annotation in arguments(node, (*CHECKPOINT_TARGETS, *allow_targets)):
        if fetches(annotation):
            owner[name] = False
        elif is_location(annotation) and owner[name] and (place := outside(owner[name], folders)) is not None:
            raise CheckpointError(
                f"{path}: its data are at {harmless(place)}, outside the data folder {data_dir()}: if you trust this "
                f"location, add {options({'data_folders': [place]})}"
            )
    return node
