"""The configuration inside a checkpoint, by which its model, data and evaluation are built again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.configuration import CHECKPOINT_TARGETS, arguments, check
from inkdrop.configuration.suggestions import options
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files.locations import data_dir, fetches, is_location, outside
from inkdrop.files.showing import harmless


def checked_part(
    path: str | Path, content: Mapping[str, Any], name: str, allow_targets: Sequence[str] = ()
) -> dict[str, Any]:
    """A part of the configuration in the content of a checkpoint, such as `pipeline`, once it is checked.

    `CheckpointError` if it is missing, if its values do not fit, if it holds a reference, or if it names a target that
    is neither a part of inkdrop's models nor begins with one of `allow_targets`.
    """
    if not isinstance(node := content["config"].get(name), dict):
        raise CheckpointError(f"{path} is no checkpoint of inkdrop: its configuration has no {name}")
    if "${" in str(node):  # where it becomes part of a configuration, that would read the environment
        raise CheckpointError(f"{path} is no checkpoint of inkdrop: its configuration has a reference in {name}")
    try:
        check(node, (*CHECKPOINT_TARGETS, *allow_targets), name)
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}") from None
    if "_target_" not in node or node.get("_partial_"):
        raise CheckpointError(f"{path} is no checkpoint of inkdrop: its {name} names no class that is built")
    if "sampler" in node and node.get("guidance") is None:
        return {**node, "guidance": {}}
    return node


def checked_data(
    path: str | Path, content: Mapping[str, Any], allow_targets: Sequence[str] = (), folders: Sequence[str] = ()
) -> dict[str, Any]:
    """The data in the configuration of a checkpoint, which are never fetched, once they are checked.

    `CheckpointError` as in `checked_part`, and if they lie neither in the user's data folder nor in one of `folders`.
    """
    node = copy.deepcopy(checked_part(path, content, "data", allow_targets))
    for owner, name, annotation in arguments(node, (*CHECKPOINT_TARGETS, *allow_targets)):
        if fetches(annotation):
            owner[name] = False
        elif is_location(annotation) and owner[name] and (place := outside(owner[name], folders)) is not None:
            raise CheckpointError(
                f"{path}: its data lie at {harmless(place)}, outside of the data folder {data_dir()}; if they are "
                f"yours, add {options({'data_folders': [place]})}"
            )
    return node
