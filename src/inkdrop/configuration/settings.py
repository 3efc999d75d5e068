"""Types and ranges of the options of train.yaml and sample.yaml that no signature of inkdrop describes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import AfterValidator

from inkdrop.averaging import LONGEST
from inkdrop.configuration.lightning_options import OPTIONS
from inkdrop.configuration.schema import check_names, check_value
from inkdrop.errors import ConfigurationError
from inkdrop.randomness import MAX_SEED


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._=-]{1,120}", name) or name in (".", ".."):
        raise ValueError("a name must have 1 to 120 of the characters A-Z a-z 0-9 . _ = - and must not be . or ..")
    return name


def _check_part(node: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in node:
        raise ValueError("_target_, the class of this part, is missing")
    return node


_MAPPING = dict[str, Any]

_PART = Annotated[dict[str, Any], AfterValidator(_check_part)]

SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("adapter", "guidance", "time_grid"), _MAPPING | None),
    **dict.fromkeys(("data", "optimizer", "pipeline", "scheduler", "task"), _PART),
    **dict.fromkeys(("evaluation", "extractor", "origin", "sampler", "view"), _PART | None),
    **dict.fromkeys(("callbacks", "derive", "likelihood", "logger", "metric"), dict[str, _PART] | None),
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
    "channels_last": bool | None,
    "output_dir": str,
    **dict.fromkeys(("base", "init_from"), str | None),
    "resume": Literal["auto", "must", "never"],
    "resume_allow": list[str],
    "run_id": str | None,
    "timeout_minutes": Annotated[float, Gt(0)],
    "objective": str | list[str] | None,
    "checkpoint": str,
    "weights": str | float,
    "repeats": Annotated[int, Ge(1)],
    "ema": dict[Literal["length", "step"], Any],
    "ema.length": Annotated[float, Gt(0), Le(LONGEST)] | None,
    "ema.step": Annotated[int, Ge(1)] | None,
    "num_samples": Annotated[int, Ge(1), Le(10_000_000)],
    "batch_size": Annotated[int, Ge(1)],
    "cascade": list[dict[str, Any]],
    "adapter.scale": Annotated[float, Ge(0)] | Literal["as_run"],
    "adapter.interval": Annotated[list[Annotated[float, Ge(0)]], Len(2, 2)] | Literal["as_run"] | None,
    "adapters": list[dict[str, Any]],
    **dict.fromkeys(("save_images", "save_stages", "save_noise"), bool),
    **dict.fromkeys(("save_gif", "save_trajectory", "save_neighbours", "save_features"), bool),
    "evaluate": bool,
    "held_out": str | None,
    "per_item": Annotated[int, Ge(1)] | None,
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
    "trainer.overfit_batches": Annotated[int, Ge(0)],
    "trainer.limit_val_batches": Annotated[int, Ge(0)] | Annotated[float, Ge(0), Le(1)] | None,
    "trainer.gradient_clip_algorithm": Literal["norm", "value"] | None,
    "trainer.deterministic": bool | Literal["warn"] | None,
    "trainer.profiler": Literal["simple", "advanced"] | None,
    **dict.fromkeys(("trainer.enable_progress_bar", "trainer.benchmark", "trainer.sync_batchnorm"), bool | None),
    **dict.fromkeys(("trainer.inference_mode", "trainer.detect_anomaly"), bool),
    "optimizer.lr": Annotated[float, Ge(0)],
}

_ABSENT = object()


def check_settings(config: Mapping[str, Any]) -> None:
    """Checks the options that belong to no target of inkdrop; raises `ConfigurationError` for the first wrong one."""
    for name, annotation in SETTINGS.items():
        node: Any = config
        for part in name.split("."):
            node = node.get(part, _ABSENT) if isinstance(node, Mapping) else _ABSENT
        if node is not _ABSENT:
            check_value(name, annotation, node)
    if "lr" not in config.get("optimizer", {"lr": None}):
        raise ConfigurationError("optimizer.lr is missing: the learning-rate schedule requires it")
    if (trainer := config.get("trainer")) is not None:
        from lightning.pytorch import Trainer

        for name in trainer:
            if name in OPTIONS:
                raise ConfigurationError(f"trainer.{name} is not available: {OPTIONS[name]}")
        options = inspect.signature(Trainer).parameters
        check_names("trainer", trainer, {name: each for name, each in options.items() if name not in OPTIONS})
