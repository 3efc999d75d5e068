"""How diffusers names and arranges the weights of `MMDiT`: those of its `SD3Transformer2DModel`.

W width, C channels, p length of a patch, N patches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inkdrop.networks.mmdit import MMDiT
from inkdrop.networks.positions import Learned, SineCosine

_TABLE = "pos_embed.pos_embed"
_TOP = {
    "patch": "pos_embed.proj",
    "tokens": "context_embedder",
    "modulation": "norm_out.linear",
    "out": "proj_out",
    **{f"time.{2 * i}": f"time_text_embed.timestep_embedder.linear_{i + 1}" for i in (0, 1)},
    **{f"vector.{2 * i}": f"time_text_embed.text_embedder.linear_{i + 1}" for i in (0, 1)},
}
_IMAGE = {
    **{each: f"attn.to_{each}" for each in "qkv"},
    "norm_q": "attn.norm_q",
    "norm_k": "attn.norm_k",
    "out": "attn.to_out.0",
    "modulation": "norm1.linear",
    "layers.0": "ff.net.0.proj",
    "layers.2": "ff.net.2",
}
_TEXT = {
    **{each: f"attn.add_{each}_proj" for each in "qkv"},
    "norm_q": "attn.norm_added_q",
    "norm_k": "attn.norm_added_k",
    "out": "attn.to_add_out",
    "modulation": "norm1_context.linear",
    "layers.0": "ff_context.net.0.proj",
    "layers.2": "ff_context.net.2",
}
# Options that the weights state too, or that are compared elsewhere.
FREE = frozenset(
    (
        *("sample_size", "in_channels", "out_channels", "num_layers", "attention_head_dim", "num_attention_heads"),
        *("joint_attention_dim", "caption_projection_dim", "pooled_projection_dim", "pos_embed_max_size"),
    )
)


def rename(network: MMDiT) -> Callable[[str], str | None]:
    """Returns the function from a name of a weight of ours to theirs."""

    def renamed(key: str) -> str | None:
        if key == "positions.table":
            return _TABLE
        stem, kind = key.rsplit(".", 1)
        if stem in _TOP:
            return f"{_TOP[stem]}.{kind}"
        if (match := re.fullmatch(r"blocks\.(\d+)\.(image|text)\.(.+)", stem)) is None:
            return None
        number, side, layer = match.groups()
        return f"transformer_blocks.{number}.{(_IMAGE if side == 'image' else _TEXT)[layer]}.{kind}"

    return renamed


def config(network: MMDiT) -> dict[str, Any]:
    """Returns the content of config.json."""
    width, pixels = network.patch.out_features, network.patch_size ** len(network.grid)
    vector: Any = network.vector
    num_heads = network.blocks[0].image.num_heads
    return {
        "patch_size": network.patch_size,
        "qk_norm": None if network.blocks[0].image.norm_q is None else "rms_norm",
        "dual_attention_layers": [],
        "sample_size": max(network.grid) * network.patch_size,
        "pos_embed_max_size": max(network.grid),
        "in_channels": network.patch.in_features // pixels,
        "out_channels": network.out.out_features // pixels,
        "num_layers": len(network.blocks),
        "num_attention_heads": num_heads,
        "attention_head_dim": width // num_heads,
        "caption_projection_dim": width,
        "joint_attention_dim": network.tokens.in_features,
        "pooled_projection_dim": 0 if vector is None else vector[0].in_features,
    }


def heads(network: MMDiT, config: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    """Returns the heads of attention layers, ours and those of a config.json."""
    return [network.blocks[0].image.num_heads], [config.get("num_attention_heads", 18)]


def arranged(network: MMDiT, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under their names in our arrangement.

    Their table of positions covers a larger square, of whose middle an image takes a part. A patch of theirs has the
    channels of a pixel together, and a normalisation without gate has its scale before its shift.

    Raises `ValueError` for positions that the network does not have.
    """
    found = dict(theirs)
    for kind in ("weight", "bias"):
        if (name := f"proj_out.{kind}") in found:
            pixels = found[name].unflatten(0, (network.patch_size**2, -1))
            found[name] = pixels.transpose(0, 1).flatten(0, 1).contiguous()
        for layer in ("norm_out", f"transformer_blocks.{len(network.blocks) - 1}.norm1_context"):
            if (name := f"{layer}.linear.{kind}") in found:
                found[name] = torch.cat([*reversed(found[name].chunk(2))])
    if _TABLE not in found:
        return found
    table = _middle(found.pop(_TABLE), network.grid)
    if type(network.positions) is Learned:
        found[_TABLE] = table
    elif type(network.positions) is not SineCosine or not _equal(table, network.positions.table):
        raise ValueError(
            "the published positions of patches are others than those of the network: choose "
            "network.positions._target_=inkdrop.networks.positions.Learned, which takes them"
        )
    return found


def written(network: MMDiT, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under their names in their arrangement, the inverse of `arranged`.

    Raises `ValueError` for a network that theirs is not.
    """
    hidden, width = network.blocks[0].image.layers[0].out_features, network.patch.out_features
    wrong = {
        "a concat, which theirs does not take: choose a conditioner without one": network.doors["concat"],
        "no vector, which theirs takes: choose a conditioner with conditioner.dim": network.vector is None,
        f"network.mlp_ratio={hidden / width:g}, and theirs has 4": hidden != 4 * width,
        f"{len(network.grid)} dimensions, and theirs has 2": len(network.grid) != 2,
        f"{' x '.join(map(str, network.grid))} patches, and theirs has a square": len({*network.grid}) > 1,
        "positions that are no table": type(network.positions) not in (Learned, SineCosine),
    }
    if found := [words for words, holds in wrong.items() if holds]:
        raise ValueError(f"an SD3Transformer2DModel is another network than this one, which has {found[0]}")
    positions: Any = network.positions
    ours = {**rows(network, theirs), _TABLE: positions.table.detach()[None]}
    patch = f"{_TOP['patch']}.weight"
    ours[patch] = ours[patch].unflatten(1, (-1, *(network.patch_size,) * 2))
    return ours


def rows(network: MMDiT, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under their names with the outputs of layers, their rows, in their order."""
    ours = dict(theirs)
    for kind in ("weight", "bias"):
        if (name := f"proj_out.{kind}") in ours:
            ours[name] = ours[name].unflatten(0, (-1, network.patch_size**2)).transpose(0, 1).flatten(0, 1)
        for layer in ("norm_out", f"transformer_blocks.{len(network.blocks) - 1}.norm1_context"):
            if (name := f"{layer}.linear.{kind}") in ours:
                ours[name] = torch.cat([*reversed(ours[name].chunk(2))])
    return ours


def _middle(table: Tensor, grid: list[int]) -> Tensor:
    """The part (N, W) of a table (1, M^2, W) of a square of patches that an image in its middle takes."""
    side = round(table.shape[1] ** 0.5)
    if len(grid) != 2 or side**2 != table.shape[1] or max(grid) > side:
        raise ValueError(f"the published positions are those of {side} x {side} patches, but the network has {grid}")
    top, left = ((side - size) // 2 for size in grid)
    square = table.unflatten(1, (side, side))[0]
    return square[top : top + grid[0], left : left + grid[1]].flatten(0, 1).contiguous()


def _equal(table: Tensor, other: Tensor) -> bool:
    return table.shape == other.shape and torch.allclose(table.float(), other.float(), atol=1e-3)


LAYOUT = (rename, config, heads, FREE, arranged, written, rows)
