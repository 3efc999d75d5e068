"""Activations computed again in the backward pass: the same gradients to the bit from less memory."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from entry_scripts import Script
from torch import Tensor, nn

from inkdrop.networks import MLP, LatentUNet, LearnedVariance, UNet
from inkdrop.networks.recomputing import recompute_activations

_UNET: Any = partial(
    UNet, [3, 16, 16], 8, [1, 2], 1, [8], norm_groups=4, dropout=0.3, vector_dim=5, token_dim=6, concat_channels=2
)
_LATENT: Any = partial(
    LatentUNet, [3, 16, 16], 8, [1, 2], 1, 2, norm_groups=4, dropout=0.3, vector_dim=5, token_dim=6, concat_channels=2
)
_CONDITION = {"vector": torch.randn(4, 5), "tokens": torch.randn(4, 3, 6), "concat": torch.randn(4, 2, 16, 16)}


class _Own(nn.Module):
    """A user's network: blocks in a list, called by name, with two outputs."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Dropout(0.2), nn.Linear(64, 8))

        def forward(self, h: Tensor, *, scale: Tensor) -> tuple[Tensor, Tensor]:
            change = self.layers(h * scale)
            return h + change, change

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.Block() for _ in range(3))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for layer in self.layers:
            x, change = layer(x, scale=c_noise[:, None] / 1000)
            total = total + change
        return total


NETWORKS: dict[str, tuple[nn.Module, Tensor, dict[str, Tensor]]] = {
    "unet": (_UNET(), torch.randn(4, 3, 16, 16), _CONDITION),
    "latent_unet": (_LATENT(), torch.randn(4, 3, 16, 16), _CONDITION),
    "learned_variance": (LearnedVariance(_UNET, 3), torch.randn(4, 3, 16, 16), _CONDITION),
    "mlp": (MLP([2], 32, 3, dropout=0.3, vector_dim=5), torch.randn(4, 2), {"vector": torch.randn(4, 5)}),
    "own": (_Own(), torch.randn(4, 8), {}),
}


def step(network: nn.Module, x: Tensor, cond: dict[str, Tensor]) -> tuple[float, list[Tensor], int]:
    """Loss, gradients, and bytes that the backward pass has found kept."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(x, 1000 * torch.linspace(0.1, 0.9, len(x)), **cond)
        F = output[0] + output[1]["variance"] if isinstance(output, tuple) else output
        loss = F.square().mean()
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return loss.item(), gradients, sum(storages.values())


def pair(name: str) -> tuple[nn.Module, nn.Module, Tensor, dict[str, Tensor]]:
    """The network as it is, and one with the same weights that recomputes."""
    network, x, cond = NETWORKS[name]
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    plain, changed = copy.deepcopy(network), copy.deepcopy(network)
    recompute_activations(changed)
    return plain, changed, x, cond


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradients_are_equal_to_the_bit_and_less_is_kept(name: str) -> None:
    plain, changed, x, cond = pair(name)
    loss, gradients, kept = step(plain, x, cond)
    again, same, less = step(changed, x, cond)
    assert again == loss
    assert len(same) == len(gradients) == len(list(plain.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(same, gradients, strict=True))
    assert less < kept / 2
    assert list(changed.state_dict()) == list(plain.state_dict())


def test_nothing_is_computed_twice_without_gradients() -> None:
    plain, changed, x, cond = pair("unet")
    calls = []
    for network in (plain, changed):
        for block in network.middle:  # type: ignore[union-attr]
            block.residual.conv_1.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    with torch.no_grad():
        assert torch.equal(changed.eval()(x, torch.ones(4), **cond), plain.eval()(x, torch.ones(4), **cond))
    assert len(calls) == 4  # two blocks in each network
    step(changed, x, cond)
    assert len(calls) == 8


@pytest.mark.parametrize(
    ("backend", "dropout"),
    [
        ("eager", 0.0),
        pytest.param("aot_eager", 0.3, marks=pytest.mark.slow),
    ],  # a backend without autograd of its own repeats no dropout
)
def test_a_compiled_network_has_the_same_gradients(backend: str, dropout: float) -> None:
    plain, changed, x, cond = pair("mlp")
    for each in (*plain.modules(), *changed.modules()):
        if isinstance(each, nn.Dropout):
            each.p = dropout
    for network in (plain, changed):
        network.compile(backend=backend, fullgraph=True)
    (loss, gradients, _), (again, same, _) = step(plain, x, cond), step(changed, x, cond)
    assert again == loss
    assert all(torch.equal(a, b) for a, b in zip(same, gradients, strict=True))


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear has no nn.ModuleList of blocks.*checkpoint_activations=false"):
        recompute_activations(nn.Linear(2, 2))


@pytest.mark.slow
def test_a_run_is_the_same_to_the_bit(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[nn.Module] = []

    def recorded(network: nn.Module) -> None:
        changed.append(network)
        recompute_activations(network)

    monkeypatch.setattr("inkdrop.commands.train.prepare.recompute_activations", recorded)
    tiny = ["network.base_channels=8", "network.norm_groups=4", "network.dropout=0.2", "data.batch_size=16"]
    tiny += ["trainer.max_steps=3", "logger=none", "callbacks.pictures=null", "callbacks.evaluate=null"]
    weights = []
    for value in ("true", "false"):
        ended = script("train.py", *tiny, f"checkpoint_activations={value}", f"output_dir=run_{value}")
        assert ended.code == 0, ended.err
        file = Path(f"run_{value}") / "checkpoints" / "step-00000003.ckpt"
        weights.append(torch.load(file, weights_only=True)["state_dict"])
    assert len(changed) == 1
    assert list(weights[0]) == list(weights[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_without_blocks_is_refused_before_it_has_a_folder(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    Path("blockless.py").write_text(
        "import torch\n\n\n"
        "class Blockless(torch.nn.Conv2d):\n"
        "    def __init__(self):\n"
        "        super().__init__(1, 1, 1)\n\n"
        "    def forward(self, x, c_noise):\n"
        "        return super().forward(x)\n"
    )
    own = ["~network", "+network={_target_:blockless.Blockless}", "allow_targets=[blockless.]", "conditioner=none"]
    ended = script("train.py", *own, "checkpoint_activations=true", "output_dir=run")
    assert ended.code == 2
    assert "Blockless has no nn.ModuleList" in ended.err
    assert not Path("run").exists()
