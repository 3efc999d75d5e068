"""Networks: the UNet equals diffusers', every door is open, wrong sizes are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peers import diffusers_cifar10, diffusers_small

from inkdrop.networks import MLP, UNet
from inkdrop.networks.diffusers_format import from_diffusers, read_diffusers_folder, to_diffusers
from inkdrop.networks.layers import resolutions, scaled_dot_product, sinusoidal

SMALL: dict[str, Any] = {
    "shape": [3, 16, 16],
    "base_channels": 8,
    "channel_multipliers": [1, 2],
    "num_blocks": 1,
    "attention_resolutions": [8],
    "norm_groups": 4,
}


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Zeroed layers would hide what flows through them."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def cifar10() -> UNet:
    return UNet([3, 32, 32], 128, [1, 2, 2, 2], 2, [16]).eval()


@pytest.mark.slow
def test_the_published_ddpm_is_the_same_function_both_ways() -> None:
    theirs, ours = diffusers_cifar10(), cifar10()
    assert sum(parameter.numel() for parameter in ours.parameters()) == 35_746_307
    ours.load_state_dict(from_diffusers(theirs.state_dict(), ours))
    x, c_noise = torch.randn(2, 3, 32, 32), torch.tensor([3.0, 900.0])
    with torch.no_grad():
        expected = theirs(x, c_noise).sample
        assert (ours(x, c_noise) - expected).abs().max() < 1e-5 < expected.std()
        back = diffusers_cifar10()
        back.load_state_dict(to_diffusers(ours))
        assert torch.equal(back(x, c_noise).sample, expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"head_dim": 4}, {"attention_head_dim": 4}),
        (
            {"scale_shift": True, "head_dim": 8},
            {"resnet_time_scale_shift": "scale_shift", "attention_head_dim": 8, "attn_norm_num_groups": 4},
        ),
    ],
    ids=["heads", "scale-shift"],
)
def test_variants_equal_those_of_diffusers(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    peer = randomised(diffusers_small(**theirs))
    network = UNet(**SMALL, **ours).eval()
    network.load_state_dict(from_diffusers(peer.state_dict(), network))
    x, c_noise = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 900.0])
    with torch.no_grad():
        expected = peer(x, c_noise).sample
        assert (network(x, c_noise) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("safe", [True, False])
def test_a_published_folder_loads(safe: bool, tmp_path: Path) -> None:
    peer = randomised(diffusers_small())
    peer.save_pretrained(tmp_path / "unet", safe_serialization=safe)
    network = UNet(**SMALL, head_dim=8).eval()
    network.load_state_dict(read_diffusers_folder(tmp_path, network))
    x, c_noise = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 900.0])
    with torch.no_grad():
        assert torch.allclose(network(x, c_noise), peer(x, c_noise).sample, atol=1e-4)


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    diffusers_small().save_pretrained(tmp_path)
    wider = UNet(**{**SMALL, "base_channels": 16})
    with pytest.raises(ValueError, match="has the shape"):
        read_diffusers_folder(tmp_path, wider)
    deeper = UNet(**{**SMALL, "num_blocks": 2})
    with pytest.raises(ValueError, match="missing"):
        read_diffusers_folder(tmp_path, deeper)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "flip_sin_to_cos": True}))
    with pytest.raises(ValueError, match="flip_sin_to_cos"):
        read_diffusers_folder(tmp_path, UNet(**SMALL))


def test_scaled_dot_product_is_the_formula() -> None:
    q, k, v = torch.randn(3, 2, 4, 5, 8, dtype=torch.float64)
    mask = torch.tensor([True, True, False, True, True])[None, None, None].expand(2, 1, 1, 5)
    weights = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(~mask, float("-inf")).softmax(3)
    assert torch.allclose(scaled_dot_product(q, k, v, mask), weights @ v, atol=1e-12)


def test_sinusoidal_frequencies() -> None:
    embedding = sinusoidal(torch.tensor([2.0], dtype=torch.float64), 6)[0]
    angles = torch.tensor([2.0, 2e-2, 2e-4], dtype=torch.float64)
    assert torch.allclose(embedding, torch.cat([angles.sin(), angles.cos()]), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [3, 15, 16]}, "halved"),
        ({"norm_groups": 3}, "norm_groups"),
        ({"head_dim": 5}, "head_dim"),
        ({"attention_resolutions": [5]}, "attention_resolutions"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{**SMALL, **changes})


@pytest.mark.parametrize(
    ("sizes", "levels", "attended"),
    [
        ([8, 8], 2, [1]),  # what conf/network/unet.yaml said before it followed the shape
        ([28, 28], 3, [1, 2]),
        ([64, 96], 5, [3, 4]),
        ([16, 24], 3, [1, 2]),
        ([256, 192], 6, [4, 5]),
        ([50, 50], 2, []),
        ([7, 5], 1, []),
        ([1000], 4, [2, 3]),
        ([16, 16, 16], 3, [2]),
    ],
)
def test_depth_and_attention_follow_the_shape(sizes: list[int], levels: int, attended: list[int]) -> None:
    widths, attends = resolutions(sizes, 8, None, None, None)
    assert widths == [8, 16, 32, 32, 32, 32][:levels]
    assert [level for level, each in enumerate(attends) if each] == attended
    network = UNet([3, *sizes], 8, None, 1, None, norm_groups=4)
    assert network(torch.randn(1, 3, *sizes), torch.ones(1)).shape == (1, 3, *sizes)


@pytest.mark.parametrize(
    ("sizes", "nearest"), [([255, 255], "256,256"), ([100, 75], "100,76"), ([9973], "9968"), ([20, 30, 17], "20,32,16")]
)
def test_odd_sizes_are_refused_with_the_nearest_that_fit(sizes: list[int], nearest: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"data.shape=[C,{nearest}]")):
        resolutions(sizes, 8, None, None, None)
    resolutions([int(size) for size in nearest.split(",")], 8, None, None, None)


@pytest.mark.parametrize("network", [UNet(**SMALL), MLP([2], 16, 1)], ids=["unet", "mlp"])
def test_a_condition_without_a_door_is_refused(network: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 16, 16) if isinstance(network, UNet) else torch.randn(1, 2)
    with pytest.raises(ValueError, match="vector_dim"):
        network(x, torch.ones(1), vector=torch.randn(1, 5))


@pytest.mark.parametrize("network", [UNet(**SMALL, vector_dim=5), MLP([2], 16, 1, vector_dim=5)], ids=["unet", "mlp"])
def test_a_missing_condition_is_refused(network: torch.nn.Module) -> None:
    x = torch.randn(1, 3, 16, 16) if isinstance(network, UNet) else torch.randn(1, 2)
    with pytest.raises(ValueError, match="condition"):
        network(x, torch.ones(1))


def test_mlp_reads_the_tokens_that_its_mask_shows() -> None:
    torch.manual_seed(0)
    network = MLP([2], 16, 1, token_dim=5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, c_noise, tokens = torch.randn(3, 2), torch.rand(3), torch.randn(3, 4, 5)
    mask = torch.tensor([[True, True, False, False]] * 3)
    shown = network(x, c_noise, tokens=tokens, mask=mask)
    assert torch.allclose(network(x, c_noise, tokens=tokens[:, :2]), shown, atol=1e-6)
    assert not torch.allclose(network(x, c_noise, tokens=tokens), shown, atol=1e-3)
    with pytest.raises(ValueError, match="tokens condition"):
        network(x, c_noise)


@pytest.mark.slow
def test_mlp_learns_a_function_of_x_time_and_condition() -> None:
    torch.manual_seed(0)
    network = MLP([2], 64, 2, vector_dim=1)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    x, c_noise, vector = torch.randn(512, 2), 1000 * torch.rand(512), torch.randn(512, 1)
    target = x * torch.cos(c_noise / 300)[:, None] + vector
    for _ in range(300):
        loss = (network(x, c_noise, vector) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * target.var()
