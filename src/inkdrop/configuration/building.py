"""Builds objects from plain configuration, and holds the lists of targets that a user and a checkpoint may name."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from inkdrop.configuration.moved import MOVED
from inkdrop.errors import ConfigurationError

# The user's own configuration may name targets below these packages.
USER_TARGETS = ("inkdrop.", "torch.optim.", "lightning.pytorch.")
# A checkpoint may name the parts of a model, of its data and of its evaluation. Each key is the package or module in
# which parts are defined, and its value lists their kinds. A part is a concrete class of a kind, a function that is
# annotated to return one, or a function with the signature of the kind; where a kind is a function, only that function
# is a part. Building a part opens no file, except for `loaded`, which reads another checkpoint.
KINDS: dict[str, tuple[str, ...]] = {
    "inkdrop.adapters": ("inkdrop.adapters.Adapter",),
    "inkdrop.codecs": (
        *("inkdrop.codecs.Codec", "inkdrop.codecs.Vocabulary", "inkdrop.codecs.word_embedding.Rounding"),
    ),
    "inkdrop.conditioners": ("inkdrop.conditioners.Conditioner",),
    "inkdrop.constraints": (
        *("inkdrop.constraints.Alignment", "inkdrop.constraints.ConstraintFactory"),
        "inkdrop.constraints.Resampling",
    ),
    "inkdrop.data": (
        *("inkdrop.data.DataModule", "inkdrop.data.decoding.Decoder", "inkdrop.data.paired.Paired"),
        *("inkdrop.data.loaders.Augment", "inkdrop.data.loaders.Derive", "inkdrop.data.toys.Draw"),
    ),
    "inkdrop.denoiser": ("inkdrop.denoiser.Denoiser",),
    "inkdrop.deviations": ("inkdrop.deviations.Deviation",),
    "inkdrop.guidance": (
        *("inkdrop.guidance.Guidance", "inkdrop.guidance.Mix", "inkdrop.guidance.Scale"),
        "inkdrop.guidance.gradient.Energy",
    ),
    "inkdrop.likelihood": ("inkdrop.likelihood.Likelihood",),
    "inkdrop.losses": ("inkdrop.losses.coupling.Coupling",),  # of data in pairs
    "inkdrop.models": (
        *("inkdrop.codecs.Codec", "inkdrop.codecs.Vocabulary", "inkdrop.models.ForeignFiles", "inkdrop.models.Model"),
        "inkdrop.models.observations.Observation",
    ),
    "inkdrop.metrics": ("inkdrop.metrics.Evaluation", "inkdrop.metrics.Extractor", "inkdrop.metrics.metric.Metric"),
    "inkdrop.networks": ("torch.nn.Module", "inkdrop.networks.layers.Attend"),
    "inkdrop.noises": ("inkdrop.noises.Noise",),
    "inkdrop.pictures": ("inkdrop.pictures.View",),
    "inkdrop.pipeline": (
        *("inkdrop.pipeline.Pipeline", "inkdrop.pipeline.loaded", "inkdrop.pipeline.embedded"),
        "inkdrop.pipeline.published_autoencoder",
    ),
    "inkdrop.predictions": ("inkdrop.predictions.Prediction",),
    "inkdrop.samplers": (
        *("inkdrop.samplers.Sampler", "inkdrop.samplers.coordinates.Coordinate"),
        "inkdrop.samplers.quadrature.Rule",
    ),
    "inkdrop.schedules": ("inkdrop.schedules.Schedule",),
    "inkdrop.time_grids": ("inkdrop.time_grids.TimeGrid",),
}
CHECKPOINT_TARGETS = tuple(KINDS)
_allowed: ContextVar[tuple[str, ...]] = ContextVar("targets of what is being built", default=())


class TargetError(ValueError):
    """A target is not allowed or does not exist; the message continues a sentence that begins with the target."""


def build(node: Any, allowed: Iterable[str] = USER_TARGETS) -> Any:
    """Builds a plain configuration: nodes with a `_target_` are called, innermost first; the rest stays plain.

    Hydra's own `instantiate` is not used: its partials cost 0.1 ms a call, and it lists the targets that are forbidden
    rather than those that are allowed. Raises `ConfigurationError` for a target that is not allowed.
    """
    allowed = tuple(allowed)
    token = _allowed.set(allowed)
    try:
        return _built(node, allowed)
    finally:
        _allowed.reset(token)


def _built(node: Any, allowed: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_built(each, allowed) for each in node]
    if not isinstance(node, Mapping):
        return node
    arguments = {k: _built(v, allowed) for k, v in node.items() if k not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return arguments
    target = located(node["_target_"], allowed, "")
    return functools.partial(target, **arguments) if node.get("_partial_") else target(**arguments)


def foreign_targets() -> tuple[str, ...]:
    """What the configuration that is being built may name beyond inkdrop and its packages, as the user allowed it."""
    return tuple(each for each in _allowed.get() if each not in (*USER_TARGETS, *KINDS))


def located(name: Any, allowed: Iterable[str], path: str) -> Callable[..., Any]:
    """Does what `locate` does, but raises a `ConfigurationError` that names the place in the configuration."""
    try:
        return locate(name, allowed)
    except TargetError as error:
        raise ConfigurationError(f"{path}._target_={name} {error}") from None


def locate(name: Any, allowed: Iterable[str]) -> Callable[..., Any]:
    """Returns the class or function of an import path; the path and the place of its definition must be allowed.

    Both are checked because a module also has attributes that it has only imported, such as `subprocess.call`.
    `allowed` contains packages, with or without a dot at the end, names, and `KINDS`. Raises `TargetError` for any
    other name, without importing its module.
    """
    allowed, name = tuple(allowed), current(name)
    if not isinstance(name, str) or _is_private(name) or not any(_covers(each, name) for each in allowed):
        raise _refused(allowed)
    module, _, attribute = name.rpartition(".")
    try:
        target: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise TargetError(f"cannot be imported: {error}") from None
    defined = _defined_as(target)
    if not any(_covers(each, name) and _covers(each, defined) and _fits(target, each) for each in allowed):
        raise _refused(allowed)
    return target


def current(name: Any) -> Any:
    """Returns today's import path for one that a file of an earlier version names, and anything else unchanged."""
    for earlier, now in MOVED.items() if isinstance(name, str) else ():
        if name.startswith(f"inkdrop.{earlier}."):
            return f"inkdrop.{now}{name.removeprefix(f'inkdrop.{earlier}')}"
    return name


def checkpoint_parts() -> dict[str, Callable[..., Any]]:
    """Returns all targets that a checkpoint may name, by the name under which each is defined."""
    parts: dict[str, Callable[..., Any]] = {}
    for kind in KINDS:
        for module in _modules(kind):
            for each in vars(module).values():
                name = _defined_as(each)
                if _covers(kind, name) and not _is_private(name) and _fits(each, kind):
                    parts[name] = each
    return parts


def _modules(kind: str) -> Iterator[Any]:
    """Yields the modules of a kind, or the one module that contains it."""
    try:
        package = importlib.import_module(kind)
    except ModuleNotFoundError:
        package = importlib.import_module(kind.rpartition(".")[0])
    yield package
    for each in pkgutil.walk_packages(getattr(package, "__path__", []), f"{package.__name__}."):
        yield importlib.import_module(each.name)


def _refused(allowed: tuple[str, ...]) -> TargetError:
    if set(KINDS) <= set(allowed):
        return TargetError(
            "is not allowed: a checkpoint may name only parts of models, data and evaluations that inkdrop defines; "
            "add your own package by allow_targets=[your_package.] on the command line"
        )
    packages = ", ".join(each.removesuffix(".") for each in allowed)
    return TargetError(
        f"is not allowed: a target must be defined in {packages}; add your own package by "
        "allow_targets=[your_package.] on the command line"
    )


def _covers(entry: str, name: str) -> bool:
    """Returns whether a name equals an entry or lies below it."""
    return name == entry or name.startswith(f"{entry.removesuffix('.')}.")


def _is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


def _defined_as(target: Any) -> str:
    """Returns the name under which a class or function is defined, and an empty string for anything else."""
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        return ""
    return f"{target.__module__}.{target.__qualname__}"


@functools.cache
def _fits(target: Any, entry: str) -> bool:
    """Returns whether a class or function is a part of the kind that an entry names, or True for other entries."""
    members = [_imported(name) for name in KINDS.get(entry, ())]
    classes = tuple(each for each in members if inspect.isclass(each))
    if inspect.isclass(target):
        return not members or (issubclass(target, classes) and not _unfinished(target))
    if not members or target in members:
        return True
    if any(inspect.isroutine(each) for each in members):
        return False
    try:
        hints = typing.get_type_hints(target)
    except NameError:  # a type that only type checkers import is none of the kinds
        return False
    returned = hints.get("return")
    own = tuple(each for each in classes if each.__module__.startswith("inkdrop."))  # helpers return modules of torch
    if inspect.isclass(returned) and issubclass(returned, own):
        return True
    parameters = parameters_of(target)
    required = [hints.get(name) for name, each in parameters.items() if each.default is each.empty]
    calls = [typing.get_args(each) for each in members if typing.get_origin(each) is Callable]
    return (required, returned) in calls


@functools.cache  # of a class of torch it takes a millisecond
def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a target by name."""
    return inspect.signature(target).parameters


def _imported(name: str) -> Any:
    """Returns the object of an import path, at any depth in its module."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            return functools.reduce(getattr, parts[length:], importlib.import_module(".".join(parts[:length])))
    raise AssertionError(name)


def _unfinished(target: type) -> bool:
    """Returns whether a class has an abstract method."""
    return any(getattr(getattr(target, name, None), "__isabstractmethod__", False) for name in dir(target))
