"""Distances between data of unlike units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from inkdrop.data import Arrays
from inkdrop.metrics import Evaluation, Identity, SlicedWasserstein, Standardized

UNITS = torch.tensor([1e-3, 1.0, 1e6])
METRICS = {"swd": SlicedWasserstein(200)}


def table(folder: Path, *shape: int) -> Arrays:
    """Three columns or channels of unlike units; the last one alone has the largest spread by far."""
    x = torch.randn(400, 3, *shape, generator=torch.Generator().manual_seed(0)) + 4
    x = x * UNITS.reshape(3, *(1,) * len(shape))
    np.savez(folder / "table.npz", x=x.numpy())
    return Arrays(folder / "table.npz", {"x": "x"}, None, 0, 8)


def distance(extractor: Identity | Standardized, data: Arrays, samples: torch.Tensor) -> float:
    values = Evaluation(extractor, METRICS, num_samples=len(samples)).measure([samples], data)
    return values[f"swd_{extractor.name}_{len(samples)}"]


def test_an_error_in_a_small_column_counts_as_much_as_in_a_large_one(tmp_path: Path) -> None:
    data = table(tmp_path)
    truth = data.splits["train"]["x"][:200]
    shifts = [truth + 3 * UNITS[i] * torch.eye(3)[i] for i in range(3)]
    raw = [distance(Identity([3]), data, each) for each in shifts]
    assert raw[2] > 10 * raw[0]  # the distance of the data does not see the shift of the first
    same = distance(Standardized([3]), data, truth)
    found = [distance(Standardized([3]), data, each) for each in shifts]
    assert max(found) < 1.1 * min(found)
    assert abs(found[0] - 3 / 3**0.5) < 0.15  # three deviations along one of three axes, on average over directions
    assert same < 0.2


def test_features_are_the_deviations_of_each_channel_over_the_training_data(tmp_path: Path) -> None:
    data = table(tmp_path, 5)
    extractor, train = Standardized([3, 5]), data.splits["train"]["x"]
    before = extractor.digest()
    extractor.fit(train)
    features = extractor(train).reshape(len(train), 3, 5)
    assert features.mean((0, 2)).abs().max() < 1e-4
    assert (features.std((0, 2), correction=0) - 1).abs().max() < 1e-4
    assert extractor.dim == 15
    assert extractor.digest() == before != Identity([3, 5]).digest()
    extractor.fit(torch.full((9, 3, 5), 2.0))
    assert extractor(torch.full((1, 3, 5), 3.0)).tolist() == [[1.0] * 15]  # a constant channel has its unit


def test_a_protocol_of_other_data_has_other_statistics(tmp_path: Path) -> None:
    """An evaluation that is used on two data sets computes its statistics for each."""
    data = table(tmp_path)
    samples = data.splits["train"]["x"][:100]
    evaluation = Evaluation(Standardized([3]), METRICS, num_samples=100)
    first = evaluation.measure([samples], data)["swd_standardized_100"]
    np.savez(tmp_path / "other.npz", x=1000 * np.load(tmp_path / "table.npz")["x"])
    other = Arrays(tmp_path / "other.npz", {"x": "x"}, None, 0, 8)
    again = evaluation.measure([1000 * samples], other)["swd_standardized_100"]
    assert abs(again - first) < 1e-3
