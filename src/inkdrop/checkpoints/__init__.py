"""Checkpoints: they are written completely or not at all, verified before use, and never executed."""

from inkdrop.checkpoints.content import model_weights
from inkdrop.checkpoints.files import Checkpoint, find_checkpoint, open_checkpoint, read_checkpoint
from inkdrop.checkpoints.folder import CheckpointFolder
from inkdrop.checkpoints.parts import checked_data, checked_guidance, checked_part
from inkdrop.checkpoints.snapshots import reconstructed
from inkdrop.errors import CheckpointError

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointFolder",
    "checked_data",
    "checked_guidance",
    "checked_part",
    "find_checkpoint",
    "model_weights",
    "open_checkpoint",
    "read_checkpoint",
    "reconstructed",
]
