"""The transformer of text and image: diffusers' function, nothing at first, every condition, its mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from inkdrop.networks import MMDiT
from inkdrop.networks.diffusers_format import (
    config_for_diffusers,
    is_diffusers_folder,
    read_diffusers_folder,
    to_diffusers,
)
from inkdrop.networks.layers import root_mean_square
from inkdrop.networks.positions import Learned, Rotary, SineCosine

SMALL: dict[str, Any] = {"shape": [3, 8, 8], "patch_size": 2, "width": 24, "depth": 2, "num_heads": 2, "token_dim": 6}


def randomised(network: Any) -> Any:
    """Zeroed layers would hide what flows through them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.eval()


def theirs(**options: Any) -> Any:
    sizes = {"sample_size": 8, "patch_size": 2, "in_channels": 3, "out_channels": 3, "num_layers": 3}
    sizes |= {"attention_head_dim": 12, "num_attention_heads": 2, "joint_attention_dim": 6, "pos_embed_max_size": 4}
    return randomised(
        SD3Transformer2DModel(**{**sizes, "caption_projection_dim": 24, "pooled_projection_dim": 5, **options})
    )


@pytest.mark.parametrize("qk_norm", [None, "rms_norm"])
@pytest.mark.parametrize("wide", [False, True])
def test_it_is_the_function_of_diffusers_with_its_published_weights(
    qk_norm: str | None, wide: bool, tmp_path: Path
) -> None:
    # Published models have a table of positions that is wider and finer than an image.
    peer = theirs(qk_norm=qk_norm, **({"pos_embed_max_size": 11} if wide else {}))
    peer.save_pretrained(tmp_path / "transformer")
    options = {**SMALL, "depth": 3, "vector_dim": 5, "qk_norm": root_mean_square if qk_norm else None}
    network = MMDiT(**options, **({"positions": Learned} if wide else {})).eval()
    assert is_diffusers_folder(tmp_path)
    network.load_state_dict(read_diffusers_folder(tmp_path, network))
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0])
    tokens, vector = torch.randn(2, 5, 6), torch.randn(2, 5)
    with torch.no_grad():
        expected = peer(x, tokens, vector, c_noise).sample
        assert (network(x, c_noise, vector, tokens) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("qk_norm", [None, root_mean_square])
@pytest.mark.parametrize("positions", [Learned, SineCosine])
def test_ours_is_the_function_of_diffusers(qk_norm: Any, positions: Any) -> None:
    network = randomised(MMDiT(**SMALL, vector_dim=5, qk_norm=qk_norm, positions=positions))
    peer = SD3Transformer2DModel(
        **{k: v for k, v in config_for_diffusers(network).items() if k != "_class_name"}
    ).eval()
    peer.load_state_dict(to_diffusers(network))
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0])
    tokens, vector = torch.randn(2, 5, 6), torch.randn(2, 5)
    with torch.no_grad():
        expected = peer(x, tokens, vector, c_noise).sample
        assert (network(x, c_noise, vector, tokens) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"concat_channels": 1}, "has a concat, which theirs does not take"),
        ({"vector_dim": 0}, r"has no vector, which theirs takes: choose a conditioner with conditioner\.dim"),
        ({"mlp_ratio": 2.0}, r"has network\.mlp_ratio=2, and theirs has 4"),
        ({"shape": [3, 8]}, "has 1 dimensions, and theirs has 2"),
        ({"shape": [3, 8, 4]}, "has 4 x 2 patches, and theirs has a square"),
        ({"positions": Rotary}, "has positions that are no table"),
    ],
)
def test_a_network_that_diffusers_lacks_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_diffusers(MMDiT(**{**SMALL, "vector_dim": 5, **change}))


@pytest.mark.parametrize(
    ("published", "ours", "words"),
    [
        ({"pos_embed_max_size": 11}, {}, "choose network.positions._target_=inkdrop.networks.positions.Learned"),
        ({"pos_embed_max_size": 3}, {"positions": Learned}, r"those of 3 x 3 patches, but the network has \[4, 4\]"),
        ({"qk_norm": "rms_norm"}, {}, "qk_norm=rms_norm, but this network has None"),
        ({"dual_attention_layers": (0,)}, {}, r"dual_attention_layers=\[0\], but this network has \[\]"),
        ({"num_attention_heads": 4, "attention_head_dim": 6}, {}, r"\[4\] attention heads, but this network has \[2\]"),
        ({"joint_attention_dim": 7}, {}, r"tokens.weight has the shape \(24, 6\), but the file has \(24, 7\)"),
        ({"num_layers": 2}, {}, "missing"),
    ],
)
def test_published_weights_of_another_network_are_refused(
    published: dict[str, Any], ours: dict[str, Any], words: str, tmp_path: Path
) -> None:
    theirs(**published).save_pretrained(tmp_path)
    network = MMDiT(**{**SMALL, "depth": 3, "vector_dim": 5, **ours})
    with pytest.raises(ValueError, match=words):
        read_diffusers_folder(tmp_path, network)


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
