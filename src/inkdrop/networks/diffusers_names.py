"""Names and configurations of our networks in diffusers: its UNets, transformers and `AutoencoderKL`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.networks import diffusers_dit as dit
from inkdrop.networks import diffusers_mmdit as mmdit
from inkdrop.networks.autoencoders import ConvolutionalAutoencoder
from inkdrop.networks.dit import DiT
from inkdrop.networks.latent_unet import LatentUNet
from inkdrop.networks.mmdit import MMDiT
from inkdrop.networks.unet import EvenDownsample, UNet, Waves

# Names of a residual block, of an attention layer and of a transformer, ours and theirs.
_RESIDUAL = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "embedding": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "shortcut": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_TRANSFORMER = {"norm": "norm", "enter": "proj_in", "leave": "proj_out"}
_TRANSFORMER_LAYER = {
    **{f"norm_{i}": f"norm{i}" for i in (1, 2, 3)},
    **{f"attention.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"cross_attention.{ours}": f"attn2.{theirs}" for ours, theirs in _ATTENTION.items()},
    "layers.0.layer": "ff.net.0.proj",
    "layers.1": "ff.net.2",
}
_TOP = {
    "time.0": "time_embedding.linear_1",
    "time.2": "time_embedding.linear_2",
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}


@dataclass(frozen=True)
class Layout:
    """How diffusers names a network of ours.

    - `published`: its class in diffusers.
    - `choice`: the option that chooses our network.
    - `rename`: returns the function from a name of a weight of ours to theirs, or to None where they have none.
    - `config`: returns the content of config.json.
    - `heads`: returns the heads of attention layers, ours and those of a config.json.
    - `free`: options of config.json that are not compared.
    - `arranged`: returns weights under their names in the arrangement of ours.
    - `written`: the inverse of `arranged`.
    - `rows`: returns weights under their names with the outputs of layers in their order.
    """

    published: str
    choice: str
    rename: Callable[[Any], Callable[[str], str | None]]
    config: Callable[[Any], dict[str, Any]]
    heads: Callable[[Any, Mapping[str, Any]], tuple[list[int], list[Any]]]
    free: frozenset[str]
    arranged: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda network, theirs: theirs
    written: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda network, theirs: theirs
    rows: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda network, theirs: theirs


def layout_of(network: nn.Module) -> Layout:
    """Returns the layout of a network; raises `ValueError` for a network that diffusers does not have."""
    if (layout := LAYOUTS.get(type(network))) is None:
        known = ", ".join(f"{each.choice} ({each.published})" for each in LAYOUTS.values())
        raise ValueError(f"the network is a {type(network).__name__}, which diffusers does not have: choose {known}")
    return layout


def _rename_unet(network: Any) -> Callable[[str], str | None]:
    def rename(key: str) -> str | None:
        stem, kind = key.rsplit(".", 1)
        if stem in _TOP:
            return f"{_TOP[stem]}.{kind}"
        if stem == "vector" and type(network) is LatentUNet:  # that of UNet2DModel is a table
            return f"class_embedding.{kind}"
        if match := re.fullmatch(r"(down|up)\.(\d+)\.resample\.conv", stem):
            direction, level = match.groups()
            return f"{direction}_blocks.{level}.{direction}samplers.0.conv.{kind}"
        match = re.fullmatch(
            r"(?:(down|up)\.(\d+)\.blocks|middle)\.(\d+)\.(residual|attention|transformer)\.(.+)", stem
        )
        if match is None:
            return None
        direction, level, number, part, layer = match.groups()
        place = f"{direction}_blocks.{level}" if direction else "mid_block"
        if part == "residual":
            return f"{place}.resnets.{number}.{_RESIDUAL[layer]}.{kind}"
        if part == "attention":
            return f"{place}.attentions.{number}.{_ATTENTION[layer]}.{kind}"
        if match := re.fullmatch(r"layers\.(\d+)\.(.+)", layer):
            return f"{place}.attentions.{number}.transformer_blocks.{match[1]}.{_TRANSFORMER_LAYER[match[2]]}.{kind}"
        return f"{place}.attentions.{number}.{_TRANSFORMER[layer]}.{kind}"

    return rename


def _rename_autoencoder(network: Any) -> Callable[[str], str | None]:
    halves = {"encoder": ("down_blocks", "downsamplers"), "decoder": ("up_blocks", "upsamplers")}
    residuals = {"encoder": network.encoder.num_blocks, "decoder": network.decoder.num_blocks + 1}
    # A level ends with a convolution, which in the decoder has a module without weights before it.
    strides = {"encoder": residuals["encoder"] + 1, "decoder": residuals["decoder"] + 2}

    def rename(key: str) -> str | None:
        stem, kind = key.rsplit(".", 1)
        half, _, rest = stem.partition(".")
        if rest == "mix":
            return f"{'quant' if half == 'encoder' else 'post_quant'}_conv.{kind}"
        if rest in _TOP:
            return f"{half}.{_TOP[rest]}.{kind}"
        if match := re.fullmatch(r"middle\.(\d+)\.(\w+)", rest):
            number = int(match[1])
            if number == 1 and len(getattr(network, half).middle) == 3:
                return f"{half}.mid_block.attentions.0.{_ATTENTION[match[2]]}.{kind}"
            return f"{half}.mid_block.resnets.{min(number, 1)}.{_RESIDUAL[match[2]]}.{kind}"
        if (match := re.fullmatch(r"blocks\.(\d+)(?:\.(\w+))?", rest)) is None:
            return None
        level, number = divmod(int(match[1]), strides[half])
        blocks, resample = halves[half]
        if number >= residuals[half]:
            return f"{half}.{blocks}.{level}.{resample}.0.conv.{kind}"
        return f"{half}.{blocks}.{level}.resnets.{number}.{_RESIDUAL[match[2]]}.{kind}"

    return rename


def _sizes(network: Any) -> dict[str, Any]:
    return {
        "in_channels": network.conv_in.in_channels,
        "out_channels": network.conv_out.out_channels,
        "block_out_channels": list(network.widths),
        "layers_per_block": len(network.down[0].blocks),
        "norm_num_groups": network.norm_out.num_groups,
        "norm_eps": network.norm_out.eps,
        "act_fn": "silu",
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "time_embedding_dim": None,
        "mid_block_scale_factor": 1,
        "num_class_embeds": None,
    }


def _block_types(network: Any, attends: str, other: str) -> dict[str, list[str]]:
    """Their names of the blocks of each resolution, in both halves."""

    def named(levels: Any, direction: str) -> list[str]:
        children = [dict(level.blocks[0].named_children()) for level in levels]
        return [
            f"{attends if each.keys() & {'attention', 'transformer'} else other}{direction}Block2D" for each in children
        ]

    return {"down_block_types": named(network.down, "Down"), "up_block_types": named(network.up, "Up")}


def _config_of_unet(network: UNet) -> dict[str, Any]:
    attention: Any = next(each for each in network.modules() if hasattr(each, "is_cross"))
    width, is_later = attention.norm.num_channels, type(network.frequencies) is Waves
    return {
        **_sizes(network),
        **_block_types(network, "Attn", ""),
        "mid_block_type": "UNetMidBlock2D",
        "add_attention": True,
        "attention_head_dim": None if attention.num_heads == 1 else width // attention.num_heads,
        "attn_norm_num_groups": network.norm_out.num_groups,
        "resnet_time_scale_shift": "scale_shift" if network.middle[0].residual.scale_shift else "default",
        "class_embed_type": None,
        "flip_sin_to_cos": is_later,
        "freq_shift": 0 if is_later else 1,
        "downsample_padding": 1 if type(network.down[0].resample) is EvenDownsample else 0,
        "downsample_type": "conv",
        "upsample_type": "conv",
        "sample_size": list(network.sizes),
    }


def _config_of_latent_unet(network: LatentUNet) -> dict[str, Any]:
    vector: Any = network.vector
    return {
        **_sizes(network),
        **_block_types(network, "CrossAttn", ""),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "cross_attention_dim": network.doors["tokens"],
        "attention_head_dim": list(network.num_heads),
        "num_attention_heads": None,
        "transformer_layers_per_block": len(network.middle[0].transformer.layers),
        "use_linear_projection": True,
        "attention_type": "default",
        "class_embed_type": None if vector is None else "simple_projection",
        "projection_class_embeddings_input_dim": None if vector is None else vector.in_features,
        "resnet_time_scale_shift": "default",
        "resnet_out_scale_factor": 1.0,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "sample_size": list(network.sizes),
    }


def _config_of_autoencoder(network: ConvolutionalAutoencoder) -> dict[str, Any]:
    encoder, decoder = network.encoder, network.decoder
    return {
        "in_channels": encoder.conv_in.in_channels,
        "out_channels": decoder.conv_out.out_channels,
        "latent_channels": decoder.latent_shape[0],
        "block_out_channels": list(encoder.widths),
        "layers_per_block": encoder.num_blocks,
        "down_block_types": ["DownEncoderBlock2D"] * len(encoder.widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(encoder.widths),
        "mid_block_add_attention": len(encoder.middle) == 3,
        "norm_num_groups": encoder.norm_out.num_groups,
        "act_fn": "silu",
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "sample_size": encoder.sizes[0],
        "scaling_factor": 1.0,
        "shift_factor": None,
        "force_upcast": False,
    }


def _heads_of_unet(network: UNet, config: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    layers: list[Any] = [each for each in network.modules() if hasattr(each, "is_cross")]
    dim = config.get("attention_head_dim", 8)
    return [each.num_heads for each in layers], [each.norm.num_channels // dim if dim else 1 for each in layers]


def _heads_of_latent_unet(network: LatentUNet, config: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    # diffusers kept the name of an option that has always been the number of heads.
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    return network.num_heads, list(heads) if isinstance(heads, list) else [heads] * len(network.num_heads)


def _one_head(network: ConvolutionalAutoencoder, config: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    return [], []


def _with_mixes(network: Any, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with maps before and after the codes, which an autoencoder may lack."""
    found = dict(theirs)
    for name, mix in (("quant_conv", network.encoder.mix), ("post_quant_conv", network.decoder.mix)):
        if f"{name}.weight" not in found:
            count = mix.weight.shape[0]
            found[f"{name}.weight"], found[f"{name}.bias"] = torch.eye(count), torch.zeros(count)
    return found


# Options that the weights state too, that do not change the function, or that are compared as numbers of heads.
_FREE = frozenset(
    (
        *("in_channels", "out_channels", "block_out_channels", "layers_per_block", "down_block_types"),
        *("up_block_types", "sample_size", "dropout", "attention_head_dim", "num_attention_heads"),
    )
)
_FREE_IN_LATENT_UNET = frozenset(
    (
        *("cross_attention_dim", "projection_class_embeddings_input_dim", "transformer_layers_per_block"),
        *("use_linear_projection", "upcast_attention", "addition_embed_type_num_heads"),
    )
)
_FREE_IN_AUTOENCODER = frozenset(
    (
        *("latent_channels", "mid_block_add_attention", "use_quant_conv", "use_post_quant_conv", "double_z"),
        *("scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"),
    )
)
LAYOUTS: dict[type[nn.Module], Layout] = {
    UNet: Layout(
        "UNet2DModel", "network=unet", _rename_unet, _config_of_unet, _heads_of_unet, _FREE | {"num_train_timesteps"}
    ),
    LatentUNet: Layout(
        "UNet2DConditionModel",
        "network=latent_unet",
        _rename_unet,
        _config_of_latent_unet,
        _heads_of_latent_unet,
        _FREE | _FREE_IN_LATENT_UNET,
    ),
    ConvolutionalAutoencoder: Layout(
        "AutoencoderKL",
        "network=autoencoder",
        _rename_autoencoder,
        _config_of_autoencoder,
        _one_head,
        _FREE | _FREE_IN_AUTOENCODER,
        _with_mixes,
    ),
    DiT: Layout("DiTTransformer2DModel", "network=dit", *dit.LAYOUT),
    MMDiT: Layout("SD3Transformer2DModel", "network=mmdit", *mmdit.LAYOUT),
}
