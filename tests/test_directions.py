"""Which values of a metric are better, and which of several sets of samples is the best."""

from __future__ import annotations

import pytest
import torch

from inkdrop.data import Digits
from inkdrop.metrics import (
    ClassificationAccuracyScore,
    Classifier,
    DensityCoverage,
    Evaluation,
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    MaximumMeanDiscrepancy,
    PrecisionRecall,
    SlicedWasserstein,
)
from inkdrop.metrics.metric import Metric
from inkdrop.metrics.protocol import over_repeats

METRICS = {
    "fd_digits": FrechetDistance(),
    "kd_digits": KernelDistance(10, 100),
    "mmd_digits": MaximumMeanDiscrepancy(),
    "swd_digits": SlicedWasserstein(),
    "class_score_digits": InceptionScore(),
    "precision_digits": PrecisionRecall(),
    "recall_digits": PrecisionRecall(),
    "density_digits": DensityCoverage(),
    "coverage_digits": DensityCoverage(),
    "cas": ClassificationAccuracyScore(num_steps=100),
}


def classifier() -> Classifier:
    return Classifier("digits", [1, 8, 8], 10, [[32, 32], [64]], 64, False, "digits.safetensors")


@pytest.mark.parametrize(
    "name", [each if each != "cas" else pytest.param(each, marks=pytest.mark.slow) for each in METRICS]
)
def test_real_data_are_better_than_a_trivial_generator(name: str) -> None:
    data, metric = Digits([1, 8, 8], 10, 128), METRICS[name]
    results = Evaluation(classifier(), {"one": metric}).floors_and_baselines(data, 350)
    gain = results[f"{name}_350_floor"] - results[f"{name}_350_baseline"]
    assert gain > 0 if metric.better == "higher" else gain < 0


def test_the_best_of_several_sets_is_the_highest_where_higher_is_better() -> None:
    data = Digits([1, 8, 8], 10, 128)
    metrics: dict[str, Metric] = {"frechet": FrechetDistance(), "precision": PrecisionRecall()}
    evaluation = Evaluation(classifier(), metrics, num_samples=100)
    noise = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    sets = [data.splits["validation"]["x"][:100], noise]
    each = [evaluation.values([samples], data) for samples in sets]
    both = evaluation.values(sets, data)
    assert each[0]["fd_digits_100"] < each[1]["fd_digits_100"]
    assert each[0]["precision_digits_100"] > each[1]["precision_digits_100"]
    best = {name: value for name, value in both.items() if name.endswith(("_min", "_max"))}
    names = {"fd_digits_100": "_min", "precision_digits_100": "_max", "recall_digits_100": "_max"}
    assert best == {name + ending: each[0][name] for name, ending in names.items()}
    metrics_of = evaluation.protocol(data, {})["metrics"]
    assert {name for name, facts in metrics_of.items() if facts.get("better") == "higher"} == set(names) - {
        "fd_digits_100"
    }


def test_endings_of_the_best_value() -> None:
    values = [{"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 3.0}]
    results = over_repeats(values, {"b"})
    assert results["a", "_min"] == 1.0
    assert results["b", "_max"] == 3.0
    assert ("a", "_max") not in results
    assert ("b", "_min") not in results
