"""What a checkpoint holds, and how older versions of it become the present one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.conditioners.attributes import UNKNOWN
from inkdrop.files.fields import wrong_field
from inkdrop.files.tensors import tensors

FORMAT = 5

Content = dict[str, Any]


def _from_0(content: Content) -> Content:
    """Files from before the format had a number."""
    return {"format": 1, "world_size": 1, "metrics": {}, **content}


def _from_1(content: Content) -> Content:
    """An evaluation was the Fréchet distance alone, and an extractor was called by the name of that."""
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
    """Heun's method was a class."""

    def renamed(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: renamed(value) for key, value in node.items()}
        return "inkdrop.samplers.heun" if node == "inkdrop.samplers.Heun" else node

    return {**content, "format": 3, "config": renamed(content["config"])}


def _from_3(content: Content) -> Content:
    """A run counted the batches that it had seen instead of their samples."""

    def counted(state: Any) -> Any:
        if not isinstance(state, dict) or "num_batches_seen" not in state:
            return state
        return {"num_samples_seen": state["num_batches_seen"] * content["config"]["data"]["batch_size"]}

    return {**{name: counted(part) for name, part in content.items()}, "format": 4}


def _from_4(content: Content) -> Content:
    """A conditioner of attributes saw the numbers as they are, and knew no range."""
    state = dict(content["state_dict"])
    for name in [name for name in state if re.search(r"\bconditioner\.(.*\.)?absent$", name)]:
        prefix = name.removesuffix("absent")
        (count,) = state[f"{prefix}map.0.weight"].shape[1:]
        for statistic, value in UNKNOWN.items():
            state[prefix + statistic] = torch.full((count,), value)
    return {**content, "format": 5, "state_dict": state}


# What inkdrop itself reads of a checkpoint, and of what type it is; the rest is Lightning's.
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
    "callbacks": dict[str, dict[str, Any]],
    "hyper_parameters": dict[str, Any] | None,
    "datamodule_hyper_parameters": dict[str, Any] | None,
    "optimizer_states": list[dict[str, Any]],
    "lr_schedulers": list[dict[str, Any]],
    "loops": dict[str, dict[str, Any]],
}
# From a version to the next.
MIGRATIONS: dict[int, Callable[[Content], Content]] = dict(enumerate([_from_0, _from_1, _from_2, _from_3, _from_4]))
PREFIXES = ("_orig_mod.", "module.")  # of compiled networks, and of networks on several devices
IMPORTS = ("_instantiator", "_class_path")  # by which Lightning would import what a file names


def migrated(content: Any) -> Content:
    """The content of a file in the present version.

    `ValueError` completes "FILE ..." with what is wrong with it.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(k), dict) for k in ("state_dict", "config")):
        raise ValueError(f"is no checkpoint of inkdrop: {_kind(content)}")
    version = content.get("format", 0)
    if type(version) is not int or version not in range(FORMAT + 1):
        raise ValueError(f"has version {version} of the format, and the newest known is {FORMAT}: update inkdrop")
    if (wrong := wrong_field(content, FIELDS)) is not None:
        raise ValueError(f"is no checkpoint of inkdrop: {wrong}")
    try:
        for number in range(version, FORMAT):
            content = MIGRATIONS[number](content)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"is no checkpoint of inkdrop: its configuration is none of version {version}") from None
    for options in (content.get(f"{prefix}hyper_parameters") or {} for prefix in ("", "datamodule_")):
        if named := [name for name in IMPORTS if name in options]:
            raise ValueError(f"is no checkpoint of inkdrop: it names what to import, in {named[0]}")
    content["state_dict"] = _plain_names(content["state_dict"])
    content["ema"] = {decay: _plain_names(average) for decay, average in content.get("ema", {}).items()}
    content["trainable"] = list(_plain_names(dict.fromkeys(content.get("trainable", []))))
    for decay, average in content["ema"].items():
        if missing := [name for name in content["trainable"] if name not in average]:
            raise ValueError(f"lacks {missing[0]} in the average of decay {decay}")
    if (wrong := not_finite(content)) is not None:
        raise ValueError(f"holds numbers that are not finite, in {wrong}")
    return content


def _kind(content: Any) -> str:
    if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
        return "it holds weights alone, without the configuration of their model"
    return f"it lacks the configuration of a model, and is a {type(content).__name__}"


def _plain_names(state: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in PREFIXES:
        state = {name.removeprefix(prefix).replace(f".{prefix}", "."): value for name, value in state.items()}
    return dict(state)


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(value.isfinite().all())


def snapshot(node: Any) -> Any:
    """A copy on the CPU that training does not change any more."""
    if isinstance(node, Tensor):
        return node.detach().to("cpu", copy=True)
    if isinstance(node, Mapping):
        return {key: snapshot(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(snapshot(value) for value in node)
    return node


def num_bytes(content: Content) -> int:
    """Size of all tensors."""
    return sum(value.numel() * value.element_size() for _, value in tensors(content))


def not_finite(content: Content) -> str | None:
    """The first learned weight, average or number of the optimizer that is not finite; constants may be."""
    state: dict[str, Tensor] = content["state_dict"]
    weights = {name: state[name] for name in content.get("trainable") or state if name in state}
    parts = {"weights": weights, "ema": content.get("ema"), "optimizer": content.get("optimizer_states")}
    return next((name for name, value in tensors(parts) if not _finite(value)), None)


def require_fit(found: Mapping[str, Tensor], own: Mapping[str, Tensor], types: bool = False) -> None:
    """`ValueError` with the names and shapes, and on wish types, that differ between a file's weights and a model's."""
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
    """The state of the pipeline in a checkpoint: `raw`, `ema` for the first average, or an average by its name.

    `ValueError` names what there is.
    """
    state = dict(content["state_dict"])
    averages = content.get("ema", {})
    if weights != "raw":
        chosen = next(iter(averages), None) if weights == "ema" else str(weights)
        if chosen not in averages:
            raise ValueError(
                f"weights={weights} is not in the checkpoint: it has raw, {', '.join(averages) or 'no EMA'}"
            )
        state.update(averages[chosen])
    prefix = "pipeline."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
