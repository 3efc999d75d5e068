"""How diffusers names and arranges the weights of `DiT`: those of its `DiTTransformer2DModel`, read but not written.

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
    """Returns those options of config.json that the weights do not state."""
    side = {size * network.patch_size for size in network.grid}
    return {
        "patch_size": network.patch_size,
        "sample_size": side.pop() if len(side) == 1 and type(network.positions) is SineCosine else None,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_zero",
        "attention_bias": True,
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
        ours[name] = torch.cat([*reversed(ours[name].chunk(2, dim=1))], dim=1)
    return ours


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
