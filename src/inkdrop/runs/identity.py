"""What makes two runs the same: their configuration without options that never matter and without copies.

This module imports only Hydra and YAML, because a sweep compares its trials before torch is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inkdrop.configuration.compose import place_guidance
from inkdrop.runs.free import FREE, within


def options_of(config: DictConfig) -> dict[str, Any]:
    """Returns the options that matter by path, each once: an option that refers to another one is its reference."""
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    place_guidance(config)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return {path: value for path, value in _leaves(plain) if not within(path, FREE)}


def identity(config: DictConfig) -> str:
    """Returns the SHA-256 of `options_of`: equal for two trials that compute the same, however they are spelled."""
    return hashlib.sha256(json.dumps(options_of(config), sort_keys=True, default=str).encode()).hexdigest()


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, _plain(node)


def _plain(value: Any) -> Any:
    """Returns a value in which 1.0 is 1, as it is computed with."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
