"""What a process knows of those that were started together with it, before they have met."""

from __future__ import annotations

import os

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # as Lightning, torchrun and srun tell them


def is_first() -> bool:
    """Whether this process is the first of its run, on all machines."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)
