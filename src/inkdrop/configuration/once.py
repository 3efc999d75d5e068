"""A configuration as trackers receive it: each option once, without secrets and without paths of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inkdrop.configuration.secrets import MASK, Path, masked, masked_override

_REFERENCE = re.compile(r"\$\{.*\}", re.DOTALL)  # the whole value, which another option or the environment has
_PATH = re.compile(r"(?<![\w:/.}])(?:~|\.{0,2})/[\w.]|(?<!\w)file:|(?<!\w)[A-Za-z]:\\")  # also within a longer text
_NAMES = "paths?|roots?|folders?|files?|dirs?|checkpoint|base|init_from|validation"
_NAME = re.compile(rf"(?:^|[._])(?:{_NAMES})$|^data\.train$")
_ABSENT: Any = object()


def options_once(config: DictConfig, plain: dict[str, Any], secret: set[Path]) -> dict[str, Any]:
    """Returns a configuration with its references, which is `plain` with all of them resolved, with each option once.

    A value that only repeats another one through a reference is left out, and so is a path of this machine. `secret`
    are the paths of the values that are masked.
    """
    raw: Any = OmegaConf.to_container(config, resolve=False)
    kept: dict[str, Any] = _kept(raw, masked(plain, secret), "")
    return kept


def without_paths(plain: dict[str, Any]) -> dict[str, Any]:
    """Returns resolved options without paths of this machine."""
    kept: dict[str, Any] = _kept(plain, plain, "")
    return kept


def overrides_once(overrides: Iterable[str]) -> list[str]:
    """Returns overrides of the command line with masked secrets, and without those that set a path of this machine."""
    return [masked_override(each) for each in overrides if not is_local(*_parts(each))]


def is_local(name: str, value: object) -> bool:
    """Returns whether the value of an option is a path of this machine, by its name, its form or because it exists."""
    if not isinstance(value, str) or not value or value == "null":
        return False
    return bool(_NAME.search(name) or _PATH.search(value) or ("/" in value and os.path.lexists(value)))


def _parts(override: str) -> tuple[str, str]:
    name, _, value = override.lstrip("+~").partition("=")
    return name, value.strip("'\"")


def _kept(raw: Any, plain: Any, name: str) -> Any:
    """Returns what is kept of a value, given as it was composed and as it is resolved."""
    if isinstance(raw, dict):
        parts = {key: _kept(each, plain[key], f"{name}.{key}" if name else str(key)) for key, each in raw.items()}
        kept = {key: part for key, part in parts.items() if part is not _ABSENT and key != "_partial_"}
        return kept if kept or not raw else _ABSENT
    if isinstance(raw, list):
        items = [_kept(each, plain[place], name) for place, each in enumerate(raw)]
        kept_items = [item for item in items if item is not _ABSENT]
        return kept_items if kept_items or not raw else _ABSENT
    if isinstance(raw, str) and _REFERENCE.fullmatch(raw):
        return MASK if "oc.env" in raw else _ABSENT
    return _ABSENT if plain != MASK and is_local(name, plain) else plain
