"""The transformer of text and image: diffusers' function, nothing at first, every condition, its mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from inkdrop.networks import MMDiT

SMALL: dict[str, Any] = {"shape": [3, 8, 8], "patch_size": 2, "width": 24, "depth": 2, "num_heads": 2, "token_dim": 6}


def randomised(network: Any) -> Any:
    """Zeroed layers would hide what flows through them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.eval()


def theirs_as_ours(state: dict[str, Tensor], depth: int, patch_size: int) -> dict[str, Tensor]:
    """Weights of `SD3Transformer2DModel` under the names of `MMDiT`."""
    names = {"patch": "pos_embed.proj", "tokens": "context_embedder", "modulation": "norm_out.linear"}
    names |= {"out": "proj_out"}
    for ours, theirs in (("time", "timestep_embedder"), ("vector", "text_embedder")):
        names |= {f"{ours}.{2 * i}": f"time_text_embed.{theirs}.linear_{i + 1}" for i in (0, 1)}
    for i in range(depth):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        names |= {f"{ours}.image.{each}": f"{theirs}.attn.to_{each}" for each in "qkv"}
        names |= {f"{ours}.text.{each}": f"{theirs}.attn.add_{each}_proj" for each in "qkv"}
        names |= {f"{ours}.image.modulation": f"{theirs}.norm1.linear"}
        names |= {f"{ours}.text.modulation": f"{theirs}.norm1_context.linear"}
        names |= {f"{ours}.image.out": f"{theirs}.attn.to_out.0", f"{ours}.text.out": f"{theirs}.attn.to_add_out"}
        for side, layers in (("image", "ff"), ("text", "ff_context")):
            names |= {f"{ours}.{side}.layers.0": f"{theirs}.{layers}.net.0.proj"}
            names |= {f"{ours}.{side}.layers.2": f"{theirs}.{layers}.net.2"}
    kinds = ("weight", "bias")
    found = {
        f"{our}.{kind}": state[f"{their}.{kind}"]
        for our, their in names.items()
        for kind in kinds
        if f"{their}.{kind}" in state
    }
    found["patch.weight"] = found["patch.weight"].flatten(1)
    for kind in kinds:
        # A pixel's channels are together in theirs, and without gates they have the scale before the shift.
        split = found[f"out.{kind}"].unflatten(0, (patch_size**2, -1))
        found[f"out.{kind}"] = split.transpose(0, 1).flatten(0, 1).contiguous()
        for name in ("modulation", f"blocks.{depth - 1}.text.modulation"):
            scale, shift = found[f"{name}.{kind}"].chunk(2)
            found[f"{name}.{kind}"] = torch.cat([shift, scale])
    return found


def test_it_is_the_function_of_diffusers() -> None:
    peer = randomised(
        SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=3,
            out_channels=3,
            num_layers=3,
            attention_head_dim=12,
            num_attention_heads=2,
            joint_attention_dim=6,
            caption_projection_dim=24,
            pooled_projection_dim=5,
            pos_embed_max_size=4,
        )
    )
    network = MMDiT(**{**SMALL, "depth": 3}, vector_dim=5).eval()
    network.load_state_dict(theirs_as_ours(peer.state_dict(), 3, 2))
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0])
    tokens, vector = torch.randn(2, 5, 6), torch.randn(2, 5)
    with torch.no_grad():
        expected = peer(x, tokens, vector, c_noise).sample
        assert (network(x, c_noise, vector, tokens) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_nothing_comes_out_at_first_and_every_weight_learns() -> None:
    network, x = MMDiT(**SMALL, vector_dim=5), torch.randn(2, 3, 8, 8)
    unread = ("blocks.1.text.q.weight", "blocks.1.text.q.bias")  # published, but of tokens that nothing reads
    given = {"vector": torch.randn(2, 5), "tokens": torch.randn(2, 4, 6)}
    assert not network(x, torch.tensor([3.0, 900.0]), **given).any()
    randomised(network)(x, torch.tensor([3.0, 900.0]), **given).square().sum().backward()
    assert all(
        each.grad is not None and each.grad.any()
        for name, each in network.named_parameters()
        if ".k.bias" not in name and name not in unread
    )


def test_every_condition_changes_the_output_and_a_mask_hides_tokens() -> None:
    network = randomised(MMDiT(**SMALL, vector_dim=5, concat_channels=2))
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0])
    given = {"vector": torch.randn(2, 5), "tokens": torch.randn(2, 4, 6), "concat": torch.randn(2, 2, 8, 8)}
    given["mask"] = torch.tensor([[True, True, False, False]] * 2)
    with torch.no_grad():
        plain = network(x, c_noise, **given)
        for name in ("vector", "tokens", "concat"):
            changed = {**given, name: given[name] + torch.randn_like(given[name])}
            assert not torch.allclose(network(x, c_noise, **changed), plain, atol=1e-4), name
        cut = {**given, "tokens": given["tokens"][:, :2], "mask": given["mask"][:, :2]}
        assert torch.allclose(network(x, c_noise, **cut), plain, atol=1e-5)
        with pytest.raises(ValueError, match="got none"):
            network(x, c_noise, **{**given, "tokens": None})


@pytest.mark.parametrize("sizes", [[16], [4, 8, 4]])
def test_other_numbers_of_dimensions(sizes: list[int]) -> None:
    network = randomised(MMDiT(**{**SMALL, "shape": [3, *sizes]}))
    x = torch.randn(2, 3, *sizes)
    assert network(x, torch.tensor([3.0, 900.0]), tokens=torch.randn(2, 4, 6)).shape == x.shape


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token_dim": 0}, "network=mmdit needs tokens: choose a conditioner"),
        ({"patch_size": 3}, "patch_size=3 does not divide"),
        ({"num_heads": 5}, "num_heads=5 does not divide"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MMDiT(**{**SMALL, **change})
