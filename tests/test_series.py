"""Series (channels, length): their networks, and a run from a file of waves to samples of the pitch asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import inkdrop
from inkdrop.networks import DiT, UNet
from inkdrop.networks.positions import Rotary

OPTIONS = [
    "data=arrays",
    "data.shape=[1,16]",
    "+data.fields.label=pitch",
    "codec=standardize",
    "guidance=none",
    "conditioner.dropout=0.0",
    "prediction=v",
    "extractor=identity",
    "extractor.dim=16",
    "logger=none",
    "data.batch_size=64",
    "time_grid.num_steps=20",
    "evaluation.num_samples=20",
    "metric.frechet.min_samples=2",
    "callbacks.pictures=null",
]
NETWORKS = {
    "unet_1d": [
        "network=unet_1d",
        "network.base_channels=8",
        "network.norm_groups=4",
        "network.channel_multipliers=[1,2]",
    ],
    "transformer": ["network=transformer", "network.width=32", "network.depth=2", "network.num_heads=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_network_of_series_learns_waves_of_the_pitch_asked_for(options: list[str], tmp_path: Path) -> None:
    """Waves of 1 or 3 periods at any phase: most of a sample's energy is at its label's frequency."""
    generator = np.random.default_rng(0)
    pitch, phase = generator.integers(2, size=1000), generator.uniform(0, 2 * np.pi, (1000, 1, 1))
    waves = np.sin(2 * np.pi * (2 * pitch[:, None, None] + 1) * np.arange(16) / 16 + phase)
    np.savez(tmp_path / "waves.npz", x=waves, pitch=pitch)
    folder = tmp_path / "run"
    folder.mkdir()
    run = [f"data.path={tmp_path / 'waves.npz'}", f"output_dir={folder}", "trainer.max_steps=150"]
    inkdrop.train(*OPTIONS, *options, *run)
    pipeline = inkdrop.load(folder)
    for label in range(2):
        x = torch.as_tensor(pipeline(pipeline.conditioner.request(range(30), label=label), range(30)))
        energy = torch.fft.rfft(x[:, 0].double()).abs().square().mean(0)
        assert energy[2 * label + 1] > 0.6 * energy.sum(), label


@pytest.mark.parametrize(
    "make",
    [
        partial(UNet, [3, 16], 8, [1, 2], 1, [8], norm_groups=4),
        partial(DiT, [3, 16], 1, 24, 2, 2, positions=Rotary),
    ],
    ids=["unet", "transformer"],
)
def test_every_condition_changes_the_output_and_a_mask_hides_tokens(make: Callable[..., nn.Module]) -> None:
    network = make(vector_dim=5, token_dim=6, concat_channels=2).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, c_noise = torch.randn(2, 3, 16), torch.tensor([1.0, 5.0])
    conditions = {
        "vector": torch.randn(2, 5),
        "tokens": torch.randn(2, 4, 6),
        "concat": torch.randn(2, 2, 16),
        "mask": torch.tensor([[True, True, False, False]] * 2),
    }
    with torch.no_grad():
        plain = network(x, c_noise, **conditions)
        for name in ("vector", "tokens", "concat"):
            changed = {**conditions, name: conditions[name] + 1}
            assert not torch.allclose(network(x, c_noise, **changed), plain, atol=1e-3), name
        hidden = conditions["tokens"].clone()
        hidden[:, 2:] += 100
        assert torch.allclose(network(x, c_noise, **{**conditions, "tokens": hidden}), plain, atol=1e-4)
        seen = conditions["tokens"].clone()
        seen[:, :2] += 1
        assert not torch.allclose(network(x, c_noise, **{**conditions, "tokens": seen}), plain, atol=1e-3)


def test_the_unet_moves_with_what_it_is_given() -> None:
    """A bump that moves by 16 steps moves the output by 16, where neither bump nor change reaches the ends."""
    network = UNet([2, 256], 8, [1, 2], 1, [], norm_groups=4).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.zeros(1, 2, 256, dtype=torch.float64)
    x[:, :, 116:124] = torch.randn(2, 8, dtype=torch.float64)
    with torch.no_grad():
        still, moved = network(x, torch.ones(1)), network(x.roll(16, 2), torch.ones(1))
    inside = slice(64, 192)
    assert torch.allclose(moved.roll(-16, 2)[..., inside], still[..., inside], atol=1e-10)
    assert (moved - still)[..., inside].abs().max() > 1e-2
