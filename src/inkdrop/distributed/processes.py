"""The rank of a process from its environment, before the process group exists."""

from __future__ import annotations

import os

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # as Lightning, torchrun and srun set them


def is_first() -> bool:
    """Returns whether this process is the first of its run, over all machines."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)
