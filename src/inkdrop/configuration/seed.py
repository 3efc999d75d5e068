"""Draws the seed of a run if its configuration has `seed: null`."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from omegaconf import DictConfig

from inkdrop.distributed.processes import is_first
from inkdrop.errors import ConfigurationError, UnreadableError
from inkdrop.files import read_json, read_yaml


def draw_seed(config: DictConfig, folder: str | Path | None = None, shown: bool = False) -> int | None:
    """Draws the seed if it is null and returns it, or takes that of the run in the folder (default `output_dir`).

    With `shown` it prints a drawn seed. Raises `ConfigurationError` if several processes were started from outside:
    each of them would draw another seed.
    """
    if "seed" not in config or config.seed is not None:
        return None
    if (earlier := _earlier(Path(folder or config.output_dir))) is not None:
        config.seed = earlier
        return None
    if not is_first() or any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        raise ConfigurationError("seed=null would differ between several processes: set seed to a number")
    config.seed = drawn = secrets.randbelow(2**31)
    if shown:
        print(f"seed       {drawn} (drawn)")
    return drawn


def _earlier(folder: Path) -> int | None:
    """Returns the seed of the run in a folder, or None without a run."""
    for read in (lambda: read_json(folder / "run.json").get("config", {}), lambda: read_yaml(folder / "config.yaml")):
        with contextlib.suppress(UnreadableError):
            if isinstance(seed := read().get("seed"), int):
                return seed
    return None
