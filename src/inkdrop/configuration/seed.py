"""The seed of a run whose configuration says null."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from omegaconf import DictConfig

from inkdrop.distributed.processes import is_first
from inkdrop.errors import ConfigurationError, UnreadableError
from inkdrop.files import read_json, read_yaml


def draw_seed(config: DictConfig, folder: str | Path | None = None, told: bool = False) -> int | None:
    """Draws the seed if it is null, prints it and returns it, or takes that of the run in the folder (`output_dir`).

    `ConfigurationError` if several processes were started from outside, none of which is the first to draw it.
    """
    if "seed" not in config or config.seed is not None:
        return None
    if (earlier := _earlier(Path(folder or config.output_dir))) is not None:
        config.seed = earlier
        return None
    if not is_first() or any(int(os.environ.get(name) or 1) > 1 for name in ("WORLD_SIZE", "SLURM_NTASKS")):
        raise ConfigurationError("seed=null with several processes: give a number, so that they agree")
    config.seed = drawn = secrets.randbelow(2**31)
    if told:
        print(f"seed       {drawn} (drawn)")
    return drawn


def _earlier(folder: Path) -> int | None:
    """The seed of the run in a folder, if there is one."""
    for read in (lambda: read_json(folder / "run.json").get("config", {}), lambda: read_yaml(folder / "config.yaml")):
        with contextlib.suppress(UnreadableError):
            if isinstance(seed := read().get("seed"), int):
                return seed
    return None
