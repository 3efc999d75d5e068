"""Folders that go by the time, of which two processes may have the same."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inkdrop.distributed.processes import is_first


def by_time(config: DictConfig, option: str) -> Path | None:
    """The folder in a configuration of Hydra's if the time is in its name, which another process may have had too."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    if not is_first() or "${now:" not in str(raw.get("output_dir")):
        return None
    return Path(config.output_dir) if config.output_dir == OmegaConf.select(config, option) else None


def apart(folder: Path, made: bool = False) -> Path:
    """A folder, or that with the next free number behind its name; with `made` it is made, so that nobody takes it."""
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
        except OSError:  # which Hydra meets again, and tells
            return candidate
    raise AssertionError
