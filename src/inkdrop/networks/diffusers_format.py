"""Weights of our networks in the format of diffusers, both ways.

A published folder holds `config.json` and `diffusion_pytorch_model.safetensors` or `.bin`, at its top or, for the
denoiser of a pipeline, under `unet/` or `transformer/`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from inkdrop.files import read_json
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_published, read_torch
from inkdrop.networks.diffusers_names import layout_of

WEIGHTS = "diffusion_pytorch_model.safetensors"
NUM_CLASSES = "_num_classes"  # in a config.json of ours: how many rows of the table are classes; diffusers skips it
# Classes that diffusers has renamed.
_SINCE = {"Transformer2DModel": "DiTTransformer2DModel"}
# Checkpoints written before 2023 name the layers of attention differently.
_LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _names(network: nn.Module) -> dict[str, str]:
    """Our names of the weights by theirs."""
    layout = layout_of(network)
    rename, names = layout.rename(network), {}
    for key in network.state_dict():
        if (name := rename(key)) is None:
            raise ValueError(
                f"{key} has no counterpart in diffusers' {layout.published}: choose the network of the published model"
            )
        names[name] = key
    return names


def to_diffusers(network: nn.Module, others: Mapping[str, Tensor] = MappingProxyType({})) -> dict[str, Tensor]:
    """Returns the weights of a network under the names of diffusers; raises `ValueError` for parts that it lacks.

    `others` are weights of another part than the network, by their names in diffusers.
    """
    state = network.state_dict()
    weights = {**{name: state[key] for name, key in _names(network).items()}, **others}
    return {**layout_of(network).written(network, weights)}


def names_for_diffusers(network: nn.Module) -> dict[str, str]:
    """Returns the names of diffusers by ours; raises `ValueError` for parts that it lacks."""
    return {key: name for name, key in _names(network).items()}


def rows_for_diffusers(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights (N, *) of layers by the names of diffusers, with the N outputs in its order."""
    return {**layout_of(network).rows(network, weights)}


def config_for_diffusers(network: nn.Module) -> dict[str, Any]:
    """Returns the content of config.json for a network; raises `ValueError` for one that diffusers does not have."""
    layout = layout_of(network)
    return {"_class_name": layout.published, **layout.config(network)}


def from_diffusers(state: Mapping[str, Tensor], network: nn.Module, others: Collection[str] = ()) -> dict[str, Tensor]:
    """Returns a state dict of diffusers under the names of `network`; raises `ValueError` for what does not fit.

    `others` are weights that another part than the network takes; they keep their names.
    """
    theirs = {
        re.sub(r"\b(" + "|".join(_LEGACY) + r")\b", lambda m: _LEGACY[m[1]], str(key)): v for key, v in state.items()
    }
    theirs = {**layout_of(network).arranged(network, theirs)}
    kept = {name: theirs.pop(name) for name in others if name in theirs}
    names, shapes = _names(network), {key: value.shape for key, value in network.state_dict().items()}
    missing, extra = sorted(set(names) - set(theirs)), sorted(set(theirs) - set(names))
    if missing or extra:
        raise ValueError(
            f"the weights do not fit the network: {len(missing)} missing ({harmless(', '.join(missing[:3]))}), "
            f"{len(extra)} unexpected ({harmless(', '.join(extra[:3]))}): choose the network of the published model"
        )
    ours = {names[key]: value for key, value in theirs.items()}
    for key, value in ours.items():
        # Old files keep the linear layers of attention as 1 x 1 convolutions.
        if value.shape != shapes[key] and value.numel() == shapes[key].numel():
            ours[key] = value = value.reshape(shapes[key])
        if value.shape != shapes[key]:
            raise ValueError(
                f"{key} has the shape {tuple(shapes[key])}, but the file has {tuple(value.shape)}: choose the sizes of "
                "the published network"
            )
    return {**ours, **kept}


def check_config(config: Mapping[str, Any], network: nn.Module, path: str | Path) -> None:
    """Raises `ValueError` if a config.json of diffusers states options that this network does not have."""
    layout = layout_of(network)
    name = config.get("_class_name", layout.published)
    if _SINCE.get(name, name) != layout.published:
        raise ValueError(
            f"{harmless(path)} holds a {harmless(name)}, and {layout.choice} is a {layout.published}: choose the "
            "network of the published model"
        )
    expected = layout.config(network)
    for name, value in config.items():
        if name.startswith("_") or name in layout.free or (name == "attn_norm_num_groups" and value is None):
            continue
        here = expected.get(name)
        if value != here and not (name not in expected and value is False):
            raise ValueError(
                f"{harmless(path)} has {harmless(name)}={harmless(value)}, but this network has {here}: choose the "
                "options of the published network"
            )


def _check_heads(config: Mapping[str, Any], network: nn.Module, path: Path) -> None:
    ours, theirs = layout_of(network).heads(network, config)
    if ours != theirs:
        raise ValueError(
            f"{harmless(path)} has {harmless(theirs)} attention heads, but this network has {ours}: choose "
            "network.num_heads or network.head_dim of the published network"
        )


def is_diffusers_folder(path: Path) -> bool:
    """Returns whether `path`, `path/unet` or `path/transformer` holds a published network."""
    return place_of(path) is not None


def place_of(path: Path) -> Path | None:
    """Returns the folder of the published network, at or below `path`, or None."""
    return next((path / part for part in (".", "unet", "transformer") if (path / part / "config.json").is_file()), None)


def read_diffusers_folder(
    path: Path, network: nn.Module, others: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Tensor]:
    """Returns the weights of a published folder under the names of `network`.

    `others` are weights that another part than the network takes, by the option of config.json that adds them. They
    keep their published names.

    Raises `ValueError` if the files cannot be read, if the weights do not fit, or if config.json states options that
    this network does not have.
    """
    folder = place_of(path) or path
    config = read_json(folder / "config.json")
    check_config({k: v for k, v in config.items() if k not in others}, network, folder / "config.json")
    state = _read_weights(folder)
    weights = from_diffusers(state, network, others.values())
    _check_heads(config, network, folder / "config.json")
    return weights


def _read_weights(folder: Path) -> Mapping[str, Tensor]:
    weights = folder / WEIGHTS
    if weights.is_file() or weights.with_name(f"{WEIGHTS}.index.json").is_file():
        return read_published(weights)
    weights = weights.with_suffix(".bin")
    if not weights.is_file():
        raise ValueError(f"{harmless(folder)} holds neither diffusion_pytorch_model.safetensors nor .bin")
    state = read_torch(weights)
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise ValueError(f"{harmless(weights)} does not hold weights by name: use another file")
    return state
