"""The seed of a run whose configuration says null."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from inkdrop.processes import is_first

_DRAWN = "INKDROP_DRAWN_SEED"


def draw_seed(config: DictConfig, told: bool = False) -> None:
    """Draws the seed if it is null, and prints it, or takes that of the run in the folder already.

    The processes of further devices inherit that of the first.

    `ValueError` if the processes were started from outside, where none is the first to draw it.
    """
    if "seed" not in config or config.seed is not None:
        return
    earlier = Path(config.output_dir) / "config.yaml"
    if earlier.exists():
        config.seed = OmegaConf.load(earlier).seed
        return
    if is_first() and all(int(os.environ.get(name) or 1) == 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        os.environ[_DRAWN] = str(secrets.randbelow(2**31))
        if told:
            print(f"seed       {os.environ[_DRAWN]} (drawn)")
    if _DRAWN not in os.environ:
        raise ValueError("seed=null with several processes: give a number, so that they agree")
    config.seed = int(os.environ[_DRAWN])
