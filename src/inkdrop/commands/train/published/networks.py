"""The network of a `config.json` of diffusers as a part of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Len, Lt

from inkdrop.commands.train.published.choices import choice
from inkdrop.configuration import build
from inkdrop.errors import ConfigurationError
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.networks.diffusers_format import check_config

_Count = Annotated[int, Ge(1), Le(2**16)]
_Counts = Annotated[list[_Count], Len(1, 16)]
_Names = Annotated[list[str], Len(1, 16)]
_COMMON: dict[str, Any] = {
    **dict.fromkeys(("in_channels", "out_channels"), _Count),
    "sample_size": _Count | Annotated[list[_Count], Len(2, 2)] | None,
}
_UNET: dict[str, Any] = {
    **_COMMON,
    "block_out_channels": _Counts,
    **dict.fromkeys(("down_block_types", "up_block_types"), _Names),
    **dict.fromkeys(("layers_per_block", "norm_num_groups"), _Count),
    "norm_eps": Annotated[float, Gt(0)],
    "dropout": Annotated[float, Ge(0), Lt(1)],
    "num_class_embeds": _Count | None,
    "resnet_time_scale_shift": str,
}
_CLASSES = ("num_class_embeds", "num_embeds_ada_norm")
_VAE: dict[str, Any] = {"block_out_channels": _Counts, "latent_channels": _Count, "in_channels": _Count}
_NEEDED = ("in_channels", "out_channels", "block_out_channels", "layers_per_block", "down_block_types")
# What diffusers takes where its file does not say.
_DEFAULTS: dict[str, Any] = {"norm_num_groups": 32, "norm_eps": 1e-5, "dropout": 0.0, "num_class_embeds": None}


@dataclass(frozen=True)
class Kind:
    """A network of diffusers that has a counterpart.

    - `published`: its class.
    - `fields`: types of the options of config.json that are read.
    - `needed`: options that the file must have.
    - `defaults`: what diffusers takes for the others.
    - `options`: makes the options of ours from config.json, the shape of x and the place of the file.
    - `tokens`: the option with the width of its tokens, or "".
    - `formerly`: the name of the class in older folders, or "".
    """

    published: str
    fields: dict[str, Any]
    needed: tuple[str, ...]
    defaults: dict[str, Any]
    options: Callable[[Mapping[str, Any], Sequence[int]], dict[str, Any]]
    tokens: str = ""
    formerly: str = ""


def kind_of(config: Mapping[str, Any], place: Path) -> Kind:
    """Returns the kind of a published network; raises `ValueError` for one without a counterpart."""
    name = str(config.get("_class_name"))
    found = next((each for each in KINDS if name in (each.published, each.formerly)), None)
    if found is None:
        raise ValueError(
            f"{harmless(place / 'config.json')} holds a {harmless(name)}, which is not supported (available: "
            f"{', '.join(each.published for each in KINDS)})"
        )
    if (wrong := wrong_field(config, found.fields, found.needed)) is not None:
        raise ValueError(f"{harmless(place / 'config.json')}: {wrong}")
    return found


def sample_size(config: Mapping[str, Any]) -> list[int]:
    """Returns height and width of x; raises `ConfigurationError` for a file that does not state them."""
    size = config.get("sample_size")
    if size is None:
        raise ConfigurationError("config.json of the base has no sample_size: set data.shape=[CHANNELS,HEIGHT,WIDTH]")
    return list(size) if isinstance(size, list) else [size, size]


def factor_of(vae: Mapping[str, Any]) -> int:
    """Returns the factor by which an AutoencoderKL divides heights and widths."""
    if (wrong := wrong_field(vae, _VAE, ("block_out_channels",))) is not None:
        raise ValueError(f"config.json of the vae: {wrong}")
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def network_of(kind: Kind, config: Mapping[str, Any], shape: Sequence[int], place: Path) -> dict[str, Any]:
    """Returns the options of our network for x of this shape (C, *).

    Raises `ValueError` for options that it does not have.
    """
    config = {**kind.defaults, **config}
    config["out_channels"] = config["out_channels"] or config["in_channels"]
    learned = config["out_channels"] == 2 * shape[0]  # the variance of a step too
    if config["in_channels"] != shape[0] or config["out_channels"] != (2 if learned else 1) * shape[0]:
        raise ValueError(
            f"the network has in_channels={config['in_channels']} and out_channels={config['out_channels']}, but x has "
            f"{shape[0]} channels: choose data with its channels; more inputs are not supported"
        )
    node = {**kind.options(config, shape), "shape": list(shape), "concat_channels": 0, "shown_channels": 0}
    with torch.device("meta"):
        network = build(node)
    check_config({name: each for name, each in config.items() if name not in _CLASSES}, network, place)
    if config.get("num_class_embeds") and kind.tokens:
        raise ValueError(f"{harmless(place)} has both num_class_embeds and tokens, which is not supported")
    if learned:
        return {**choice("network", "learned_variance"), "network": {**node, "_partial_": True}, "channels": shape[0]}
    return node


def _levels(config: Mapping[str, Any], shape: Sequence[int], attends: str, other: str) -> dict[str, Any]:
    """Channels and attended sizes of the resolutions of a UNet."""
    widths, down = config["block_out_channels"], config["down_block_types"]
    base = widths[0]
    if any(width % base for width in widths):
        raise ValueError(f"block_out_channels={widths} are not multiples of the first, which is not supported")
    known = {f"{attends}DownBlock2D": True, f"{other}DownBlock2D": False}
    if unknown := [each for each in down if each not in known]:
        raise ValueError(f"{harmless(unknown[0])} is not supported (available: {', '.join(known)})")
    up = [each.replace("Down", "Up") for each in reversed(down)]
    if config.get("up_block_types", up) != up or len(down) != len(widths):
        raise ValueError("up_block_types are not those of down_block_types in reverse, which is not supported")
    return {
        "base_channels": base,
        "channel_multipliers": [width // base for width in widths],
        "num_blocks": config["layers_per_block"],
        "attention_resolutions": [shape[1] >> i for i, each in enumerate(down) if known[each]],
        "dropout": float(config["dropout"]),
        "norm_groups": config["norm_num_groups"],
        "norm_eps": float(config["norm_eps"]),
    }


def _unet(config: Mapping[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    levels = _levels(config, shape, "Attn", "")
    further: dict[str, Any] = {}
    if config["flip_sin_to_cos"] and config["freq_shift"] == 0:
        further["frequencies"] = {"_target_": "inkdrop.networks.unet.Waves"}
    if config["downsample_padding"] == 1 and len(config["block_out_channels"]) > 1:
        further["downsample"] = {"_target_": "inkdrop.networks.unet.EvenDownsample", "_partial_": True}
    return {
        **choice("network", "unet"),
        **levels,
        **further,
        "head_dim": config["attention_head_dim"],
        "scale_shift": config["resnet_time_scale_shift"] == "scale_shift",
        "vector_dim": 4 * levels["base_channels"] if config["num_class_embeds"] else 0,
        "token_dim": 0,
    }


def _latent_unet(config: Mapping[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    if (added := config.get("addition_embed_type")) is not None:
        raise ValueError(
            f"the network has addition_embed_type={harmless(added)}, as that of Stable Diffusion XL, which is not "
            "supported: choose a folder of Stable Diffusion 1, 2 or 3"
        )
    levels = _levels(config, shape, "CrossAttn", "")
    heads = config.get("num_attention_heads") or config["attention_head_dim"]  # which diffusers names so
    widths = config["block_out_channels"]
    each = heads if isinstance(heads, list) else [heads] * len(widths)
    dims = [width // count for width, count in zip(widths, each, strict=False)]
    if len(each) != len(widths) or (len(set(each)) > 1 and len(set(dims)) > 1):
        raise ValueError(f"attention_head_dim={heads} is neither one number of heads nor one width of heads")
    depths = config["transformer_layers_per_block"]
    depths = depths if isinstance(depths, list) else [depths]
    if len(set(depths)) > 1:
        raise ValueError(f"transformer_layers_per_block={depths} differ, which is not supported")
    return {
        **choice("network", "latent_unet"),
        **levels,
        "num_heads": each[0] if len(set(each)) == 1 else None,
        "head_dim": None if len(set(each)) == 1 else dims[0],
        "depth": depths[0],
        "vector_dim": config.get("projection_class_embeddings_input_dim") or 0,
        "token_dim": config["cross_attention_dim"],
    }


def _mmdit(config: Mapping[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    normed = {"_target_": "inkdrop.networks.layers.root_mean_square", "_partial_": True}
    return {
        **choice("network", "mmdit"),
        "patch_size": config["patch_size"],
        "width": config["num_attention_heads"] * config["attention_head_dim"],
        "depth": config["num_layers"],
        "num_heads": config["num_attention_heads"],
        "positions": {"_target_": "inkdrop.networks.positions.Learned", "_partial_": True},
        "qk_norm": normed if config.get("qk_norm") == "rms_norm" else None,
        "vector_dim": config["pooled_projection_dim"],
        "token_dim": config["joint_attention_dim"],
    }


def _dit(config: Mapping[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return {
        **choice("network", "dit"),
        "patch_size": config["patch_size"],
        "width": width,
        "depth": config["num_layers"],
        "num_heads": config["num_attention_heads"],
        "dropout": float(config["dropout"]),
        "vector_dim": width,
        "token_dim": 0,
    }


KINDS = (
    Kind(
        "UNet2DModel",
        {**_UNET, "attention_head_dim": _Count | None},
        _NEEDED,
        {
            **_DEFAULTS,
            "attention_head_dim": 8,
            "resnet_time_scale_shift": "default",
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "downsample_padding": 1,
        },
        _unet,
    ),
    Kind(
        "UNet2DConditionModel",
        {
            **_UNET,
            **dict.fromkeys(("attention_head_dim", "transformer_layers_per_block"), _Count | _Counts),
            "num_attention_heads": _Count | _Counts | None,
            "cross_attention_dim": _Count,
            "projection_class_embeddings_input_dim": _Count | None,
        },
        (*_NEEDED, "cross_attention_dim"),
        {**_DEFAULTS, "attention_head_dim": 8, "transformer_layers_per_block": 1},
        _latent_unet,
        "cross_attention_dim",
    ),
    Kind(
        "SD3Transformer2DModel",
        {
            **_COMMON,
            **dict.fromkeys(("patch_size", "num_layers", "num_attention_heads", "attention_head_dim"), _Count),
            **dict.fromkeys(("joint_attention_dim", "pooled_projection_dim"), _Count),
        },
        (
            *("in_channels", "out_channels", "patch_size", "num_layers", "num_attention_heads", "attention_head_dim"),
            *("joint_attention_dim", "pooled_projection_dim"),
        ),
        {},
        _mmdit,
        "joint_attention_dim",
    ),
    Kind(
        "DiTTransformer2DModel",
        {
            **_COMMON,
            **dict.fromkeys(("patch_size", "num_layers", "num_attention_heads", "attention_head_dim"), _Count),
            "out_channels": _Count | None,
            "num_embeds_ada_norm": _Count,
            "dropout": Annotated[float, Ge(0), Lt(1)],
        },
        (
            *("in_channels", "patch_size", "num_layers", "num_attention_heads", "attention_head_dim"),
            *("num_embeds_ada_norm", "sample_size"),
        ),
        {"out_channels": None, "dropout": 0.0},
        _dit,
        formerly="Transformer2DModel",
    ),
)
