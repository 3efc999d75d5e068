"""What one stream of samples costs: each is seen once, and what grows with their number."""

from __future__ import annotations

import itertools
import pickle
from types import SimpleNamespace

import pytest
import torch
from observed import Flat
from small_tasks import small_task
from torch import Tensor

from inkdrop.data import Digits
from inkdrop.data.toys import Toy, moons
from inkdrop.likelihood import LossByNoiseLevel
from inkdrop.metrics import Classifier, Evaluation, FrechetDistance, Identity, InceptionScore, KernelDistance
from inkdrop.metrics.metric import Collector, Metric


def test_features_are_computed_once_per_sample_for_all_metrics_and_once_per_extractor() -> None:
    seen: list[tuple[str, int]] = []

    class Counting(Flat):
        def forward(self, data: Tensor) -> Tensor:
            seen.append((self.name, len(data)))
            return super().forward(data)

    data = Digits([1, 8, 8], 10, 128)
    kernel = {"num_subsets": 2, "subset_size": 9}
    metrics = {
        "frechet": FrechetDistance(),
        "kernel": KernelDistance(**kernel),
        "kernel_of_others": KernelDistance(**kernel, extractor=Counting("other", weight=2.0)),
        "kernel_of_the_same": KernelDistance(**kernel, extractor=Counting("one")),
    }
    evaluation = Evaluation(Counting("one"), metrics, num_samples=100, batch_size=40)
    evaluation.measure([data.splits["validation"]["x"][:100]], data)
    rows = {name: sum(count for own, count in seen if own == name) for name in ("one", "other")}
    # samples, held-out items and trivial ones, 100 of each, and all training items
    assert rows["one"] == rows["other"] == 300 + len(data.splits["train"]["x"])


@pytest.mark.parametrize(
    ("metric", "constant"), [(FrechetDistance(), True), (InceptionScore(), True), (KernelDistance(), False)]
)
def test_memory_of_distance_and_score_does_not_grow_with_the_samples(metric: Metric, constant: bool) -> None:
    sizes = []
    for count in (50, 1000):
        collector = Collector(Classifier("digits", [1, 8, 8], 10, [[4]], 8, False), metric.needs, count)
        for items in torch.arange(count).split(50):
            images = torch.randint(0, 256, (len(items), 1, 8, 8), dtype=torch.uint8)
            collector.update(images, items, "images", items.tolist())
        sizes.append(len(pickle.dumps(collector)))
    assert (sizes[1] < sizes[0] + 100) == constant


@pytest.mark.parametrize("metrics", [{}, {"frechet": FrechetDistance()}], ids=["likelihood", "metrics"])
def test_seconds_are_those_of_the_latest_call(metrics: dict[str, Metric], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkdrop.metrics.evaluation.time", SimpleNamespace(monotonic=itertools.count().__next__))
    evaluation = Evaluation(Identity(2), metrics, likelihood={"levels": LossByNoiseLevel(3)})
    pipeline, data = small_task().pipeline, Toy(moons, 64, [2], 0, 16)
    for _ in range(2):
        evaluation(pipeline, data)
        assert evaluation.seconds["likelihood"] == 1
