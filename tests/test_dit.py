"""The diffusion transformer: diffusers' function, the published sizes, nothing at first, every door, every position."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb, get_1d_rotary_pos_embed
from torch import Tensor

from inkdrop.conditioners import Label
from inkdrop.networks import DiT
from inkdrop.networks.layers import scaled_dot_product
from inkdrop.networks.positions import Learned, MakePositions, Positions, Rotary, SineCosine

SMALL: dict[str, Any] = {"shape": [3, 8, 8], "patch_size": 2, "width": 24, "depth": 2, "num_heads": 2}
KINDS: dict[str, MakePositions] = {"sine-cosine": SineCosine, "learned": Learned, "rotary": Rotary}


def nothing(grid: Any, width: int, head_dim: int) -> Positions:
    return Positions()


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Zeroed layers would hide what flows through them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.eval()


def theirs_as_ours(state: dict[str, Tensor], depth: int, patch_size: int) -> dict[str, Tensor]:
    """Weights of `DiTTransformer2DModel` whose blocks all have the first one's embedding, under the names of `DiT`."""
    first = "transformer_blocks.0.norm1.emb.timestep_embedder.linear"
    names = {"patch": "pos_embed.proj", "time.0": f"{first}_1", "time.2": f"{first}_2"}
    names |= {"modulation": "proj_out_1", "out": "proj_out_2"}
    for i in range(depth):
        ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
        names |= {f"{ours}.attention.{each}": f"{theirs}.attn1.to_{each}" for each in "qkv"}
        names |= {f"{ours}.attention.out": f"{theirs}.attn1.to_out.0", f"{ours}.modulation": f"{theirs}.norm1.linear"}
        names |= {f"{ours}.layers.0": f"{theirs}.ff.net.0.proj", f"{ours}.layers.2": f"{theirs}.ff.net.2"}
    found = {f"{our}.{kind}": state[f"{their}.{kind}"] for our, their in names.items() for kind in ("weight", "bias")}
    found["patch.weight"] = found["patch.weight"].flatten(1)
    found["time.0.weight"] = found["time.0.weight"].roll(128, dims=1)  # they have the cosines first
    for kind in ("weight", "bias"):  # a pixel's channels are together in theirs
        found[f"out.{kind}"] = (
            found[f"out.{kind}"].unflatten(0, (patch_size**2, -1)).transpose(0, 1).flatten(0, 1).contiguous()
        )
    return found


@pytest.mark.parametrize("patch_size", [1, 2])
def test_it_is_the_function_of_diffusers(patch_size: int) -> None:
    peer = randomised(
        DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=3,
            out_channels=6,
            num_layers=2,
            sample_size=8,
            patch_size=patch_size,
            num_embeds_ada_norm=10,
            norm_eps=1e-6,
        )
    )
    first, *rest = (block.norm1.emb for block in peer.transformer_blocks)
    for embedding in rest:
        embedding.load_state_dict(first.state_dict())
    network = DiT(**{**SMALL, "patch_size": patch_size}, out_channels=6, vector_dim=24).eval()
    network.load_state_dict(theirs_as_ours(peer.state_dict(), 2, patch_size))
    x, c_noise, label = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0]), torch.tensor([4, 7])
    with torch.no_grad():
        expected = peer(x, c_noise, label).sample
        ours = network(x, c_noise, vector=first.class_embedder.embedding_table(label))
    assert ours.shape == (2, 6, 8, 8)
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "millions"),
    [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)],
    ids=["S", "B", "L", "XL"],
)
def test_published_sizes(width: int, depth: int, num_heads: int, millions: int) -> None:
    """DiT-S/2 to XL/2 on latents of 32 x 32 with 1000 classes: table 4 of the paper, and what its code counts for XL/2.

    That count has the fixed table of positions among the weights.
    """
    with torch.device("meta"):
        network = DiT([4, 32, 32], 2, width, depth, num_heads, out_channels=8, vector_dim=width)
        label = Label(1000, width)
    weights = sum(weight.numel() for part in (network, label) for weight in part.parameters())
    positions = sum(table.numel() for table in network.buffers())
    assert round(weights / 1e6) == millions
    assert positions == 16 * 16 * width
    assert width != 1152 or weights + positions == 675_129_632


def test_at_first_it_is_zero_and_each_block_does_nothing() -> None:
    network = DiT(**SMALL, vector_dim=5, token_dim=6)
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 5.0])
    vector, tokens = torch.randn(2, 5), torch.randn(2, 4, 6)
    assert (network(x, c_noise, vector=vector, tokens=tokens) == 0).all()
    h = torch.randn(2, 16, 24)
    for block in network.blocks:
        assert torch.equal(block(h, torch.randn(2, 24), tokens, None, network.positions.rotate), h)
    assert not torch.equal(network.patch(torch.randn(2, 16, 12)), torch.zeros(2, 16, 24))


@pytest.mark.parametrize("sizes", [[12], [8, 12], [4, 8, 4]])
@pytest.mark.parametrize("positions", KINDS.values(), ids=KINDS.keys())
def test_one_two_and_three_dimensions(sizes: list[int], positions: MakePositions) -> None:
    network = randomised(DiT([2, *sizes], 2, 24, 2, 2, positions=positions))
    x = torch.randn(2, 2, *sizes, requires_grad=True)
    y = network(x, torch.tensor([1.0, 5.0]))
    assert y.shape == x.shape
    y[0, 0].flatten()[0].backward()
    gradient = x.grad
    assert gradient is not None
    assert (gradient[0] != 0).all()  # attention reaches everywhere
    assert (gradient[1] == 0).all()  # and stays in its sample


@pytest.mark.parametrize("sizes", [[12], [4, 6], [4, 2, 4]])
def test_a_patch_comes_out_where_it_went_in(sizes: list[int]) -> None:
    """A block does nothing at first, so that a pixel of the output depends on its own patch alone."""
    network = DiT([2, *sizes], 2, 24, 1, 2, positions=nothing)
    torch.nn.init.normal_(network.out.weight)
    x = torch.randn(1, 2, *sizes)
    changed = x.clone()
    corner = (slice(None), slice(None), *(slice(2, 4) if size > 2 else slice(0, 2) for size in sizes))
    changed[corner] += 1
    moved = network(x, torch.ones(1)) - network(changed, torch.ones(1))
    assert (moved[corner] != 0).all()
    assert (moved != 0).sum() == moved[corner].numel()


def test_every_condition_changes_the_output_and_a_mask_hides_tokens() -> None:
    network = randomised(DiT(**SMALL, vector_dim=5, token_dim=6, concat_channels=2))
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 5.0])
    conditions = {
        "vector": torch.randn(2, 5),
        "tokens": torch.randn(2, 4, 6),
        "concat": torch.randn(2, 2, 8, 8),
        "mask": torch.tensor([[True, True, False, False]] * 2),
    }
    with torch.no_grad():
        plain = network(x, c_noise, **conditions)
        for name in ("vector", "tokens", "concat"):
            changed = {**conditions, name: conditions[name] + 1}
            assert not torch.allclose(network(x, c_noise, **changed), plain, atol=1e-3), name
        hidden = conditions["tokens"].clone()
        hidden[:, 2:] += 100
        assert torch.allclose(network(x, c_noise, **{**conditions, "tokens": hidden}), plain, atol=1e-5)
        assert not torch.allclose(network(x, c_noise + 50, **conditions), plain, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"vector": torch.ones(1, 5)}, "vector_dim"), ({"mask": torch.ones(1, 4)}, "token_dim"), ({}, "tokens condition")],
)
def test_a_condition_and_its_door_belong_together(given: dict[str, Tensor], name: str) -> None:
    network = DiT(**SMALL, token_dim=0 if given else 6)
    with pytest.raises(ValueError, match=name):
        network(torch.randn(1, 3, 8, 8), torch.ones(1), **given)


@pytest.mark.parametrize("positions", [nothing, *KINDS.values()], ids=["nothing", *KINDS])
def test_only_positions_tell_patches_apart(positions: MakePositions) -> None:
    """Two patches that change places do so in the output, unless they know where they are: attention is for sets."""
    network = randomised(DiT([2, 6], 1, 16, 2, 2, positions=positions))
    x, c_noise, order = torch.randn(2, 2, 6), torch.tensor([1.0, 5.0]), torch.tensor([3, 1, 2, 0, 4, 5])
    with torch.no_grad():
        difference = (network(x[:, :, order], c_noise) - network(x, c_noise)[:, :, order]).abs().max()
    assert difference < 1e-5 if positions is nothing else difference > 1e-3


def test_learned_positions_begin_as_the_fixed_ones_and_are_trained() -> None:
    learned, h = Learned([3, 4], 8, 4), torch.randn(2, 12, 8)
    assert torch.equal(learned(h), SineCosine([3, 4], 8, 4)(h))
    learned(h).sum().backward()
    assert {name: weight.grad is not None for name, weight in learned.named_parameters()} == {"table": True}


@pytest.mark.parametrize("grid", [[5], [3, 4], [2, 3, 2]])
def test_sine_cosine_is_the_formula(grid: list[int]) -> None:
    """Feature k of an axis' sines and cosines; three axes share 8 features as 2, 2, 2 and leave two empty."""
    table, axes = SineCosine(grid, 8, 4)(torch.zeros(1, math.prod(grid), 8))[0], len(grid)
    rates = [1e4 ** (-k / (8 // (2 * axes))) for k in range(8 // (2 * axes))]
    for row, place in enumerate(torch.cartesian_prod(*(torch.arange(size) for size in grid)).reshape(-1, axes)):
        expected = [f(p * rate) for p in place.flip(0).tolist() for f in (math.sin, math.cos) for rate in rates]
        assert table[row].tolist() == pytest.approx([*expected, *[0] * (8 - len(expected))], abs=1e-6)


def test_rotary_scores_depend_on_differences_of_places_alone() -> None:
    """q k^T = sum over pairs of |q| |k| cos(angle(q) - angle(k) + rate (place of q - place of k)), along each axis."""
    grid, head_dim, base = [3, 5], 10, 50.0
    rotary = Rotary(grid, 20, head_dim, base=base).double()
    q, k = torch.randn(2, head_dim, dtype=torch.float64)
    each = torch.ones(1, 1, 15, 1, dtype=torch.float64)
    scores = (rotary.rotate(q * each) @ rotary.rotate(k * each).transpose(2, 3))[0, 0]
    a, b = torch.view_as_complex(q.reshape(-1, 2)), torch.view_as_complex(k.reshape(-1, 2))
    places = torch.cartesian_prod(*(torch.arange(size) for size in grid))
    for i in range(15):
        for j in range(15):
            down, right = (places[i] - places[j]).tolist()
            turns = torch.tensor([right, right / base**0.5, down, down / base**0.5, 0.0], dtype=torch.float64)
            assert scores[i, j].item() == pytest.approx(
                (a * b.conj() * torch.exp(1j * turns)).real.sum().item(), abs=1e-5
            )


def test_rotary_is_that_of_diffusers() -> None:
    q = torch.randn(2, 3, 7, 8)
    expected = apply_rotary_emb(q, get_1d_rotary_pos_embed(8, 7, theta=100.0, use_real=True))
    assert torch.allclose(Rotary([7], 24, 8, base=100.0).rotate(q), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("positions", KINDS.values(), ids=KINDS.keys())
def test_it_compiles_whole_and_computes_in_bfloat16(positions: MakePositions) -> None:
    network = randomised(DiT(**SMALL, vector_dim=5, token_dim=6, positions=positions))
    x, c_noise = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 500.0])
    cond = {
        "vector": torch.randn(2, 5),
        "tokens": torch.randn(2, 4, 6),
        "mask": torch.tensor([[True] * 3 + [False]] * 2),
    }
    with torch.no_grad():
        plain = network(x, c_noise, **cond)
        assert torch.equal(torch.compile(network, fullgraph=True, backend="eager")(x, c_noise, **cond), plain)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, c_noise, **cond)
    assert half.dtype == torch.bfloat16
    assert 0 < (half - plain).norm() < 0.03 * plain.norm()


def test_attention_can_be_replaced() -> None:
    calls = []

    def counted(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        calls.append((tuple(q.shape), tuple(k.shape), mask is not None))
        return scaled_dot_product(q, k, v, mask)

    network = DiT(**SMALL, token_dim=6, attend=counted)
    mask = torch.ones(2, 5, dtype=torch.bool)
    network(torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0]), tokens=torch.randn(2, 5, 6), mask=mask)
    assert calls == [((2, 2, 16, 12), (2, 2, 16, 12), False), ((2, 2, 16, 12), (2, 2, 5, 12), True)] * 2


def test_dropout_works_in_training_only() -> None:
    network = randomised(DiT(**SMALL, dropout=0.5))
    x, c_noise = torch.randn(1, 3, 8, 8), torch.tensor([3.0])
    assert torch.equal(network(x, c_noise), network(x, c_noise))
    network.train()
    assert not torch.equal(network(x, c_noise), network(x, c_noise))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 3}, r"network.patch_size=3 does not divide the sizes \[8, 8\]"),
        ({"num_heads": 5}, "network.num_heads=5"),
        ({"shape": [3, 8, 8, 8], "width": 4}, "network.width=4"),
        ({"positions": Rotary, "num_heads": 8}, "network.num_heads"),
        ({"positions": partial(Rotary, base=10.0), "num_heads": 12}, "network.num_heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiT(**{**SMALL, **changes})
