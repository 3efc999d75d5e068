"""Schedule and prediction of a `scheduler_config.json` of diffusers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Len, Lt

from inkdrop.commands.train.published.choices import choice
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.schedules import Table, cosine, linear_beta, scaled_linear

NAME = "scheduler_config.json"
_FLOW = "FlowMatchEulerDiscreteScheduler"
# Schedulers of a chain of betas, whose defaults are those of DDPM.
_CHAINS = (
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DEISMultistepScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
    "LMSDiscreteScheduler",
)
_PREDICTIONS = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}
_SCHEDULES = {"linear": "linear_beta", "scaled_linear": "scaled_linear", "sigmoid": "sigmoid_beta"}
_COSINE = "squaredcos_cap_v2"
_Beta = Annotated[float, Gt(0), Lt(1)]
_FIELDS: dict[str, Any] = {
    "num_train_timesteps": Annotated[int, Ge(1), Le(10**6)],
    **dict.fromkeys(("beta_start", "beta_end"), _Beta),
    "trained_betas": Annotated[list[_Beta], Len(1, 10**6)] | None,
    "rescale_betas_zero_snr": bool,
    **dict.fromkeys(("beta_schedule", "prediction_type", "_class_name"), str),
}


def schedule_and_prediction(path: str, folder: Path, chosen: Collection[str]) -> dict[str, Any]:
    """Returns the parts of the folder's scheduler; none if there is no file of it and the user has chosen them.

    Raises `ValueError` for a scheduler that has no counterpart, and `ConfigurationError` for missing choices.
    """
    places = [each for each in (folder / "scheduler" / NAME, folder / NAME) if each.is_file()]
    if not places:
        if missing := [name for name in ("schedule", "prediction") if name not in chosen]:
            choices = " and ".join(f"{each}=..." for each in missing)
            raise ConfigurationError(f"base={harmless(path)} has no scheduler/{NAME}: choose {choices}")
        return {}
    config = read_json(places[0], error=CheckpointError)
    if (wrong := wrong_field(config, _FIELDS)) is not None:
        raise ValueError(f"{NAME}: {wrong}")
    if (kind := config.get("_class_name")) == _FLOW:
        return _flow(config)
    if kind not in _CHAINS:
        raise ValueError(
            f"the scheduler is a {harmless(kind)}, which is not supported (available: {', '.join((*_CHAINS, _FLOW))})"
        )
    if (predicted := config.get("prediction_type", "epsilon")) not in _PREDICTIONS:
        raise ValueError(
            f"{NAME} has prediction_type={harmless(predicted)}, which is not supported (available: "
            f"{', '.join(_PREDICTIONS)})"
        )
    schedule = _chain(config)
    if config.get("rescale_betas_zero_snr"):
        schedule = {**choice("schedule", "zero_terminal_snr"), "schedule": schedule}
    return {"schedule": schedule, "prediction": choice("prediction", _PREDICTIONS[predicted])}


def _flow(config: Mapping[str, Any]) -> dict[str, Any]:
    """The straight path, whose times are those of SD3; a shift is a matter of the times of sampling."""
    if config.get("num_train_timesteps", 1000) != 1000 or config.get("invert_sigmas"):
        raise ValueError(f"{NAME} has other times than {_FLOW} by default, which is not supported")
    parts = {"schedule": choice("schedule", "linear"), "prediction": choice("prediction", "flow")}
    return {**parts, "time_sampler": choice("time_sampler", "logit_normal")}


def _chain(config: Mapping[str, Any]) -> dict[str, Any]:
    if (betas := config.get("trained_betas")) is not None:
        return _named(betas)
    count, kind = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    if kind == _COSINE:
        return {**choice("schedule", "cosine"), "num_timesteps": count}
    if kind not in _SCHEDULES:
        raise ValueError(
            f"{NAME} has beta_schedule={harmless(kind)}, which is not supported (available: "
            f"{', '.join((*_SCHEDULES, _COSINE))})"
        )
    ends = {"beta_start": config.get("beta_start", 1e-4), "beta_end": config.get("beta_end", 0.02)}
    return {**choice("schedule", _SCHEDULES[kind]), "num_timesteps": count, **ends}


def _named(betas: list[float]) -> dict[str, Any]:
    """The schedule of a list of betas, by its name if it has one."""
    values, count = torch.tensor(betas, dtype=torch.float64), len(betas)
    first, last = (float(f"{each:.9g}") for each in (betas[0], betas[-1]))
    ends = {"beta_start": first, "beta_end": last}
    tried: list[tuple[Any, str, dict[str, Any]]] = [(cosine, "cosine", {})]
    if first <= last:
        tried += [(linear_beta, "linear_beta", ends), (scaled_linear, "scaled_linear", ends)]
    for make, name, options in tried:
        made: Table = make(count, **options)
        if torch.allclose(made.betas, values, rtol=1e-6, atol=0):
            return {**choice("schedule", name), "num_timesteps": count, **options}
    return {"_target_": "inkdrop.schedules.Table", "betas": betas}
