"""Reports everything that does not fit in a configuration of train.py in one message, with options that fit."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omegaconf.errors import OmegaConfBaseException

from inkdrop.commands.command import Asked
from inkdrop.configuration.compose import raw, resolved
from inkdrop.configuration.suggestions import command, words, written
from inkdrop.errors import InkdropError

if TYPE_CHECKING:
    from inkdrop.commands.train.prepare import PreparedTraining
    from inkdrop.data import DataModule

_WITHOUT = ("data", "evaluation", "hydra", "optimizer", "pipeline", "scheduler", "task", "trainer")
_PARTS = ("codec", "conditioner", "experiment", "extractor", "guidance", "metric", "network")
_LEAST = 2  # fewest samples in a suggested batch


def with_misfits(
    asked: Asked, prepare: Callable[[Asked], PreparedTraining], attempt: Callable[[Asked], PreparedTraining]
) -> PreparedTraining:
    """Returns the run of `prepare`, or adds to its error what else does not fit and options with which `attempt` works.

    The error is left unchanged if it is about a value that the user has typed, on data of inkdrop itself, in a sweep,
    with a base, and in the user's own primary configuration.
    """
    try:
        return prepare(asked)
    except OmegaConfBaseException:  # an error of the file, not of its parts
        raise
    except ValueError as error:
        typed = {_name(each) for each in asked.overrides}
        is_other = (
            asked.in_sweep or asked.name != "train" or asked.config.get("base") is not None
        )  # parts of a base fit
        if is_other or not any(_below(name, {"data"}) for name in typed):
            raise
        try:
            plain = resolved(asked.config)
        except (ValueError, OmegaConfBaseException):
            raise error from None
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # of the attempts
            warnings.simplefilter("ignore")
            _add_misfits(error, asked, plain, attempt)
        raise


def _add_misfits(
    error: ValueError, asked: Asked, plain: Mapping[str, Any], prepare: Callable[[Asked], PreparedTraining]
) -> None:
    """Adds to the error what else does not fit, and a command that passes `prepare`, if there is one."""
    typed = {_name(each) for each in asked.overrides}
    if "_target_" not in (plain.get("data") or ()) or str(error).partition("=")[0].endswith(tuple(typed)):
        return
    try:
        data = _data(plain)
    except (ValueError, OSError):  # without data there is nothing that options could fit
        return
    others = [each for each in dict.fromkeys(_misfits(plain, data)) if each not in str(error)]
    lines = [str(error), *(f"also {each}" for each in others)]
    for keep in (True, False):
        chosen = _fitting(data, typed if keep else set(), "evaluate" in plain["callbacks"] and bool(plain["metric"]))
        replaced = {*chosen} if keep else {*chosen, *_PARTS}
        kept = [each for each in asked.overrides if not _below(_name(each), replaced)]
        tried = [*kept, *(f"{name}={written(value)}" for name, value in chosen.items())]
        if chosen and _passes(asked, tried, prepare):
            lines.append(f"these options fit: {command('train')} {words(tried)}")
            break
    error.args = ("\n".join(lines), *error.args[1:])


def _name(override: str) -> str:
    return override.partition("=")[0].lstrip("~+")


def _below(name: str, names: set[str]) -> bool:
    return any(name == each or name.startswith((f"{each}.", f"{each}@")) for each in names)


def _data(plain: Mapping[str, Any]) -> DataModule:
    from inkdrop.configuration import USER_TARGETS, build, check

    allowed = (*USER_TARGETS, *plain["allow_targets"])
    check(plain["data"], allowed, "data")
    data: DataModule = build(plain["data"], allowed)
    return data


def _misfits(plain: Mapping[str, Any], data: DataModule) -> Iterator[str]:
    """Yields what is wrong with each part by itself and with these data."""
    from inkdrop.configuration import USER_TARGETS, build, check

    allowed, wrong = (*USER_TARGETS, *plain["allow_targets"]), list[Any]()
    for name, node in plain.items():
        if not isinstance(node, Mapping) or name in _WITHOUT or any(_holds(node, each) for each in wrong):
            continue
        try:
            check(node, allowed, name)
            part = build(node, allowed)
            if name in ("codec", "extractor"):
                part.check(data.example())
        except (ValueError, RuntimeError) as error:
            wrong.append(node)
            yield str(error)


def _holds(node: Any, part: Any) -> bool:
    below = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return any(each == part or _holds(each, part) for each in below)


def _fitting(data: DataModule, typed: set[str], measured: bool) -> dict[str, Any]:
    """Returns options that fit data of this kind, without the groups that the user has chosen.

    Without metrics or without an evaluation (`measured`) they measure nothing.
    """
    item, classes = data.example(), data.num_classes > 0
    if not item.is_floating_point() and item.ndim == 4 and item.shape[1] in (1, 3):
        chosen: dict[str, Any] = {"experiment": "photos"}
        if classes:
            chosen |= {
                "conditioner": "label",
                "guidance": ["classifier_free", "static_threshold"],
                "data.num_classes": None,
            }
    elif not item.is_floating_point() and item.ndim == 2:
        chosen = {"experiment": "e2e_masked"}
    else:
        chosen = {
            "prediction": "v",
            "network": "mlp" if item.ndim == 2 else "unet",
            "conditioner": "label" if classes else "none",
            "guidance": ["classifier_free"] if classes else "none",
            "codec": "standardize_channels",
            "extractor": "standardized" if measured else "none",
            "metric": ["sliced_wasserstein"] if measured else "none",
        }
    if (count := data.num_train()) is not None and _LEAST <= count < data.batch_size:
        chosen["data.batch_size"] = 2 ** int(math.log2(count))
    return {name: value for name, value in chosen.items() if name not in typed or name.startswith("data.")}


def _passes(asked: Asked, overrides: list[str], prepare: Callable[[Asked], PreparedTraining]) -> bool:
    with contextlib.suppress(InkdropError, OmegaConfBaseException, ValueError, RuntimeError):
        prepare(replace(asked, config=raw("train", overrides), overrides=overrides)).open.close()
        return True
    return False
