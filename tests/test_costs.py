"""What a run will want is foreseen by shapes alone, and only where it is much."""

from typing import Any

import pytest
import torch

from inkdrop.commands.describe import costs
from inkdrop.commands.describe.passes import training_pass
from inkdrop.configuration import build
from inkdrop.configuration.compose import composed, resolved

CPU = torch.device("cpu")


def plain(*overrides: str) -> dict[str, Any]:
    return resolved(composed("train", list(overrides)))


@pytest.mark.parametrize(
    "overrides", [[], ["network=dit"], ["network=edm2"], ["experiment=moons"], ["task=classifier", "network=encoder"]]
)
def test_what_is_followed_by_shapes_is_what_is_computed(overrides: list[str]) -> None:
    quiet = ["conditioner=none", "guidance=none"] if "task=classifier" in overrides else []
    task = build(plain(*overrides, *quiet)["task"])
    state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in task.state_dict().items()}
    flops, kept = costs._followed(task)
    assert all(torch.equal(value, weights[name]) for name, value in task.state_dict().items())
    torch.set_rng_state(state)
    computed = training_pass(task).operations["training"]
    assert flops == pytest.approx(computed, rel=0.01)  # without the conditioner's
    assert kept == pytest.approx(costs.memory(task, 1, 1, "32-true")["activations"], rel=0.03, abs=5000)


def test_a_small_network_is_run_and_a_large_one_followed_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(plain()["task"])
    computed = costs._followed(task)
    monkeypatch.setattr(costs, "_SMALL", 0.0)
    assert costs._followed(task) == computed


def test_only_much_is_foreseen_and_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    config = plain("trainer.max_steps=1000", "data.batch_size=64")
    task = build(config["task"])
    before = torch.get_rng_state()
    remarks, counted = costs.foreseen(task, config, CPU, 1)
    assert remarks == []
    assert torch.equal(torch.get_rng_state(), before)
    fixed, (flops, kept) = 16 * sum(each.numel() for each in task.parameters()), costs._followed(task)
    assert counted == flops
    monkeypatch.setattr(costs, "_memory", lambda device: 2 * (fixed + 20 * kept))
    monkeypatch.setattr(costs, "_rate", lambda device: flops * 64 * 1000 / (2.5 * 86400))
    (memory, days), _ = costs.foreseen(task, config, CPU, 1)
    assert "data.batch_size=20 trainer.accumulate_grad_batches=4," in memory
    assert "about 2.5 days" in days
