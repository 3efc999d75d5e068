"""Metrics that compare each sample with the held-out item whose conditions it has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from entry_scripts import Script
from observed import Flat
from runs import TINY, as_a_command
from torch import Tensor

import inkdrop
from inkdrop.data import Digits
from inkdrop.data.arrays import Arrays
from inkdrop.metrics import Evaluation, KernelDistance, NearestNeighbours, NoFeatures, RootMeanSquareError
from inkdrop.metrics.metric import Extracted, Metric
from inkdrop.metrics.rmse import enlarged
from inkdrop.randomness import Generators


def points(folder: Path, held_out: int = 5) -> Arrays:
    """Points, and beside each the same point moved by (3, 4)."""
    x = torch.randn(40, 2)
    np.savez(folder / "train.npz", x=x, image=x + torch.tensor([3.0, 4.0]))
    np.savez(folder / "held_out.npz", x=x[:held_out], image=x[:held_out] + torch.tensor([3.0, 4.0]))
    fields = {"x": "x", "image": "image"}
    files = {"path": str(folder / "train.npz"), "validation": str(folder / "held_out.npz")}
    return Arrays(shape=[2], num_classes=0, batch_size=8, fields=fields, **files)


def paired(baseline_field: str | None = "image", **options: Any) -> Evaluation:
    return Evaluation(NoFeatures(), {"rmse": RootMeanSquareError(baseline_field)}, **options)


def test_sample_i_is_compared_with_item_i_modulo_their_number(tmp_path: Path) -> None:
    data = points(tmp_path)
    items = data.splits["validation"]["x"][torch.arange(5)]
    gaps = torch.arange(10.0)[:, None].expand(10, 2)
    results = paired().measure([items.repeat(2, 1) + gaps], data)
    assert results["rmse_10"] == pytest.approx(math.sqrt(sum(k * k for k in range(10)) / 10), rel=1e-6)
    shifted = paired().measure([items.roll(1, 0)], data)
    assert shifted["rmse_5"] == pytest.approx(float((items.roll(1, 0) - items).square().mean().sqrt()), rel=1e-6)


def test_the_baseline_is_the_degraded_input_and_there_is_no_floor(tmp_path: Path) -> None:
    data = points(tmp_path)
    samples = [data.splits["validation"]["x"][torch.arange(5)]]
    results = paired().measure(samples, data)
    assert results == {"rmse_5": 0.0, "rmse_5_baseline": pytest.approx(math.sqrt(12.5), rel=1e-6)}
    assert paired(None).measure(samples, data) == {"rmse_5": 0.0}


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_baseline_of_lower_resolution_is_enlarged(kind: type, tmp_path: Path) -> None:
    """The error of constant images that are 3 too bright, of a quarter of the resolution, is 3."""
    levels = np.random.default_rng(0).integers(0, 250, (20, 1, 1, 1)).astype(kind)
    whole, ramp = np.ones((1, 2, 8, 8), kind), np.arange(16, dtype=kind).reshape(1, 1, 4, 4)
    low = np.ones((1, 2, 2, 4), kind)
    arrays = {"x": levels * whole, "image": (levels + kind(3)) * low, "more": levels * np.ones((1, 3, 2, 4), kind)}
    np.savez(tmp_path / "data.npz", **arrays, large=levels * np.ones((1, 2, 8, 9), kind), ramp=0 * levels + ramp)
    fields = {name: name for name in ("x", "image", "more", "large", "ramp")}
    data = Arrays(tmp_path / "data.npz", fields, [2, 8, 8], 0, 4, held_out=0.25)
    paired().check(data)
    truth = data.splits["validation"]["x"][torch.arange(5)]
    assert paired().measure([truth], data) == {"rmse_5": 0.0, "rmse_5_baseline": pytest.approx(3.0)}
    for name in ("more", "large", "ramp"):  # of other channels, or higher
        with pytest.raises(ValueError, match=rf"baseline_field={name} .*nor images of lower .*\(available: image\)"):
            paired(name).check(data)
    smooth = torch.nn.functional.interpolate(torch.tensor(ramp).float(), (8, 8), mode="bicubic")
    found = enlarged(torch.tensor(ramp), (8, 8))
    assert torch.equal(found.float(), smooth.round().clamp(0, 255) if kind is np.uint8 else smooth)


def test_several_samples_of_an_item_count_each_and_not_by_their_mean(tmp_path: Path) -> None:
    data = points(tmp_path)
    items = data.splits["validation"]["x"][torch.arange(5)]
    around = [items + 2, items - 2]  # their mean is the item itself
    assert paired(None, per_item=2).measure([torch.cat(around)], data)["rmse_10"] == pytest.approx(2.0)
    assert paired(None, repeats=2).measure(around, data)["rmse_5"] == pytest.approx(2.0)


def test_per_item_samples_cover_fewer_items(tmp_path: Path) -> None:
    data = points(tmp_path)
    evaluation = paired(per_item=3, num_samples=6)
    evaluation.check(data)
    assert torch.equal(evaluation.conditions(data, 6)["image"], data.splits["validation"]["image"][torch.arange(6) % 2])
    items = data.splits["validation"]["x"][torch.arange(2)]
    assert evaluation.measure([items.repeat(3, 1)], data)["rmse_6"] == 0
    whole = paired(per_item=3)
    assert torch.equal(whole.conditions(data, 15)["image"], data.splits["validation"]["image"][torch.arange(15) % 5])
    measurement = evaluation.protocol(data, {})["measurement"]
    assert measurement["per_item"] == 3
    default = paired()
    default.measure([items], data)
    assert "per_item" not in default.protocol(data, {})["measurement"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 7}, "num_samples=7 is not a multiple of the 5 held-out items, .* set it to 5 or 10"),
        ({"num_samples": 7, "per_item": 2}, r"num_samples=7 is not a multiple of evaluation\.per_item=2, .* 6 or 8"),
        ({"num_samples": 2, "per_item": 3}, r"num_samples=2 is not a multiple of evaluation\.per_item=3, .* to 3"),
        ({"num_samples": 5, "balance": "classes"}, r"evaluation\.balance=classes .* metric rmse"),
    ],
)
def test_samples_that_belong_to_no_whole_number_of_items_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        paired(**options).check(points(tmp_path))


@pytest.mark.parametrize("options", [{}, {"num_samples": 3}, {"num_samples": 10}, {"num_samples": 4, "per_item": 2}])
def test_whole_numbers_of_items_are_accepted(options: dict[str, Any], tmp_path: Path) -> None:
    paired(**options).check(points(tmp_path))


def test_a_field_that_cannot_be_the_baseline_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("mask", "x"):
        with pytest.raises(ValueError, match=rf"baseline_field={name} .*\(available: image\)"):
            paired(name).check(points(tmp_path))


def test_metrics_of_both_kinds_share_a_stream_and_keep_their_values() -> None:
    data = Digits([1, 8, 8], 10, 128)
    metrics: dict[str, Metric] = {"kernel": KernelDistance(2, 50), "nearest": NearestNeighbours()}
    samples = [data.splits["validation"]["x"].roll(1, -1)]
    alone = Evaluation(Flat(), metrics)
    both = Evaluation(Flat(), {**metrics, "rmse": RootMeanSquareError()})
    before, after = alone.measure(samples, data), both.measure(samples, data)
    assert set(after) - set(before) == {"rmse_350"}
    assert {name: after[name] for name in before} == before
    records = [each.protocol(data, {})["metrics"] for each in (alone, both)]
    assert {name: records[1][name] for name in records[0]} == records[0]


@dataclass(frozen=True)
class Walk(Metric):
    """The mean of features of samples minus that of their items, with a random walk as baseline."""

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    paired: ClassVar[bool] = True

    def baseline(self, items: Any, generators: Generators) -> Tensor:
        return items["image"] + generators.normal(items["x"].shape[1:])

    def __call__(
        self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Any
    ) -> dict[str, float]:
        x, truth = (each.features_on(torch.device("cpu")) for each in (samples, held_out))
        return {"walk": float((x - truth[torch.arange(samples.count) % held_out.count]).square().mean())}


def test_a_baseline_may_be_random_and_a_paired_metric_may_use_features(tmp_path: Path) -> None:
    data = points(tmp_path)
    evaluation = Evaluation(Flat(), {"walk": Walk()}, per_item=400)
    results = evaluation.floors_and_baselines(data, 2000)
    assert set(results) == {"walk_2k_baseline"}
    assert results["walk_2k_baseline"] == pytest.approx(12.5 + 1, rel=0.1)
    assert Evaluation(Flat(), {"walk": Walk()}, per_item=400).floors_and_baselines(data, 2000) == results


@pytest.mark.slow
def test_a_run_measures_pairs_without_an_extractor(tmp_path: Path, script: Script) -> None:
    points(tmp_path, held_out=10)
    options = [each for each in TINY if not each.startswith(("metric.", "network.", "evaluation."))]
    options += [f"data.path={tmp_path}/train.npz", f"data.validation={tmp_path}/held_out.npz", "logger=none"]
    options += ["experiment=moons", "data=arrays", "+data.fields.image=image", "network.width=16", "extractor=none"]
    options += [
        "metric=rmse",
        "metric.rmse.baseline_field=image",
        "evaluation.per_item=2",
        f"output_dir={tmp_path}/run",
    ]
    wrong = script("train.py", *options, "evaluation.num_samples=15")
    assert wrong.code == 2
    assert "num_samples=15 is not a multiple of evaluation.per_item=2" in wrong.err
    metrics = as_a_command(inkdrop.train, *options, "evaluation.num_samples=null")["metrics"]
    assert {name for name in metrics if "rmse" in name} == {"rmse_20", "rmse_20_baseline"}
    assert metrics["rmse_20_baseline"] == pytest.approx(math.sqrt(12.5), rel=1e-6)
