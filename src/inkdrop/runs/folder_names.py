"""Names of run folders that contain the time, which two processes may share."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inkdrop.distributed.processes import is_first


def by_time(config: DictConfig, option: str) -> Path | None:
    """Returns the folder in a configuration of Hydra if its name contains the time, so that it may not be unique."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    if not is_first() or "${now:" not in str(raw.get("output_dir")):
        return None
    return Path(config.output_dir) if config.output_dir == OmegaConf.select(config, option) else None


def apart(folder: Path, made: bool = False) -> Path:
    """Returns a folder, or one with the next free number after its name; with `made` it is created at once."""
    for number in itertools.count(2):
        candidate = folder if number == 2 else folder.with_name(f"{folder.name}-{number - 1}")
        try:
            if not made and not candidate.exists():
                return candidate
            if made:
                candidate.mkdir(parents=True)
                return candidate
        except FileExistsError:
            continue
        except OSError:  # Hydra raises and reports it again
            return candidate
    raise AssertionError
