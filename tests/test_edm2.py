"""EDM2: published sizes, magnitudes kept by every layer and through the network, weights normalised in training."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from inkdrop.networks import EDM2UNet
from inkdrop.networks.edm2 import MPFourier, MPLayer, mp_cat, mp_silu, mp_sum, normalised

SMALL: dict[str, Any] = {
    "shape": [3, 8, 8],
    "base_channels": 8,
    "channel_multipliers": [1, 2],
    "num_blocks": 1,
    "attention_resolutions": [4],
    "head_dim": 8,
}


@pytest.mark.parametrize(
    ("channels", "millions"), [(128, 124.7), (192, 280.2), (256, 497.8), (320, 777.5), (384, 1119.3), (448, 1523.2)]
)
def test_published_sizes(channels: int, millions: float) -> None:
    """XS to XXL for latents of ImageNet-512, table 2; the vector is one-hot over the 1000 classes."""
    with torch.device("meta"):
        network = EDM2UNet([4, 64, 64], channels, [1, 2, 3, 4], 3, [16, 8], head_dim=64, vector_dim=1000)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == millions


def test_functions_of_magnitude_are_their_closed_forms() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(99)
    values = mp_silu(torch.from_numpy(nodes)).square().numpy()
    assert (values @ weights / math.sqrt(2 * math.pi)) == pytest.approx(1, abs=2e-3)  # E[y^2] for a normal x
    one, other = torch.eye(2, dtype=torch.float64)
    for share in (0.0, 0.3, 0.5, 1.0):
        assert mp_sum(one, other, share).norm().item() == pytest.approx(1)
        assert (mp_sum(one, other, share) * (1 - share))[1].item() == pytest.approx(
            (mp_sum(one, other, share) * share)[0].item()
        )
        joined = mp_cat(torch.ones(1, 3), torch.ones(1, 5), share)
        assert joined.square().mean().item() == pytest.approx(1)
        first, second = joined.split([3, 5], dim=1)
        assert second.square().sum().item() * (1 - share) ** 2 == pytest.approx(
            first.square().sum().item() * share**2, rel=1e-5
        )
    x = torch.randn(4, 6, 5) * 100
    assert normalised(x, 1).square().mean(dim=1).sqrt().flatten().tolist() == pytest.approx([1] * 20, abs=1e-4)
    assert normalised(torch.zeros(1, 3), 1).tolist() == [[0, 0, 0]]


def test_fourier_features_are_their_formula() -> None:
    fourier, c_noise = MPFourier(20_000, scale=0.5), torch.tensor([0.4, 0.9])
    features = fourier(c_noise)
    angles = 2 * math.pi * (fourier.frequencies * c_noise[:, None] + fourier.phases)
    assert torch.allclose(features, math.sqrt(2) * angles.cos(), atol=1e-5)
    assert features.square().mean(dim=1).tolist() == pytest.approx([1, 1], abs=0.03)
    # Bochner: the mean product of two embeddings is exp(-(2 pi scale d)^2 / 2) at the distance d
    assert (features[0] * features[1]).mean().item() == pytest.approx(math.exp(-((math.pi * 0.5) ** 2) / 2), abs=0.03)


@pytest.mark.parametrize("kernel", [(), (3,), (3, 3), (3, 3, 3)])
def test_a_layer_keeps_the_magnitude_whatever_is_stored(kernel: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = MPLayer(32, 64, kernel).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= 10 * torch.rand(64, *(1,) * (parameter.dim() - 1))
        y = layer(torch.randn(512, 32, *(12 if len(kernel) < 3 else 6 for _ in kernel)))
        inside = y[(slice(None), slice(None), *(slice(1, -1) for _ in kernel))]
    assert inside.square().mean().item() == pytest.approx(1, abs=0.02)
    per_output = inside.transpose(0, 1).flatten(1).square().mean(dim=1)
    assert per_output.tolist() == pytest.approx([1] * 64, abs=0.25)


def test_magnitudes_are_kept_through_the_depth() -> None:
    """Blocks in sequence neither grow nor shrink, beyond what the zeros beyond borders take away."""
    torch.manual_seed(0)
    network = EDM2UNet([3, 32, 32], 32, [1, 2], 4, [16]).eval()
    magnitudes = []
    for blocks in (network.down, network.middle, *(level.blocks for level in network.up)):
        for block in blocks:
            block.register_forward_hook(lambda *call: magnitudes.append(call[-1].square().mean().sqrt().item()))
    with torch.no_grad():
        network.gain.fill_(1)
        y = network(torch.randn(2, 3, 32, 32), torch.randn(2))
    assert len(magnitudes) == 21
    assert magnitudes == pytest.approx([1] * 21, abs=0.2)
    assert y.square().mean().sqrt().item() == pytest.approx(1, abs=0.25)


def test_a_block_is_its_formula() -> None:
    """The way down and the way up, with attention, from the equations."""
    torch.manual_seed(0)
    network = EDM2UNet(**SMALL).double().eval()
    h, embedding = torch.randn(2, 8, 4, 4, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)

    def unit(x: Tensor, dim: int) -> Tensor:
        return x / x.square().mean(dim, keepdim=True).sqrt()

    def applied(layer: Any, x: Tensor) -> Tensor:
        weight = layer.weight.flatten(1)
        weight = (weight / weight.norm(dim=1, keepdim=True)).view_as(layer.weight)
        if weight.dim() == 2:
            return x @ weight.T
        return torch.nn.functional.conv2d(x, weight, padding=weight.shape[-1] // 2)

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return (0.7 * a + 0.3 * b) / math.sqrt(0.58)

    def silu(x: Tensor) -> Tensor:
        return x / (1 + torch.exp(-x)) / 0.596

    def attended(attention: Any, x: Tensor) -> Tensor:
        flat = x.flatten(2).mT
        q, k, v = (unit(applied(layer, flat).view(2, 16, 2, 8), 3) for layer in (attention.q, attention.k, attention.v))
        weights = (torch.einsum("bihc,bjhc->bhij", q, k) / math.sqrt(8)).softmax(3)
        h = torch.einsum("bhij,bjhc->bihc", weights, v).reshape(2, 16, 16)
        return mixed(x, applied(attention.out, h).mT.reshape(x.shape))

    for block, x in ((network.down[2], h), (network.up[0].blocks[0], torch.cat([h, h, h, -h], dim=1))):
        with torch.no_grad():
            block.gain.fill_(0.7)
            scale = 1 + 0.7 * applied(block.embedding, embedding)[:, :, None, None]
            downward = block is network.down[2]
            start = unit(applied(block.shortcut, x), 1) if downward else x
            branch = applied(block.conv_2, silu(scale * applied(block.conv_1, silu(start))))
            expected = attended(block.attention, mixed(start if downward else applied(block.shortcut, x), branch))
            assert torch.allclose(block(x, embedding, None, None), expected, atol=3e-3)


def test_what_is_stored_is_normalised_in_training_and_its_length_is_never_seen() -> None:
    torch.manual_seed(0)
    network = EDM2UNet(**SMALL, vector_dim=4)
    x, c_noise, vector = torch.randn(2, 3, 8, 8), torch.randn(2), torch.randn(2, 4)
    weights = [layer.weight for layer in network.modules() if isinstance(layer, MPLayer)]
    with torch.no_grad():
        for gain in (parameter for parameter in network.parameters() if parameter.dim() == 0):
            gain.fill_(0.5)
        network.eval()
        expected = network(x, c_noise, vector)
        for weight in weights:
            weight *= 7
        assert torch.allclose(network(x, c_noise, vector), expected, atol=2e-3 * expected.abs().max().item())
        assert weights[0].square().mean() > 30  # nothing is stored in evaluation
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network(x, c_noise, vector).square().mean().backward()
    for weight in weights:
        assert weight.flatten(1).square().mean(1).sqrt().tolist() == pytest.approx([1] * len(weight), abs=1e-3)
        assert weight.grad is not None
        along = (weight.grad * weight).flatten(1).sum(1).abs()
        assert (along <= 1e-3 * weight.grad.flatten(1).norm(dim=1) * weight.flatten(1).norm(dim=1) + 1e-9).all()
    optimizer.step()
    network(x, c_noise, vector)
    for weight in weights:
        assert weight.flatten(1).square().mean(1).sqrt().tolist() == pytest.approx([1] * len(weight), abs=1e-3)


def test_two_calls_of_one_step_have_the_gradient_of_their_sum() -> None:
    """Weights stored by the second call do not disturb the gradient of the first."""
    torch.manual_seed(0)
    network = EDM2UNet(**SMALL)
    with torch.no_grad():
        network.gain.fill_(1)
    single, twice = network, copy.deepcopy(network)
    x, c_noise = torch.randn(4, 3, 8, 8), torch.randn(4)
    single(x, c_noise).square().sum().backward()
    (twice(x[:2], c_noise[:2]).square().sum() + twice(x[2:], c_noise[2:]).square().sum()).backward()
    for one, other in zip(single.parameters(), twice.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-3 * one.grad.abs().max().item())
