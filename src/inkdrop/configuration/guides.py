"""Short options of guidance: `guidance.scale=2` sets the scale of the guide that has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inkdrop.configuration.moved import renamed_guides

SHORT = ("scale", "interval", "checkpoint")
AS_RUN = "as_run"
LOADED = "inkdrop.pipeline.loaded"  # the target that has a checkpoint


def guides(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the guides of a configuration, with the short options next to them moved into the guides.

    Without a guide it returns the short options, which then apply to the guides of a run, or None if there are none;
    `guidance=none` is {}. Guides that are null and options that are `as_run` are left out. Raises `ValueError` for an
    option that no guide has.
    """
    options = {name: value for name, value in node.items() if name in SHORT and value != AS_RUN}
    chosen = renamed_guides({name: value for name, value in node.items() if name not in SHORT})
    present = {name: value for name, value in chosen.items() if value is not None}
    return assigned(present, options) if chosen else options or None


def assigned(chosen: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the guides with new values for these options; raises `ValueError` for an option that no guide has."""
    replaced = {name: _replaced(node, options) for name, node in chosen.items()}
    for option, value in options.items():
        if not any(_has(node, option) for node in chosen.values()):
            there = ", ".join(chosen) or "none"
            shown = "null" if value is None else value
            raise ValueError(
                f"guidance.{option}={shown} has no effect, because no guide has this option (guides: {there}): choose "
                "one that has it, such as guidance=[classifier_free,static_threshold]"
            )
    return replaced


def as_in_run(chosen: Mapping[str, Any] | None) -> bool:
    """Returns whether the guides of a command are those of the run, with other numbers at most."""
    given = {name for name, value in (chosen or {}).items() if value != AS_RUN}
    return given <= {name for name in SHORT if name != "checkpoint"}


def acting(guidance: Mapping[str, Any]) -> list[Any]:
    """Returns the guides that have an effect, in order and with all numbers as floats, so that they can be compared."""
    return [_floats(node) for node in guidance.values() if node.get("scale", 1.0) is not None]


def differing(guidance: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that select this guidance for a run that was trained with another one."""
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
