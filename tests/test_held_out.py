"""Evaluation on another split of the data than the default one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from entry_scripts import Script
from observed import Flat
from runs import TINY, sampled, trained

from inkdrop.data import Digits
from inkdrop.likelihood import LossByNoiseLevel
from inkdrop.metrics import Evaluation, KernelDistance, NearestNeighbours


def digits() -> Digits:
    return Digits([1, 8, 8], 10, 128)


def nearest(**options: Any) -> Evaluation:
    return Evaluation(Flat(), {"nearest": NearestNeighbours()}, **options)


def test_another_split_provides_conditions_and_truths() -> None:
    data, other = digits(), digits()
    swapped = {"train": "train", "validation": "extractor", "extractor": "validation"}
    other.splits = {name: data.splits[place] for name, place in swapped.items()}
    count = len(data.splits["extractor"]["x"])
    chosen, same = nearest(held_out="extractor"), nearest()
    conditions = chosen.conditions(data, count)
    assert torch.equal(conditions["label"], data.splits["extractor"]["label"])
    samples = [data.splits["extractor"]["x"].roll(1, -1)]
    results = chosen.measure(samples, data)
    assert results == same.measure(samples, other)
    assert results != nearest().measure(samples, data)
    assert nearest(held_out="train").measure(samples, data)[f"nearest_flat_{count}_floor"] == 0


def test_the_protocol_names_another_split_and_hashes_of_the_default_stay() -> None:
    data = digits()
    samples = [data.splits["validation"]["x"]]

    def record(**options: Any) -> dict[str, Any]:
        evaluation = Evaluation(Flat(), {"kernel": KernelDistance(2, 50)}, **options)
        evaluation.measure(samples, data)
        return evaluation.protocol(data, {})

    default, other = record(), record(held_out="extractor")
    assert "held_out" not in default["measurement"]
    assert record(held_out="validation") == default
    assert other["measurement"] == {**default["measurement"], "held_out": "extractor"}
    assert other["hash"] != default["hash"]
    name = "kd_flat_350"
    assert other["metrics"][name]["hash"] != default["metrics"][name]["hash"]


def test_a_split_that_is_not_there_is_refused_before_a_folder_exists(tmp_path: Path, script: Script) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.held_out=test is not a split of the data \(available: "):
        nearest(held_out="test").check(digits())
    ended = script("train.py", *TINY, "logger=none", "evaluation.held_out=test", f"output_dir={tmp_path}/run")
    assert ended.code == 2
    assert "evaluation.held_out=test is not a split of the data (available: " in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_runs_and_sampling_measure_on_the_split_that_they_are_given(tmp_path: Path, script: Script) -> None:
    options = ["trainer.max_steps=2", "likelihood=noise_levels", "evaluation.num_items=20"]
    protocol = trained(tmp_path / "run", *options, "evaluation.held_out=extractor")["protocol"]
    assert protocol["measurement"]["held_out"] == "extractor"
    assert {facts["held_out"] for facts in protocol["likelihoods"].values()} == {"extractor"}
    found = {}
    for name, held_out in {"same": [], "validation": ["held_out=validation"]}.items():
        few = ["num_samples=20", "evaluate=true", "time_grid.num_steps=2", *held_out]
        _, found[name] = sampled(tmp_path / "run", tmp_path / name, *few)
    assert found["same"]["protocol"]["measurement"]["held_out"] == "extractor"
    assert "held_out" not in found["validation"]["protocol"]["measurement"]
    floors = [each["metrics"]["fd_digits_20_floor"] for each in found.values()]
    assert floors[0] != floors[1]
    ended = script("sample.py", f"checkpoint={tmp_path}/run", "held_out=train", f"output_dir={tmp_path}/none")
    assert ended.code == 2
    assert "held_out has no effect without an evaluation: set evaluate=true" in ended.err


def test_likelihoods_are_those_of_the_chosen_items() -> None:
    class Fixed(LossByNoiseLevel):
        def __call__(self, pipeline: Any, batch: Any, generators: Any) -> dict[str, torch.Tensor]:
            return {"total": batch["x"].double().flatten(1).mean(1)}

    data = digits()
    evaluation = Evaluation(Flat(), {}, likelihood={"mean": Fixed(2)}, held_out="extractor")
    pipeline: Any = None
    (value,) = evaluation.likelihoods(pipeline, data).values()
    assert value == pytest.approx(data.splits["extractor"]["x"].double().mean().item())
