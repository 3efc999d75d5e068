"""Checks the values of a plain configuration against the signatures of the targets that it names."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from inkdrop.configuration.building import USER_TARGETS, located, parameters_of
from inkdrop.configuration.lightning_options import instead
from inkdrop.configuration.suggestions import unknown_option
from inkdrop.errors import ConfigurationError

_LARGEST = 2**63 - 1  # of a tensor

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


def check(node: Any, allowed: Iterable[str] = USER_TARGETS, path: str = "") -> None:
    """Checks a plain configuration at all levels before any object is built from it.

    Raises `ConfigurationError` for a target that is not allowed or does not exist, an argument that is unknown or
    missing, and a value of the wrong type or outside its range. A target that is not allowed is not imported.
    """
    if isinstance(node, list):
        for i, each in enumerate(node):
            check(each, allowed, f"{path}[{i}]")
    elif isinstance(node, int) and abs(node) > _LARGEST:
        raise ConfigurationError(f"{path}={node} is too large: the largest integer is {_LARGEST}")
    elif isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, allowed, path)
        for key, value in node.items():
            check(value, allowed, f"{path}.{key}" if path else str(key))


def arguments(node: Any, allowed: Iterable[str] = USER_TARGETS) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Yields (node, name, annotation) for all arguments of inkdrop's own targets in a plain configuration."""
    for each in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        yield from arguments(each, allowed)
    if isinstance(node, dict) and "_target_" in node:
        annotations = _annotations(located(node["_target_"], allowed, ""))
        yield from ((node, name, annotations[name]) for name in node if name in annotations)


def _check_call(node: Mapping[str, Any], allowed: Iterable[str], path: str) -> None:
    target = located(node["_target_"], allowed, path)
    if advice := instead(target):
        raise ConfigurationError(f"{path}._target_={node['_target_']} is not available: {advice}")
    parameters = parameters_of(target)
    if [p.kind for p in parameters.values()] == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        parameters = types.MappingProxyType({})  # of a base class that takes none, such as torch's Module
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        check_names(path, given, parameters)
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.KEYWORD_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        )
        if required and not node.get("_partial_") and name not in given:
            raise ConfigurationError(f"{path}.{name} is missing: {node['_target_']} requires it")
    annotations = _annotations(target)
    for key, value in given.items():
        if key in annotations:
            with contextlib.suppress(_Unknown):
                check_value(f"{path}.{key}", annotations[key], _stood_in(value, allowed, f"{path}.{key}"))


def check_names(path: str, given: Iterable[str], parameters: Mapping[str, Any]) -> None:
    for key in given:
        if key not in parameters:
            raise ConfigurationError(unknown_option(f"{path}.{key}", parameters))


@functools.cache
def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """Returns the annotated types of a target's arguments; only the signatures of inkdrop serve as schemas."""
    if not getattr(target, "__module__", "").startswith("inkdrop."):
        return {}
    # The annotations that a dataclass inherits are resolved in the modules of its bases.
    described = target.__init__ if inspect.isclass(target) and not dataclasses.is_dataclass(target) else target
    return typing.get_type_hints(described, include_extras=True)


class _Unknown(Exception):
    """The type of the object that a target returns is not known before it is called."""


def _stood_in(value: Any, allowed: Iterable[str], path: str) -> Any:
    """Returns a value in which each `_target_` is replaced by a dummy object of its class; no target is called."""
    if isinstance(value, list):
        return [_stood_in(each, allowed, f"{path}[{i}]") for i, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {key: _stood_in(each, allowed, f"{path}.{key}") for key, each in value.items()}
    target = located(value["_target_"], allowed, path)
    if value.get("_partial_"):
        return functools.partial(target)
    made = target if inspect.isclass(target) else typing.get_type_hints(target).get("return")
    classes = typing.get_args(made) or (made,)
    if not all(inspect.isclass(each) for each in classes):
        raise _Unknown
    name = " or ".join(each.__name__ for each in classes)
    stand_in = type(name, classes, {"__init__": lambda self: None, "__repr__": lambda self: name})
    stand_in.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    return stand_in()


def check_value(path: str, annotation: Any, value: Any) -> None:
    try:
        _adapter(annotation).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{path}={value}: {reason[0].lower()}{reason[1:]}") from None


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=_STRICT)
