"""Options of guidance by their short names: `guidance.scale=2` reaches the guide that has a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHORT = ("scale", "interval", "checkpoint")
AS_RUN = "as_run"
LOADED = "inkdrop.pipeline.loaded"  # what has a checkpoint


def guides(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """The guides of a configuration, with the short options that stand beside them in their places.

    Without a guide the short options stay, for the guides of a run, or there is None; `guidance=none` is {}. Guides
    that are null are left out, and options that are `as_run`. `ValueError` for an option that no guide has.
    """
    options = {name: value for name, value in node.items() if name in SHORT and value != AS_RUN}
    chosen = {name: value for name, value in node.items() if name not in SHORT}
    present = {name: value for name, value in chosen.items() if value is not None}
    return assigned(present, options) if chosen else options or None


def assigned(chosen: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Guides in which every one of these options has its new value; `ValueError` for an option that none has."""
    found = {name: _replaced(node, options) for name, node in chosen.items()}
    for option, value in options.items():
        if not any(_has(node, option) for node in chosen.values()):
            there = ", ".join(chosen) or "none"
            told = "null" if value is None else value
            raise ValueError(
                f"guidance.{option}={told} is for a guide that has such an option, and there is {there}: choose one, "
                "such as guidance=[classifier_free,clip]"
            )
    return found


def acting(guidance: Mapping[str, Any]) -> list[Any]:
    """The guides that do something, in order and with all numbers as floats: equal where guidance is the same."""
    return [_floats(node) for node in guidance.values() if node.get("scale", 1.0) is not None]


def differing(guidance: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Options by which this guidance is chosen for a run that has another."""
    if list(guidance.items()) == list(run.items()):
        return {}
    if list(guidance) == list(run):
        pairs = list(zip(guidance.values(), run.values(), strict=True))
        short = {n: new[n] for n in ("scale", "interval") for new, old in pairs if n in new and n in old}
        if guidance == assigned(run, short):
            return {f"guidance.{name}": value for name, value in short.items() if assigned(run, {name: value}) != run}
    return {"guidance": "none", **{f"+guidance.{name}": node for name, node in guidance.items()}}


def _floats(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {name: _floats(each) for name, each in node.items()}
    if isinstance(node, list):
        return [_floats(each) for each in node]
    return float(node) if type(node) is int else node


def _has(node: Mapping[str, Any], option: str) -> bool:
    return option in node if option != "checkpoint" else any(map(_loads, node.values()))


def _loads(node: Any) -> bool:
    return isinstance(node, Mapping) and node.get("_target_") == LOADED


def _replaced(node: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    file = {name: value for name, value in options.items() if name == "checkpoint"}
    return {name: {**each, **file} if _loads(each) else options.get(name, each) for name, each in node.items()}
