"""Conditions, their dropout and what users may ask for."""

from typing import Any

import pytest
import torch

from inkdrop.conditioners import Label, Unconditional
from inkdrop.randomness import Generators


def test_labels_become_vectors_and_some_are_dropped_in_training() -> None:
    conditioner = Label(3, 4, dropout=0.3)
    batch = {"label": torch.arange(3).repeat(2000)}
    table = conditioner.embedding.weight
    assert torch.equal(conditioner(batch)["vector"], table[batch["label"]])
    dropped = (conditioner(batch, Generators.from_seeds(range(6000)))["vector"] == table[3]).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.02)
    again = conditioner({"label": batch["label"][[7, 3]]}, Generators.from_seeds([7, 3]))["vector"]
    assert torch.equal((again == table[3]).all(1), dropped[[7, 3]])


def test_null_is_what_dropout_gives() -> None:
    conditioner = Label(3, 4, dropout=1.0)
    batch = {"label": torch.tensor([0, 2])}
    null = conditioner.null(batch)
    assert torch.equal(null["vector"], conditioner(batch, Generators.from_seeds([0, 1]))["vector"])
    assert not torch.equal(null["vector"], conditioner(batch)["vector"])


@pytest.mark.parametrize(("label", "expected"), [(None, [0, 1, 2, 0]), (2, [2, 2, 2, 2]), ([1, 0], [1, 0, 1, 0])])
def test_requests_follow_the_seeds(label: Any, expected: list[int]) -> None:
    assert Label(3, 4).request(range(4), label=label)["label"].tolist() == expected


@pytest.mark.parametrize("label", [3, -1, "a", [0, 3], [], True, 1.5])
def test_unknown_classes_are_refused(label: Any) -> None:
    with pytest.raises(ValueError, match="0 to 2"):
        Label(3, 4).request([0], label=label)


def test_unknown_conditions_are_refused() -> None:
    with pytest.raises(ValueError, match="text"):
        Label(3, 4).request([0], text="a cat")
    with pytest.raises(ValueError, match="label"):
        Unconditional().request([0], label=1)
    assert Unconditional().request([0, 1]) == {}
