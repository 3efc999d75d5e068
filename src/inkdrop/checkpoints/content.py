"""What a checkpoint holds, and how older versions of it become the present one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

FORMAT = 3

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


MIGRATIONS: dict[int, Callable[[Content], Content]] = {0: _from_0, 1: _from_1, 2: _from_2}  # from a version to the next
PREFIXES = ("_orig_mod.", "module.")  # of compiled networks, and of networks on several devices
IMPORTS = ("_instantiator", "_class_path")  # by which Lightning would import what a file names


def migrated(content: Any, size: int) -> Content:
    """The content of a file of this size in the present version.

    `ValueError` completes "FILE ..." with what is wrong with it.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(k), dict) for k in ("state_dict", "config")):
        raise ValueError(f"is no checkpoint of inkdrop: {_kind(content)}")
    if num_bytes(content) > size:  # a view can repeat one number without end
        raise ValueError("is no checkpoint of inkdrop: its tensors are larger than the file")
    version = content.get("format", 0)
    if type(version) is not int or version not in range(FORMAT + 1):
        raise ValueError(f"has version {version} of the format, and the newest known is {FORMAT}: update inkdrop")
    for options in (content.get(f"{prefix}hyper_parameters") or {} for prefix in ("", "datamodule_")):
        if named := [name for name in IMPORTS if name in options]:
            raise ValueError(f"is no checkpoint of inkdrop: it names what to import, in {named[0]}")
    for number in range(version, FORMAT):
        content = MIGRATIONS[number](content)
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


def tensors(node: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in plain data, with their paths; `ValueError` completes "It ..." for what is neither."""
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            name = f"{path}.{key}" if path else str(key)
            _require_plain(key, name)
            yield from tensors(value, name)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from tensors(value, f"{path}[{number}]")
    elif node is not None:
        _require_plain(node, path)


def _require_plain(node: Any, path: str) -> None:
    if type(node) not in (bool, int, float, str):
        raise ValueError(f"holds a {type(node).__name__} in {path}, where only tensors and plain data may be")


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
