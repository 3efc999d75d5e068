"""base=FOLDER: the parts of a model in a folder of diffusers, as the configuration of a run has them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from inkdrop.commands.train.published import conditions, networks, schedules
from inkdrop.commands.train.published.choices import choice
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files import read_json
from inkdrop.files.showing import harmless
from inkdrop.networks.diffusers_format import is_diffusers_folder, place_of

INDEX = "model_index.json"
OPEN = "open"  # parts of which a folder says nothing: they stay as they were composed
# Components of a pipeline that are read, and those that do not change its samples.
_READ = ("unet", "transformer", "scheduler", "vae", "text_encoder", "tokenizer", *conditions.FURTHER)
_WITHOUT_EFFECT = ("safety_checker", "feature_extractor", "image_encoder")


def is_published(path: Path) -> bool:
    """Returns whether a folder holds a pipeline or a network of diffusers."""
    return (path / INDEX).is_file() or is_diffusers_folder(path)


def published_base(path: str, raw: Mapping[str, Any], chosen: Collection[str]) -> dict[str, Any]:
    """Returns the parts of a published model as a run has them, and under `OPEN` the names of all others.

    - `path`: the folder.
    - `raw`: the composed configuration, with unresolved references.
    - `chosen`: the groups that the user or an experiment has chosen.

    Raises `CheckpointError` for what inkdrop does not have, and `ConfigurationError` for what the folder does not say.
    """
    folder = Path(path)
    _check_index(path, folder)
    if (place := place_of(folder)) is None:
        raise CheckpointError(
            f"base={harmless(path)} has no config.json, unet/config.json or transformer/config.json: name the folder "
            "of a diffusion model"
        )
    config = read_json(place / "config.json", error=CheckpointError)
    try:
        parts = _parts(path, folder, place, config, raw, chosen)
    except (CheckpointError, ConfigurationError):
        raise
    except ValueError as error:
        raise CheckpointError(f"base={harmless(path)}: {error}") from None
    return {**parts, OPEN: [name for name in raw if name not in parts or name == "data"]}


def _parts(
    path: str, folder: Path, place: Path, config: Mapping[str, Any], raw: Mapping[str, Any], chosen: Collection[str]
) -> dict[str, Any]:
    kind = networks.kind_of(config, place)
    codec = _codec_of(path, folder, config, chosen)
    shape, x = _shapes(raw, codec, config)
    if codec is not None and "model" in codec:
        codec["model"]["shape"] = shape
    network = networks.network_of(kind, config, x, place / "config.json")
    conditioner = conditions.conditioner_of(path, folder, kind, config, network, chosen)
    parts: dict[str, Any] = {"network": network, "codec": codec, "conditioner": conditioner}
    parts |= {"noise": choice("noise", "gaussian"), "data": {"shape": shape}}
    parts |= schedules.schedule_and_prediction(path, folder, chosen)
    if "schedule" in parts:
        names = ("network", "schedule", "prediction", "noise")
        parts["denoiser"] = {**choice("denoiser", "network"), **{name: parts[name] for name in names}}
    parts = {name: each for name, each in parts.items() if each is not None}
    return {**parts, **_measured(chosen), **_guided(raw, codec, conditioner)}


def _check_index(path: str, folder: Path) -> None:
    """Raises `CheckpointError` for a component of the pipeline that is not supported."""
    if not (folder / INDEX).is_file():
        return
    for name, value in read_json(folder / INDEX, error=CheckpointError).items():
        kind = value[1] if isinstance(value, list) and len(value) == 2 else None
        if kind is not None and name not in (*_READ, *_WITHOUT_EFFECT):
            raise CheckpointError(
                f"base={harmless(path)} has {harmless(name)}, a {harmless(kind)}, which is not supported (available: "
                f"{', '.join(_READ)})"
            )


def _codec_of(path: str, folder: Path, config: Mapping[str, Any], chosen: Collection[str]) -> dict[str, Any] | None:
    """The codec of the folder; None for one that the user has to choose."""
    if (folder / "vae" / "config.json").is_file():
        vae = read_json(folder / "vae" / "config.json", error=CheckpointError)
        if (kind := vae.get("_class_name")) != "AutoencoderKL":
            raise ValueError(f"vae is a {harmless(kind)}, which is not supported (available: AutoencoderKL)")
        scale, shift = vae.get("scaling_factor", 0.18215), vae.get("shift_factor") or 0.0
        for name in ("latents_mean", "latents_std"):
            if vae.get(name) is not None:
                raise ValueError(f"vae has {name}, which is not supported")
        if not all(isinstance(each, int | float) and math.isfinite(each) for each in (scale, shift)) or scale <= 0:
            raise ValueError(f"vae has scaling_factor={harmless(scale)} and shift_factor={harmless(shift)}")
        codec = choice("codec", "latent_published")
        codec["model"]["files"]["path"] = f"{path.rstrip('/')}/vae"
        return {**codec, "scale": float(scale), **({"shift": float(shift)} if shift else {}), "vae": vae}
    if "codec" in chosen:
        return None
    if (channels := config["in_channels"]) not in (1, 3):
        raise ConfigurationError(
            f"base={harmless(path)} has no vae, but a network of {channels} channels: choose codec=latent or "
            "codec=latent_published with the autoencoder of this model"
        )
    return choice("codec", "pixels")


def _shapes(
    raw: Mapping[str, Any], codec: dict[str, Any] | None, config: Mapping[str, Any]
) -> tuple[list[int], list[int]]:
    """The shape of the data, which the user may give, and that of x."""
    vae = codec.pop("vae", None) if codec is not None else None
    given = (raw.get("data") or {}).get("shape")
    if not isinstance(given, list) or not all(type(each) is int for each in given):
        given = None
    factor = networks.factor_of(vae) if vae is not None else 1
    if given is None:
        channels = config["in_channels"] if vae is None else vae.get("in_channels", 3)
        given = [channels, *(factor * each for each in networks.sample_size(config))]
    if vae is None:
        return given, given
    return given, [vae.get("latent_channels", 4), *(each // factor for each in given[1:])]


def _measured(chosen: Collection[str]) -> dict[str, Any]:
    """Measures of images of any size, where the user has chosen none."""
    if {"extractor", "metric"} & set(chosen):
        return {}
    metric = {**choice("metric", "sliced_wasserstein"), **choice("metric", "nearest")}
    return {"extractor": choice("extractor", "thumbnail"), "metric": metric}


def _guided(
    raw: Mapping[str, Any], codec: Mapping[str, Any] | None, conditioner: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The guides of the configuration that act on such a model."""
    left_out = set()
    if codec is None or "model" in codec:
        left_out.add("static_threshold")  # codes have no range
    if conditioner is not None and not conditioner.get("dropout"):
        left_out.add("classifier_free")
    guides = raw.get("guidance") or {}
    return {"guidance": {name: each for name, each in guides.items() if name not in left_out}}
