"""Files of calibrations, next to their checkpoint."""

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
    """Returns the file of a checkpoint's calibration for this number of steps.

    `model` describes its weights and guidance, and is equal for equal models.
    """
    key = hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:8]
    return checkpoint.file.parent / "calibrations" / f"{checkpoint.file.stem}-{num_steps}-steps-{key}.json"


def write_calibration(file: Path, checkpoint: Checkpoint, content: Mapping[str, Any]) -> None:
    """Writes a calibration with the digest of its checkpoint."""
    make_folder(file.parent)
    write_text(file, json.dumps({"checkpoint_sha256": checkpoint.digest, **content}, indent=2) + "\n")


def read_calibration(file: Path, checkpoint: Checkpoint, command: str) -> dict[str, Any]:
    """Returns the times and coefficients in a file, or raises `CheckpointError` with `command` as the remedy."""
    if not file.is_file():
        raise CheckpointError(f"{checkpoint.file} has no calibration for this model and num_steps: run {command}")
    content = read_json(file, error=CheckpointError)
    if (wrong := wrong_field(content, _FIELDS, _FIELDS)) is not None:
        raise CheckpointError(f"{harmless(file)} is damaged, {wrong}: remove it, then run {command}")
    times, coefficients, digest = (content[name] for name in _FIELDS)
    if digest != checkpoint.digest:
        raise CheckpointError(f"{file} is for another {checkpoint.file.name}: run {command}")
    return {"times": times, "coefficients": coefficients}
