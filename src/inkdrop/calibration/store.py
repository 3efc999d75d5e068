"""Calibrations as files beside their checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AllowInfNan

from inkdrop.checkpoints import Checkpoint
from inkdrop.errors import CheckpointError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.files.writing import make_folder, write_text

_NUMBER = Annotated[float, AllowInfNan(False)]
_FIELDS: dict[str, Any] = {"times": list[_NUMBER], "coefficients": list[list[_NUMBER]], "checkpoint_sha256": str}


def calibration_file(checkpoint: Checkpoint, model: Mapping[str, Any], num_steps: int) -> Path:
    """Where the calibration of a checkpoint is kept for so many steps.

    `model` says which weights and guidance it is for, one model always in the same words.
    """
    key = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:8]
    return checkpoint.file.parent / "calibrations" / f"{checkpoint.file.stem}-{num_steps}-steps-{key}.json"


def write_calibration(file: Path, checkpoint: Checkpoint, content: Mapping[str, Any]) -> None:
    """Writes a calibration with the digest of its checkpoint."""
    make_folder(file.parent)
    write_text(file, json.dumps({"checkpoint_sha256": checkpoint.digest, **content}, indent=2) + "\n")


def read_calibration(file: Path, checkpoint: Checkpoint, command: str) -> dict[str, Any]:
    """The times and coefficients in a file; `CheckpointError`, with the command that makes it, if there are none."""
    if not file.is_file():
        raise CheckpointError(f"{checkpoint.file} has no calibration of this model in so many steps: {command}")
    content = read_json(file, error=CheckpointError)
    if (wrong := wrong_field(content, _FIELDS, _FIELDS)) is not None:
        raise CheckpointError(f"{harmless(file)} is damaged, {wrong}: remove it, then {command}")
    times, coefficients, digest = (content[name] for name in _FIELDS)
    if digest != checkpoint.digest:
        raise CheckpointError(f"{file} is for another {checkpoint.file.name}: {command}")
    return {"times": times, "coefficients": coefficients}
