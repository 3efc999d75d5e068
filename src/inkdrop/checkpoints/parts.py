"""The configuration in a checkpoint, from which its model, data and evaluation are rebuilt."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.checkpoints.models import embedded
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
    node = embedded(node, content.get("models", {}), path, name)
    if "${" in str(node):  # as part of another configuration, it would read the environment
        raise CheckpointError(f"{path} is not an inkdrop checkpoint: its configuration has a reference in {name}")
    try:
        check(node, (*CHECKPOINT_TARGETS, *allow_targets), name)
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if "_target_" not in node or node.get("_partial_"):
        raise CheckpointError(f"{path} is not an inkdrop checkpoint: its {name} does not name a class to build")
    if "sampler" in node and node.get("guidance") is None:
        return {**node, "guidance": {}}
    return node


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
