"""The configuration inside a checkpoint, by which its model, data and evaluation are built again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.checkpoints.files import CheckpointError
from inkdrop.configuration import CHECKPOINT_TARGETS, ConfigurationError, check


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
    return node
