"""The content of a checkpoint, and the migration of older versions to the present one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.conditioners.attributes import UNKNOWN
from inkdrop.configuration.moved import renamed
from inkdrop.files.fields import wrong_field
from inkdrop.files.tensors import tensors

FORMAT = 6

Content = dict[str, Any]


def _from_0(content: Content) -> Content:
    """Migrates files from before the format had a version."""
    return {"format": 1, "world_size": 1, "metrics": {}, **content}


def _from_1(content: Content) -> Content:
    """Migrates an evaluation that was only the Fréchet distance, with an extractor named after it."""
    config = content["config"]
    evaluation = config.get("evaluation")
    if evaluation is not None and "metrics" not in evaluation:
        extractor = dict(evaluation["extractor"])
        if "metric" in extractor:
            extractor["name"] = extractor.pop("metric").removeprefix("fd_")
        metrics = {"frechet": {"_target_": "inkdrop.metrics.FrechetDistance", "min_samples": 2}}
        config = {**config, "evaluation": {**evaluation, "extractor": extractor, "metrics": metrics}}
    return {**content, "format": 2, "config": config}


def _from_2(content: Content) -> Content:
    """Migrates Heun's method, which was a class."""

    def renamed(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: renamed(value) for key, value in node.items()}
        return "inkdrop.samplers.heun" if node == "inkdrop.samplers.Heun" else node

    return {**content, "format": 3, "config": renamed(content["config"])}


def _from_3(content: Content) -> Content:
    """Migrates the count of batches to a count of samples."""

    def counted(state: Any) -> Any:
        if not isinstance(state, dict) or "num_batches_seen" not in state:
            return state
        return {"num_samples_seen": state["num_batches_seen"] * content["config"]["data"]["batch_size"]}

    return {**{name: counted(part) for name, part in content.items()}, "format": 4}


def _from_4(content: Content) -> Content:
    """Migrates a conditioner of attributes, which used raw numbers and had no statistics."""
    state = dict(content["state_dict"])
    for name in [name for name in state if re.search(r"\bconditioner\.(.*\.)?absent$", name)]:
        prefix = name.removesuffix("absent")
        (count,) = state[f"{prefix}map.0.weight"].shape[1:]
        for statistic, value in UNKNOWN.items():
            state[prefix + statistic] = torch.full((count,), value)
    return {**content, "format": 5, "state_dict": state}


def _from_5(content: Content) -> Content:
    """Migrates the name of the guide that clips, also in the models within."""
    parts: Content = {name: renamed(content[name]) for name in ("config", "models") if name in content}
    return {**content, "format": 6, **parts}


# The fields of a checkpoint that inkdrop itself reads, and their types; the others belong to Lightning.
FIELDS: dict[str, Any] = {
    "config": dict[str, Any],
    "state_dict": dict[str, Tensor],
    "ema": dict[str, dict[str, Tensor]],
    "trainable": list[str],
    "global_step": Annotated[int, Ge(0)],
    "world_size": Annotated[int, Ge(1)],
    "skipped_steps": Annotated[int, Ge(0)],
    "metrics": dict[str, float],
    "latest": dict[str, float],
    "logged": dict[str, int],
    "facts": dict[str, Any],
    "data_fingerprint": str,
    "classes": list[str],
    "models": dict[str, dict[str, Any]],
    "callbacks": dict[str, dict[str, Any]],
    "hyper_parameters": dict[str, Any] | None,
    "datamodule_hyper_parameters": dict[str, Any] | None,
    "optimizer_states": list[dict[str, Any]],
    "lr_schedulers": list[dict[str, Any]],
    "loops": dict[str, dict[str, Any]],
}
# Each migrates from its version to the next.
MIGRATIONS: dict[int, Callable[[Content], Content]] = dict(
    enumerate([_from_0, _from_1, _from_2, _from_3, _from_4, _from_5])
)
PREFIXES = ("_orig_mod.", "module.")  # of compiled networks, and of networks on several devices
IMPORTS = ("_instantiator", "_class_path")  # Lightning would import what a file names here


def migrated(content: Any) -> Content:
    """Returns the content of a file in the present version of the format.

    Raises `ValueError` with what is wrong, to follow the name of the file in a sentence.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(k), dict) for k in ("state_dict", "config")):
        raise ValueError(f"is not an inkdrop checkpoint: {_kind(content)}")
    version = content.get("format", 0)
    if type(version) is not int or version not in range(FORMAT + 1):
        raise ValueError(f"has version {version} of the format, but the newest known is {FORMAT}: update inkdrop")
    if (wrong := wrong_field(content, FIELDS)) is not None:
        raise ValueError(f"is not an inkdrop checkpoint: {wrong}")
    try:
        for number in range(version, FORMAT):
            content = MIGRATIONS[number](content)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"is not an inkdrop checkpoint: its configuration is not of version {version}") from None
    for options in (content.get(f"{prefix}hyper_parameters") or {} for prefix in ("", "datamodule_")):
        if named := [name for name in IMPORTS if name in options]:
            raise ValueError(f"is not an inkdrop checkpoint: it names code to import, in {named[0]}")
    content["state_dict"] = _plain_names(content["state_dict"])
    content["ema"] = {decay: _plain_names(average) for decay, average in content.get("ema", {}).items()}
    content["trainable"] = list(_plain_names(dict.fromkeys(content.get("trainable", []))))
    for decay, average in content["ema"].items():
        if missing := [name for name in content["trainable"] if name not in average]:
            raise ValueError(f"lacks {missing[0]} in the average of decay {decay}")
    if (wrong := not_finite(content)) is not None:
        raise ValueError(f"contains numbers that are not finite, in {wrong}")
    return content


def _kind(content: Any) -> str:
    if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
        return "it contains only weights, without the configuration of their model"
    return f"it lacks the configuration of a model, and is a {type(content).__name__}"


def _plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state without the prefixes of what was wrapped as a whole: all of it, or a network.

    A part of a model may be called `module` too, and keeps its name.
    """
    for prefix in 2 * PREFIXES:  # one within the other, in either order
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        networks = {name.partition(".network.")[0] for name in state if ".network." in name}
        for place in (f"{each}.network." for each in networks):
            below = [name for name in state if name.startswith(place)]
            if all(name.startswith(f"{place}{prefix}") for name in below):
                state = {name.replace(f"{place}{prefix}", place): value for name, value in state.items()}
    return dict(state)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def snapshot(node: Any) -> Any:
    """Returns a copy on the CPU that training no longer changes."""
    if isinstance(node, Tensor):
        return node.detach().to("cpu", copy=True)
    if isinstance(node, Mapping):
        return {key: snapshot(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(snapshot(value) for value in node)
    return node


def num_bytes(content: Content) -> int:
    """Returns the size of all tensors in bytes."""
    return sum(value.numel() * value.element_size() for _, value in tensors(content))


def not_finite(content: Content) -> str | None:
    """Returns the name of the first weight, average or optimizer state that is not finite; constants are ignored."""
    state: dict[str, Tensor] = content["state_dict"]
    weights = {name: state[name] for name in content.get("trainable") or state if name in state}
    parts = {"weights": weights, "ema": content.get("ema"), "optimizer": content.get("optimizer_states")}
    return next((name for name, value in tensors(parts) if not _finite(value)), None)


def require_fit(found: Mapping[str, Tensor], own: Mapping[str, Tensor], types: bool = False) -> None:
    """Raises `ValueError` with the names, shapes and optionally types that differ between a file and a model."""
    wrong = [f"{name} is missing" for name in own if name not in found]
    wrong += [f"{name} is unknown" for name in found if name not in own]
    for name in own.keys() & found.keys():
        before, now = found[name], own[name]
        if before.shape != now.shape:
            wrong.append(f"{name} is {list(before.shape)} instead of {list(now.shape)}")
        elif types and before.dtype != now.dtype:
            wrong.append(f"{name} is {before.dtype} instead of {now.dtype}")
    if wrong:
        more = f"\n  and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError("the weights do not fit the model:\n  " + "\n  ".join(sorted(wrong)[:5]) + more)


def model_weights(content: Mapping[str, Any], weights: str = "ema") -> dict[str, Tensor]:
    """Returns the state of the pipeline in a checkpoint: `raw`, `ema` for the first average, or an average by name.

    Raises `ValueError` with the available names for an unknown one.
    """
    state = dict(content["state_dict"])
    averages = content.get("ema", {})
    if weights != "raw":
        chosen = next(iter(averages), None) if weights == "ema" else str(weights)
        if chosen not in averages:
            raise ValueError(f"weights={weights} is not in the checkpoint; available: {', '.join(['raw', *averages])}")
        state.update(averages[chosen])
    prefix = "pipeline."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
