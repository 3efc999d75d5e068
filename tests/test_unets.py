"""What every UNet promises: doors, skips, residuals, dimensions, autocast, compilation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from inkdrop.networks import EDM2UNet, LatentUNet, NCSNpp, UNet
from inkdrop.networks.layers import scaled_dot_product
from inkdrop.networks.ncsnpp import Fourier
from inkdrop.networks.resampling import ResidualInput, SkipInput

SMALL: dict[str, Any] = {"base_channels": 8, "channel_multipliers": [1, 2], "num_blocks": 1, "head_dim": 8}


def small(sizes: list[int], options: dict[str, Any]) -> dict[str, Any]:
    return {**SMALL, "shape": [3, *sizes], "attention_resolutions": [sizes[0] // 2], **options}


def unet(sizes: list[int], **options: Any) -> torch.nn.Module:
    return UNet(**small(sizes, options), norm_groups=4)


def adm(sizes: list[int], **options: Any) -> torch.nn.Module:
    return UNet(**small(sizes, options), norm_groups=4, scale_shift=True, resample_in_block=True)


def ddpmpp(sizes: list[int], **options: Any) -> torch.nn.Module:
    return NCSNpp(**small(sizes, options), resample=[1, 1])


def ncsnpp(sizes: list[int], **options: Any) -> torch.nn.Module:
    variant: dict[str, Any] = {"embedding": Fourier, "progressive_input": ResidualInput}
    return NCSNpp(**small(sizes, options), resample=[1, 3, 3, 1], **variant)


def pyramids(sizes: list[int], **options: Any) -> torch.nn.Module:
    variant: dict[str, Any] = {"progressive_input": SkipInput, "output_levels": 2}
    return NCSNpp(**small(sizes, options), resample=[1, 3, 3, 1], **variant)


def edm2(sizes: list[int], **options: Any) -> torch.nn.Module:
    return EDM2UNet(**small(sizes, options))


def latent(sizes: list[int], **options: Any) -> torch.nn.Module:
    return LatentUNet(**small(sizes, options), num_heads=None, norm_groups=4)


Make = Callable[..., torch.nn.Module]
ALL = pytest.mark.parametrize("make", [unet, adm, ddpmpp, ncsnpp, pyramids, edm2, latent])


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Zeroed layers would hide what flows through them."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def conditions() -> dict[str, Tensor]:
    return {
        "vector": torch.randn(2, 5),
        "tokens": torch.randn(2, 4, 6),
        "concat": torch.randn(2, 2, 8, 8),
        "mask": torch.tensor([[True, True, False, False]] * 2),
    }


@ALL
def test_every_condition_changes_the_output_and_a_mask_hides_tokens(make: Make) -> None:
    network = randomised(make([8, 8], vector_dim=5, token_dim=6, concat_channels=2))
    x, c_noise, told = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.5]), conditions()
    with torch.no_grad():
        plain = network(x, c_noise, **told)
        for name in ("vector", "tokens", "concat"):
            changed = {**told, name: told[name] + torch.randn_like(told[name])}
            assert not torch.allclose(network(x, c_noise, **changed), plain, atol=1e-3), name
        assert not torch.allclose(network(x, c_noise + 0.3, **told), plain, atol=1e-3)
        hidden = told["tokens"].clone()
        hidden[:, 2:] += 100
        assert torch.allclose(network(x, c_noise, **{**told, "tokens": hidden}), plain, atol=1e-5)
        with pytest.raises(ValueError, match="got none"):
            network(x, c_noise, **{**told, "vector": None})
        with pytest.raises(ValueError, match=r"network\.token_dim"):
            make([8, 8])(x, c_noise, tokens=told["tokens"])


@ALL
def test_residuals_are_added_to_the_skips_and_the_middle(make: Make) -> None:
    network = randomised(make([8, 8]))
    x, c_noise = torch.randn(1, 3, 8, 8), torch.tensor([0.3])
    shapes = [(8, 8, 8), (8, 8, 8), (8, 4, 4), (16, 4, 4), (16, 4, 4)]
    with torch.no_grad():
        plain, zeros = network(x, c_noise), [torch.zeros(1, *shape) for shape in shapes]
        assert torch.equal(network(x, c_noise, residuals=zeros), plain)
        for i in range(len(zeros)):
            one = [torch.randn_like(zero) if i == j else zero for j, zero in enumerate(zeros)]
            assert not torch.allclose(network(x, c_noise, residuals=one), plain, atol=1e-3), i
        with pytest.raises(ValueError, match="4 residuals were given, but the skips and the middle need 5"):
            network(x, c_noise, residuals=zeros[1:])


@ALL
def test_each_block_on_the_way_up_gets_the_newest_skip(make: Make) -> None:
    """Beside the features; `encode` and residuals have them in the order in which they are left."""
    network: Any = randomised(make([8, 8], num_blocks=2))
    x, c_noise, joined = torch.randn(1, 3, 8, 8), torch.tensor([0.3]), []
    for level in network.up:
        for block in level.blocks:
            block.register_forward_hook(lambda block, given, output: joined.append(given[0]))
    with torch.no_grad():
        _, skips, _ = network.encode(x, c_noise)
        network(x, c_noise)
    assert len(joined) == len(skips) == 6
    for both, skip in zip(joined, reversed(skips), strict=True):
        taken = both[:, -skip.shape[1] :]  # EDM2 scales it
        assert torch.allclose(taken / taken.norm(), skip / skip.norm(), atol=1e-6)


@ALL
@pytest.mark.parametrize("sizes", [[16], [8, 12], [4, 8, 4]])
def test_one_two_and_three_dimensions(make: Make, sizes: list[int]) -> None:
    network = randomised(make(sizes))
    x = torch.randn(2, 3, *sizes, requires_grad=True)
    y = network(x, torch.tensor([0.1, 0.5]))
    assert y.shape == x.shape
    y[0].sum().backward()
    assert x.grad is not None
    assert (x.grad[0] != 0).all()  # attention reaches everywhere
    assert (x.grad[1] == 0).all()  # and stays in its sample


@ALL
def test_attention_can_be_replaced_and_outputs_added(make: Make) -> None:
    calls = []

    def counted(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        calls.append(tuple(q.shape))
        return scaled_dot_product(q, k, v, mask)

    network = make([8, 8], attend=counted, out_channels=6)
    assert network(torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.5])).shape == (2, 6, 8, 8)
    # One block down, the middle, and on the way up both blocks, or the last one of score SDEs.
    assert calls == [(2, 2, 16, 8)] * (3 if isinstance(network, NCSNpp) else 4)


@ALL
def test_dropout_works_in_training_only(make: Make) -> None:
    network = randomised(make([8, 8], dropout=0.5))
    x, c_noise = torch.randn(1, 3, 8, 8), torch.tensor([0.3])
    assert torch.equal(network(x, c_noise), network(x, c_noise))
    network.train()
    assert not torch.allclose(network(x, c_noise), network(x, c_noise), atol=1e-3)


@ALL
def test_in_bfloat16_it_is_the_same_function(make: Make) -> None:
    network = randomised(make([8, 8], vector_dim=5, token_dim=6, concat_channels=2))
    x, c_noise, told = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.5]), conditions()
    with torch.no_grad():
        y = network(x, c_noise, **told)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(x, c_noise, **told)
    assert 0 < (rounded.float() - y).square().mean().sqrt() < 0.05 * y.square().mean().sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("make", [adm, pyramids, edm2, latent])
def test_it_compiles_whole_and_in_training(make: Make) -> None:
    network = randomised(make([8, 8], vector_dim=5, token_dim=6)).train()
    x, c_noise, told = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.5]), conditions()
    del told["concat"]

    def results(call: Callable[..., Tensor]) -> list[Tensor]:
        network.zero_grad()
        y = call(x, c_noise, **told)
        y.square().sum().backward()
        return [y.detach(), *(each.grad.clone() for each in network.parameters() if each.grad is not None)]

    expected = results(network)
    assert len(expected) == 1 + len(list(network.parameters()))
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    for one, other in zip(expected, results(compiled), strict=True):
        assert torch.allclose(one, other, atol=1e-3 * one.abs().max().item() + 1e-6)
