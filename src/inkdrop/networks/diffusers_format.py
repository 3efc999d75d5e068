"""Weights of the UNet in the format of diffusers' `UNet2DModel`, both ways.

A published folder holds `config.json` and `diffusion_pytorch_model.safetensors` or `.bin`, at its top or under `unet/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from inkdrop.files import read_json
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_safetensors, read_torch
from inkdrop.networks.unet import UNet

# Names of a residual block and of an attention layer, ours and theirs.
_RESIDUAL = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "embedding": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_TOP = {
    "time.0": "time_embedding.linear_1",
    "time.2": "time_embedding.linear_2",
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}
# Checkpoints written before 2023 name the layers of attention differently.
_LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _rename(key: str) -> str:
    """The name in diffusers of one of our weights; raises `ValueError` for parts that `UNet2DModel` lacks."""
    stem, kind = key.rsplit(".", 1)
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    if match := re.fullmatch(r"(down|up)\.(\d+)\.resample\.conv", stem):
        direction, level = match.groups()
        return f"{direction}_blocks.{level}.{direction}samplers.0.conv.{kind}"
    match = re.fullmatch(r"(?:(down|up)\.(\d+)\.blocks|middle)\.(\d+)\.(residual|attention)\.(\w+)", stem)
    if match is None:
        raise ValueError(
            f"{key} has no counterpart in diffusers' UNet2DModel: choose the network of the published model"
        )
    direction, level, number, part, layer = match.groups()
    place = f"{direction}_blocks.{level}" if direction else "mid_block"
    if part == "residual":
        return f"{place}.resnets.{number}.{_RESIDUAL[layer]}.{kind}"
    return f"{place}.attentions.{number}.{_ATTENTION[layer]}.{kind}"


def to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict of `UNet` under the names of `UNet2DModel`."""
    return {_rename(key): value for key, value in state.items()}


def from_diffusers(state: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """Returns a state dict of `UNet2DModel` under the names of `network`; raises `ValueError` for what does not fit."""
    theirs = {
        re.sub(r"\b(" + "|".join(_LEGACY) + r")\b", lambda m: _LEGACY[m[1]], str(key)): v for key, v in state.items()
    }
    names = {_rename(key): key for key in network.state_dict()}
    missing, extra = sorted(set(names) - set(theirs)), sorted(set(theirs) - set(names))
    if missing or extra:
        raise ValueError(
            f"the weights do not fit the network: {len(missing)} missing ({harmless(', '.join(missing[:3]))}), "
            f"{len(extra)} unexpected ({harmless(', '.join(extra[:3]))}): choose the network of the published model"
        )
    ours = {names[key]: value for key, value in theirs.items()}
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    for key, value in ours.items():
        # Old files keep the linear layers of attention as 1 x 1 convolutions.
        if value.shape != shapes[key] and value.numel() == shapes[key].numel():
            ours[key] = value = value.reshape(shapes[key])
        if value.shape != shapes[key]:
            raise ValueError(
                f"{key} has the shape {tuple(shapes[key])}, but the file has {tuple(value.shape)}: choose the sizes of "
                "the published network"
            )
    return ours


def is_diffusers_folder(path: Path) -> bool:
    """Returns whether `path` or `path/unet` holds a published network."""
    return any((path / part / "config.json").is_file() for part in (".", "unet"))


def read_diffusers_folder(path: Path, network: UNet) -> dict[str, Tensor]:
    """Returns the weights of a published folder under the names of `network`.

    Raises `ValueError` if the files cannot be read, if the weights do not fit, or if config.json states options that
    this network does not have.
    """
    if not isinstance(network, UNet):
        raise ValueError(f"{harmless(path)} holds a UNet2DModel, and the network is not a UNet: choose network=unet")
    folder = path if (path / "config.json").is_file() else path / "unet"
    config = read_json(folder / "config.json")
    norm = network.norm_out
    expected = {
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "downsample_padding": 0,
        "norm_eps": norm.eps,
        "norm_num_groups": norm.num_groups,
    }
    for name, value in expected.items():
        if config.get(name, value) != value:
            stated = f"{harmless(folder / 'config.json')} has {name}={harmless(config[name])}"
            raise ValueError(f"{stated}, but this network has {value}: choose the options of the published network")
    weights = folder / "diffusion_pytorch_model.safetensors"
    if weights.is_file():
        return from_diffusers(read_safetensors(weights), network)
    weights = weights.with_suffix(".bin")
    if not weights.is_file():
        raise ValueError(f"{harmless(folder)} holds neither diffusion_pytorch_model.safetensors nor .bin")
    state = read_torch(weights)
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise ValueError(f"{harmless(weights)} does not hold weights by name: use another file")
    return from_diffusers(state, network)
