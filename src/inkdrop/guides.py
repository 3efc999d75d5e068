"""Options of guidance by their short names: `guidance.scale=2` reaches the guide that has a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORT = ("scale", "interval", "checkpoint")


def guides(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """The guides of a configuration, with the short options that stand beside them in their places.

    Without a guide the short options stay, for the guides of a run, or there is None; `guidance=none` is {}. What is
    null is left out. `ValueError` for an option that no guide has.
    """
    options = {name: value for name, value in node.items() if name in SHORT and value is not None}
    chosen = {name: value for name, value in node.items() if name not in SHORT}
    present = {name: value for name, value in chosen.items() if value is not None}
    return assigned(present, options) if chosen else options or None


def assigned(chosen: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Guides in which every one of these options has its new value; `ValueError` for an option that none has."""
    for option, value in options.items():
        if not _holds(chosen, option):
            there = ", ".join(chosen) or "none"
            raise ValueError(
                f"guidance.{option}={value} is for a guide that has such an option, and there is {there}: choose one, "
                "such as guidance=[classifier_free,clip]"
            )
    return {name: _replaced(node, options) for name, node in chosen.items()}


def _holds(node: Any, option: str) -> bool:
    return isinstance(node, Mapping) and any(key == option or _holds(value, option) for key, value in node.items())


def _replaced(node: Any, options: Mapping[str, Any]) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {key: options.get(key, _replaced(value, options)) for key, value in node.items()}
