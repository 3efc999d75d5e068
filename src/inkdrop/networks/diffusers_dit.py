"""How diffusers names and arranges the weights of `DiT`: those of its `DiTTransformer2DModel`.

W width, C channels, p length of a patch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inkdrop.networks.dit import DiT
from inkdrop.networks.positions import SineCosine

# Each block of theirs has a copy of the embedding of the time and of the table of classes.
_EMBEDDING = "transformer_blocks.{}.norm1.emb."
_TIME = _EMBEDDING.format(0) + "timestep_embedder.linear_{}"
CLASSES = _EMBEDDING.format(0) + "class_embedder.embedding_table.weight"
_TOP = {
    "patch": "pos_embed.proj",
    "modulation": "proj_out_1",
    "out": "proj_out_2",
    **{f"time.{2 * i}": _TIME.format(i + 1) for i in (0, 1)},
}
_BLOCK = {
    **{f"attention.{each}": f"attn1.to_{each}" for each in "qkv"},
    "attention.out": "attn1.to_out.0",
    "modulation": "norm1.linear",
    "layers.0": "ff.net.0.proj",
    "layers.2": "ff.net.2",
}
# Options that the weights state too, that are compared elsewhere, or that such a network does not use. Its file says
# 1e-5 for one of the normalisations, where the authors' code has 1e-6 in all.
FREE = frozenset(
    (
        *("in_channels", "out_channels", "num_layers", "attention_head_dim", "num_attention_heads", "dropout"),
        *("norm_num_groups", "norm_eps", "upcast_attention", "num_vector_embeds", "cross_attention_dim"),
    )
)


def rename(network: DiT) -> Callable[[str], str | None]:
    """Returns the function from a name of a weight of ours to theirs."""

    def renamed(key: str) -> str | None:
        stem, kind = key.rsplit(".", 1)
        if stem in _TOP:
            return f"{_TOP[stem]}.{kind}"
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", stem)
        if match is None or match[2] not in _BLOCK:
            return None
        return f"transformer_blocks.{match[1]}.{_BLOCK[match[2]]}.{kind}"

    return renamed


def config(network: DiT) -> dict[str, Any]:
    """Returns the content of config.json but for the number of classes."""
    side = {size * network.patch_size for size in network.grid}
    pixels, num_heads = network.patch_size ** len(network.grid), network.blocks[0].attention.num_heads
    return {
        "patch_size": network.patch_size,
        "sample_size": side.pop() if len(side) == 1 and type(network.positions) is SineCosine else None,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_zero",
        "norm_eps": 1e-6,
        "attention_bias": True,
        "in_channels": network.patch.in_features // pixels,
        "out_channels": network.out.out_features // pixels,
        "num_layers": len(network.blocks),
        "num_attention_heads": num_heads,
        "attention_head_dim": network.patch.out_features // num_heads,
        "dropout": network.blocks[0].dropout.p,
    }


def heads(network: DiT, config: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    """Returns the heads of attention layers, ours and those of a config.json."""
    return [network.blocks[0].attention.num_heads], [config.get("num_attention_heads", 16)]


def arranged(network: DiT, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under their names in our arrangement.

    A patch of theirs has the channels of a pixel together, and their time has its cosines before its sines.

    Raises `ValueError` for blocks that embed the time or the classes differently.
    """
    ours = _with_one_embedding(theirs)
    for kind in ("weight", "bias"):
        if (name := f"proj_out_2.{kind}") in ours:
            pixels = ours[name].unflatten(0, (network.patch_size**2, -1))
            ours[name] = pixels.transpose(0, 1).flatten(0, 1).contiguous()
    if (name := f"{_TIME.format(1)}.weight") in ours:
        ours[name] = _swapped(ours[name])
    return ours


def written(network: DiT, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under their names in their arrangement, the inverse of `arranged`.

    Raises `ValueError` for a network that theirs is not.
    """
    width, hidden = network.patch.out_features, network.blocks[0].layers[0].out_features
    wrong = {
        "a concat, which theirs does not take: choose a conditioner without one": network.doors["concat"],
        f"network.mlp_ratio={hidden / width:g}, and theirs has 4": hidden != 4 * width,
        "other positions than sines and cosines on a square": config(network)["sample_size"] is None,
        f"{len(network.grid)} dimensions, and theirs has 2": len(network.grid) != 2,
    }
    if found := [words for words, holds in wrong.items() if holds]:
        raise ValueError(f"a DiTTransformer2DModel is another network than this one, which has {found[0]}")
    ours = {**theirs, f"{_TIME.format(1)}.weight": _swapped(theirs[f"{_TIME.format(1)}.weight"])}
    for kind in ("weight", "bias"):
        pixels = ours[f"proj_out_2.{kind}"].unflatten(0, (-1, network.patch_size**2))
        ours[f"proj_out_2.{kind}"] = pixels.transpose(0, 1).flatten(0, 1)
    patch = f"{_TOP['patch']}.weight"
    ours[patch] = ours[patch].unflatten(1, (-1, *(network.patch_size,) * 2))
    first = _EMBEDDING.format(0)
    copies = {name.removeprefix(first): value for name, value in ours.items() if name.startswith(first)}
    for number in range(1, len(network.blocks)):
        # Weights that share memory cannot be saved together.
        ours |= {_EMBEDDING.format(number) + name: value.clone() for name, value in copies.items()}
    return ours


def _swapped(weight: Tensor) -> Tensor:
    """Weights on the sines and cosines of the time in the other order."""
    return torch.cat([*reversed(weight.chunk(2, dim=1))], dim=1)


def _with_one_embedding(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the copies of the first block's embedding."""
    kept: dict[str, Tensor] = {}
    for name, value in theirs.items():
        first = re.sub(r"^transformer_blocks\.\d+\.norm1\.emb\.", _EMBEDDING.format(0), name)
        if first == name:
            kept[name] = value
        elif first not in theirs or not torch.equal(value, theirs[first]):
            raise ValueError(
                f"{name} differs from that of the first block, but this network embeds once for all blocks"
            )
    return kept


LAYOUT = (rename, config, heads, FREE, arranged, written)
