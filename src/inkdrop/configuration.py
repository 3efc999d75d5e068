"""From plain configuration to objects: which targets are allowed, whether the values fit, and the building.

A node with `_target_` names a class or function by its import path; the other keys are its arguments, and its signature
with the ranges annotated in it is the schema. `_partial_: true` makes a `functools.partial` of it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from inkdrop.averaging import LONGEST
from inkdrop.lightning_options import OPTIONS, instead
from inkdrop.randomness import MAX_SEED
from inkdrop.suggestions import no_option
from inkdrop.targets import CHECKPOINT_TARGETS, USER_TARGETS, TargetError, locate


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._=-]{1,120}", name) or name in (".", ".."):
        raise ValueError("a name has 1 to 120 of the characters A-Z a-z 0-9 . _ = - and is neither . nor ..")
    return name


def _check_part(node: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in node:
        raise ValueError("a part names its class as _target_, which is missing here")
    return node


__all__ = [
    "CHECKPOINT_TARGETS",
    "USER_TARGETS",
    "ConfigurationError",
    "arguments",
    "build",
    "check",
    "check_settings",
]

_MAPPING = dict[str, Any]
_PART = Annotated[dict[str, Any], AfterValidator(_check_part)]
# Options of train.yaml and sample.yaml that no signature of inkdrop's describes.
SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("guidance", "time_grid"), _MAPPING | None),
    **dict.fromkeys(("data", "optimizer", "pipeline", "scheduler", "task"), _PART),
    **dict.fromkeys(("evaluation", "extractor", "sampler"), _PART | None),
    **dict.fromkeys(("callbacks", "likelihood", "logger", "metric"), dict[str, _PART] | None),
    "trainer": _MAPPING,
    "name": Annotated[str, AfterValidator(_check_name)],
    "seed": Annotated[int, Ge(0), Le(MAX_SEED)],
    "num_trajectories": Annotated[int, Ge(1)] | None,
    "refinement": Annotated[int, Ge(2)],
    "memory": Annotated[int, Ge(1)],
    "num_rounds": Annotated[int, Ge(1)],
    "device": str,
    "compile": bool,
    "checkpoint_activations": bool,
    "cuda_graphs": bool,
    "channels_last": bool,
    "output_dir": str,
    "init_from": str | None,
    "resume": Literal["auto", "must", "never"],
    "resume_allow": list[str],
    "run_id": str | None,
    "timeout_minutes": Annotated[float, Gt(0)],
    "objective": str | None,
    "checkpoint": str,
    "weights": str | float,
    "repeats": Annotated[int, Ge(1)],
    "ema": dict[Literal["length", "step"], Any],
    "ema.length": Annotated[float, Gt(0), Le(LONGEST)] | None,
    "ema.step": Annotated[int, Ge(1)] | None,
    "num_samples": Annotated[int, Ge(1), Le(10_000_000)],
    "batch_size": Annotated[int, Ge(1)],
    "interpolate": Annotated[list[Annotated[int, Ge(0), Le(MAX_SEED)]], Len(2, 2)] | None,
    "reconstruct": bool,
    "save_images": bool,
    **dict.fromkeys(("save_gif", "save_trajectory", "save_neighbours", "save_features"), bool),
    "evaluate": bool,
    "condition": dict[str, Any],
    "allow_targets": list[str],
    "data_folders": list[str],
    # Lightning's signatures state no ranges.
    "trainer.max_steps": Annotated[int, Ge(0)],
    "trainer.devices": Annotated[int, Ge(1)] | list[int] | Literal["auto"],
    "trainer.precision": Literal["32-true", "bf16-mixed", "16-mixed"],
    "trainer.accumulate_grad_batches": Annotated[int, Ge(1)],
    "trainer.gradient_clip_val": Annotated[float, Ge(0)] | None,
    "trainer.log_every_n_steps": Annotated[int, Ge(1)],
    "trainer.val_check_interval": Annotated[int, Ge(1)] | None,
    "trainer.accelerator": str,
    "trainer.strategy": Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"],
    "trainer.num_nodes": Annotated[int, Ge(1)],
    "trainer.limit_val_batches": Annotated[int, Ge(0)] | Annotated[float, Ge(0), Le(1)] | None,
    "trainer.gradient_clip_algorithm": Literal["norm", "value"] | None,
    "trainer.deterministic": bool | Literal["warn"] | None,
    "trainer.profiler": Literal["simple", "advanced"] | None,
    **dict.fromkeys(("trainer.enable_progress_bar", "trainer.benchmark", "trainer.sync_batchnorm"), bool | None),
    **dict.fromkeys(("trainer.inference_mode", "trainer.detect_anomaly"), bool),
    "optimizer.lr": Annotated[float, Ge(0)],
}

_ABSENT = object()
_LARGEST = 2**63 - 1  # of a tensor
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


class ConfigurationError(ValueError):
    """A value, key or target in the configuration is wrong; the message names it and what is allowed."""


def check(node: Any, allowed: Iterable[str] = USER_TARGETS, path: str = "") -> None:
    """Checks a plain configuration all the way down before anything of it is built.

    `ConfigurationError` for a target that is not allowed or does not exist, an argument it does not have or that is
    missing, and a value of the wrong type or outside its range. No module is imported for a target not allowed.
    """
    if isinstance(node, list):
        for i, each in enumerate(node):
            check(each, allowed, f"{path}[{i}]")
    elif isinstance(node, int) and abs(node) > _LARGEST:
        raise ConfigurationError(f"{path}={node} is beyond the largest whole number, {_LARGEST}")
    elif isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, allowed, path)
        for key, value in node.items():
            check(value, allowed, f"{path}.{key}" if path else str(key))


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks the options that belong to no target of inkdrop's; `ConfigurationError` names the first that is wrong."""
    for name, annotation in SETTINGS.items():
        node: Any = config
        for part in name.split("."):
            node = node.get(part, _ABSENT) if isinstance(node, Mapping) else _ABSENT
        if node is not _ABSENT:
            _check_value(name, annotation, node)
    if "lr" not in config.get("optimizer", {"lr": None}):
        raise ConfigurationError("optimizer.lr is missing: the schedule of the learning rate needs it")
    if (trainer := config.get("trainer")) is not None:
        from lightning.pytorch import Trainer

        for name in trainer:
            if name in OPTIONS:
                raise ConfigurationError(f"trainer.{name} is not available: {OPTIONS[name]}")
        options = inspect.signature(Trainer).parameters
        _check_names("trainer", trainer, {name: each for name, each in options.items() if name not in OPTIONS})


def build(node: Any, allowed: Iterable[str] = USER_TARGETS) -> Any:
    """Builds a plain configuration: what has a `_target_` is called, innermost first; the rest stays plain.

    Hydra's own `instantiate` is not used: its partials cost 0.1 ms a call, and its list of targets is one of the
    forbidden, not of the allowed. `ConfigurationError` for a target that is not allowed.
    """
    if isinstance(node, list):
        return [build(each, allowed) for each in node]
    if not isinstance(node, Mapping):
        return node
    arguments = {k: build(v, allowed) for k, v in node.items() if k not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return arguments
    target = _locate(node["_target_"], allowed, "")
    return functools.partial(target, **arguments) if node.get("_partial_") else target(**arguments)


def arguments(node: Any, allowed: Iterable[str] = USER_TARGETS) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """All arguments of inkdrop's own targets in a plain configuration: where each stands, its name, its annotation."""
    for each in node if isinstance(node, list) else node.values() if isinstance(node, dict) else ():
        yield from arguments(each, allowed)
    if isinstance(node, dict) and "_target_" in node:
        annotations = _annotations(_locate(node["_target_"], allowed, ""))
        yield from ((node, name, annotations[name]) for name in node if name in annotations)


def _locate(name: Any, allowed: Iterable[str], path: str) -> Callable[..., Any]:
    try:
        return locate(name, allowed)
    except TargetError as error:
        raise ConfigurationError(f"{path}._target_={name} {error}") from None


def _check_call(node: Mapping[str, Any], allowed: Iterable[str], path: str) -> None:
    target = _locate(node["_target_"], allowed, path)
    if advice := instead(target):
        raise ConfigurationError(f"{path}._target_={node['_target_']} is not available: {advice}")
    parameters = inspect.signature(target).parameters
    if [p.kind for p in parameters.values()] == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        parameters = types.MappingProxyType({})  # of a base class that takes none, such as torch's Module
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        _check_names(path, given, parameters)
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.KEYWORD_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        )
        if required and not node.get("_partial_") and name not in given:
            raise ConfigurationError(f"{path}.{name} is missing: {node['_target_']} needs it")
    annotations = _annotations(target)
    for key, value in given.items():
        if key in annotations:
            with contextlib.suppress(_Unknown):
                _check_value(f"{path}.{key}", annotations[key], _stood_in(value, allowed, f"{path}.{key}"))


def _check_names(path: str, given: Iterable[str], parameters: Mapping[str, Any]) -> None:
    for key in given:
        if key not in parameters:
            raise ConfigurationError(no_option(f"{path}.{key}", parameters))


@functools.cache
def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotated types of a target's arguments; only inkdrop's own are schemas."""
    if not getattr(target, "__module__", "").startswith("inkdrop."):
        return {}
    function = target.__init__ if inspect.isclass(target) else target
    return typing.get_type_hints(function, include_extras=True)


class _Unknown(Exception):
    """Nobody can say what a target makes before it is called."""


def _stood_in(value: Any, allowed: Iterable[str], path: str) -> Any:
    """A value in which an object of the right class stands for each `_target_`; none of them is called."""
    if isinstance(value, list):
        return [_stood_in(each, allowed, f"{path}[{i}]") for i, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {key: _stood_in(each, allowed, f"{path}.{key}") for key, each in value.items()}
    target = _locate(value["_target_"], allowed, path)
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


def _check_value(path: str, annotation: Any, value: Any) -> None:
    try:
        _adapter(annotation).validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{path}={value}: {said[0].lower()}{said[1:]}") from None


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=_STRICT)
