"""PSNR, SSIM, overlaps, energy distance, consistency, perceptual distance and diversity of samples of items."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import Script
from observed import Flat
from torch import Tensor
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from inkdrop.data import Arrays, Digits
from inkdrop.data.degradations import BicubicDownscale, BoxMask, Downscale
from inkdrop.metrics import (
    Consistency,
    Dice,
    Diversity,
    Evaluation,
    Extractor,
    GeneralizedEnergyDistance,
    Identity,
    IntersectionOverUnion,
    NoFeatures,
    PeakSignalNoiseRatio,
    PerceptualDistance,
    StructuralSimilarity,
)
from inkdrop.metrics.metric import Metric, Results
from inkdrop.randomness import Generators

COUNT = 5


def levels(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def arrays(folder: Path, x: Tensor, **fields: Tensor) -> Arrays:
    """Data of these items in `train` and in `validation`."""
    np.savez(folder / "data.npz", x=x.numpy(), **{name: each.numpy() for name, each in fields.items()})
    names = {name: name for name in ("x", *fields)}
    path = str(folder / "data.npz")
    return Arrays(path, names, list(x.shape[1:]), 0, 1, validation=path)


def results(
    metric: Metric, data: Arrays, samples: Tensor, extractor: Extractor | None = None, check: bool = True
) -> Results:
    """The results by name, without the number of samples."""
    items = len(data.splits["validation"]["x"])
    evaluation = Evaluation(extractor or NoFeatures(), {"it": metric}, per_item=max(1, len(samples) // items))
    if check:
        evaluation.check(data)
    found = evaluation.measure([samples], data)
    return {name.replace(f"_{len(samples)}", ""): value for name, value in found.items()}


def disturbed(x: Tensor, seed: int = 1) -> Tensor:
    noise = 20 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + noise).round().clamp(0, 255).to(torch.uint8)


def test_psnr_is_that_of_torchmetrics_and_of_closed_forms(tmp_path: Path) -> None:
    x = levels(0, COUNT, 3, 16, 12)
    data, samples = arrays(tmp_path, x), disturbed(x)
    expected = peak_signal_noise_ratio(samples.double(), x.double(), 255.0, reduction="elementwise_mean", dim=(1, 2, 3))
    assert results(PeakSignalNoiseRatio(), data, samples)["psnr"] == pytest.approx(float(expected), rel=1e-6)
    flat = torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)
    off = torch.cat([flat[:1] + 10, flat[1:]])
    assert results(PeakSignalNoiseRatio(), arrays(tmp_path, flat), off) == {
        "psnr": pytest.approx((20 * math.log10(25.5) + 100) / 2)
    }
    real = arrays(tmp_path, torch.zeros(2, 1, 4, 4))
    found = results(PeakSignalNoiseRatio(data_range=2.0), real, torch.full((2, 1, 4, 4), 0.02))
    assert found["psnr"] == pytest.approx(40, rel=1e-5)
    with pytest.raises(ValueError, match=r"needs the range of the data.*: set data_range"):
        results(PeakSignalNoiseRatio(), real, torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(("sigma", "side"), [(1.5, 16), (0.5, 8)])
def test_ssim_is_that_of_torchmetrics(sigma: float, side: int, tmp_path: Path) -> None:
    x = levels(0, COUNT, 3, side, side + 3)
    data, samples = arrays(tmp_path, x), disturbed(x)
    expected = structural_similarity_index_measure(samples.double(), x.double(), sigma=sigma, data_range=255.0)
    assert results(StructuralSimilarity(sigma=sigma), data, samples)["ssim"] == pytest.approx(float(expected), rel=1e-6)
    assert results(StructuralSimilarity(sigma=sigma), data, x)["ssim"] == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match=r"needs images of more than \d+ pixels, not .*: lower sigma"):
        results(StructuralSimilarity(sigma=4 * sigma), data, samples)


def test_overlaps_are_those_of_torchmetrics_for_each_mask(tmp_path: Path) -> None:
    masks = (levels(0, COUNT, 1, 9, 9) > 140).to(torch.uint8) * 255
    samples = torch.where(levels(1, COUNT, 1, 9, 9) > 60, masks, 255 - masks)
    data = arrays(tmp_path, masks)
    pairs = [((a > 127).int().flatten(), (b > 127).int().flatten()) for a, b in zip(samples, masks, strict=True)]
    for metric, name, peer in (
        (IntersectionOverUnion(), "iou", binary_jaccard_index),
        (Dice(), "dice", binary_f1_score),  # of masks it is the Dice coefficient
    ):
        expected = sum(float(peer(*pair)) for pair in pairs) / COUNT
        assert results(metric, data, samples)[name] == pytest.approx(expected, rel=1e-6)
    empty = arrays(tmp_path, torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    halves = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    halves[1, :, :2] = 255
    assert results(IntersectionOverUnion(), empty, halves)["iou"] == 0.5
    assert results(IntersectionOverUnion(threshold=0.0), empty, 0 * halves)["iou"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "title"),
    [
        (PeakSignalNoiseRatio(mask_field="mask"), "psnr"),
        (StructuralSimilarity(mask_field="mask"), "ssim"),
        (IntersectionOverUnion(mask_field="mask"), "iou"),
        (Dice(mask_field="mask"), "dice"),
        (PerceptualDistance(mask_field="mask"), "perceptual_raw"),
        (Diversity(mask_field="mask"), "diversity"),
    ],
)
def test_with_a_mask_only_the_hole_counts(metric: Metric, title: str, tmp_path: Path) -> None:
    """What lies outside a hole may be anything, as far as a window does not reach across its edge."""
    x = levels(0, COUNT, 3, 32, 32)
    mask = torch.ones(COUNT, 1, 32, 32, dtype=torch.uint8)
    mask[:-1, :, 2:30, 4:22] = 0  # the last item has no hole, and does not count
    data = arrays(tmp_path, x, mask=mask)
    samples = torch.cat([disturbed(x, 1), disturbed(x, 2)])
    outside = mask.repeat(2, 1, 1, 1).expand_as(samples) > 0
    reach = 7 if title == "ssim" else 0
    free = outside.clone()
    free[:, :, max(0, 2 - reach) : 30 + reach, max(0, 4 - reach) : 22 + reach] = False
    other = torch.where(free, levels(5, *samples.shape), samples)
    found = [results(metric, data, each, Identity(3 * 32 * 32)) for each in (samples, other)]
    assert math.isfinite(found[0][title])
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    inside = torch.where(outside, samples, levels(5, *samples.shape))
    assert results(metric, data, inside, Identity(3 * 32 * 32))[title] != pytest.approx(found[0][title], rel=1e-3)


def test_psnr_of_a_hole_is_that_of_its_pixels(tmp_path: Path) -> None:
    x = levels(0, COUNT, 3, 8, 8)
    mask = BoxMask()({"x": x}, Generators.from_seeds(range(COUNT)))
    data, samples = arrays(tmp_path, x, mask=mask), disturbed(x)
    values = []
    for sample, item, known in zip(samples, x, mask, strict=True):
        hole = (known == 0).expand_as(item)
        error = (sample[hole].double() - item[hole].double()).square().mean()
        values.append(float(10 * torch.log10(255**2 / error)))
    found = results(PeakSignalNoiseRatio(mask_field="mask"), data, samples)["psnr"]
    assert found == pytest.approx(sum(values) / COUNT)
    assert found != pytest.approx(results(PeakSignalNoiseRatio(), data, samples)["psnr"], rel=1e-3)


def test_several_samples_of_an_item_add_the_best_and_the_ensemble(tmp_path: Path) -> None:
    x = torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)
    data = arrays(tmp_path, x)
    offsets = torch.tensor([[10, 20], [-10, -20], [30, 0]])  # by sample and item: sample i belongs to item i mod 2
    samples = (x + offsets[:, :, None, None, None]).flatten(0, 1).to(torch.uint8)

    def decibels(*errors: float) -> float:
        return sum(min(100.0, 20 * math.log10(255 / e)) if e else 100.0 for e in errors) / len(errors)

    assert results(PeakSignalNoiseRatio(), data, samples) == {
        "psnr": pytest.approx(decibels(10, 20, 10, 20, 30, 0)),
        "psnr_best": pytest.approx(decibels(10, 0)),
        "psnr_ensemble": pytest.approx(decibels(10, 0)),  # of the means 110 and 100
    }
    assert results(Diversity(), data, samples) == {"diversity": pytest.approx((20 + 40 + 20 + 40 + 20 + 20) / 6)}
    distance = results(PerceptualDistance(), data, samples, Identity(16))
    assert distance["perceptual_raw"] == pytest.approx(4 * (10 + 20 + 10 + 20 + 30) / 6)
    assert distance["perceptual_raw_best"] == pytest.approx(4 * 5)  # the nearest, and not the furthest


def test_masks_vote(tmp_path: Path) -> None:
    truth = torch.tensor([[255, 255, 0, 0]], dtype=torch.uint8).reshape(1, 1, 2, 2)
    drawn = torch.tensor([[255, 0, 0, 0], [255, 255, 255, 0], [255, 255, 0, 0]], dtype=torch.uint8).reshape(3, 1, 2, 2)
    found = results(IntersectionOverUnion(), arrays(tmp_path, truth), drawn)
    assert found == {"iou": pytest.approx((1 / 2 + 2 / 3 + 1) / 3), "iou_best": 1.0, "iou_ensemble": 1.0}
    found = results(Dice(), arrays(tmp_path, truth), drawn[:2])  # half of the votes is enough
    assert found["dice_ensemble"] == pytest.approx(2 * 2 / (3 + 2))


def test_the_energy_distance_is_its_definition_and_vanishes_for_equal_laws(tmp_path: Path) -> None:
    marked = (levels(0, COUNT, 2, 6, 6) > 120).to(torch.uint8) * 255
    data = arrays(tmp_path, marked[:, :1], annotators=marked)
    drawn = (levels(1, 3 * COUNT, 1, 6, 6) > 120).to(torch.uint8) * 255

    def distance(a: Tensor, b: Tensor) -> float:
        return 1 - float(((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum())

    def mean(first: Tensor, second: Tensor) -> float:
        return sum(distance(a, b) for a in first for b in second) / (len(first) * len(second))

    expected = 0.0
    for item in range(COUNT):
        s, y = drawn[item::COUNT, 0], marked[item]
        expected += (2 * mean(s, y) - mean(s, s) - mean(y, y)) / COUNT
    assert results(GeneralizedEnergyDistance(), data, drawn) == {"ged": pytest.approx(expected, rel=1e-6)}
    both = torch.cat([marked[:, :1], marked[:, 1:]])
    assert results(GeneralizedEnergyDistance(), data, both)["ged"] == pytest.approx(0, abs=1e-12)
    alone = results(GeneralizedEnergyDistance(), data, marked[:, :1])["ged"]
    between = sum(distance(each[0], each[1]) for each in marked) / COUNT
    assert alone == pytest.approx(between / 2)  # 2 (d / 2) - 0 - d / 2
    hole = torch.ones(COUNT, 1, 6, 6, dtype=torch.uint8)
    hole[:-1, :, 2:] = 0
    part = arrays(tmp_path, marked[:, :1], annotators=marked, hole=hole)
    within = results(GeneralizedEnergyDistance(mask_field="hole"), part, drawn)["ged"]
    cut = arrays(tmp_path, marked[:-1, :1, 2:], annotators=marked[:-1, :, 2:])
    kept = drawn.unflatten(0, (3, COUNT))[:, :-1, :, 2:].flatten(0, 1)
    assert within == pytest.approx(results(GeneralizedEnergyDistance(), cut, kept)["ged"], rel=1e-9)
    with pytest.raises(ValueError, match=r"field=masks of the generalised energy distance .*\(available: annotators\)"):
        results(GeneralizedEnergyDistance("masks"), data, both)


def test_consistency_is_the_difference_after_the_degradation(tmp_path: Path) -> None:
    x = levels(0, COUNT, 3, 8, 8)
    small = Downscale(2)({"x": x}, Generators.from_seeds(range(COUNT)))
    data = arrays(tmp_path, x, image=small)
    assert results(Consistency(), data, x)["consistency"] < (0.5 / 127.5) ** 2  # by the rounding of the image
    lighter = torch.nn.functional.interpolate(small.clamp(max=245).float(), (8, 8), mode="nearest").to(torch.uint8)
    plain = arrays(tmp_path, x, image=small.clamp(max=245))
    assert results(Consistency(), plain, lighter)["consistency"] == 0
    assert results(Consistency(), plain, lighter + 10)["consistency"] == pytest.approx((10 / 127.5) ** 2)
    nearest = results(Consistency(baseline_field="image"), plain, lighter)
    assert 0 < nearest["consistency_baseline"] < 0.05
    other = BicubicDownscale(2)({"x": x}, Generators.from_seeds(range(COUNT)))
    bicubic = arrays(tmp_path, x, image=other)
    assert results(Consistency(degradation=BicubicDownscale(2)), bicubic, x)["consistency"] == 0
    assert results(Consistency(), bicubic, x)["consistency"] > 1e-4
    with pytest.raises(ValueError, match=r"images of shape \[3, 8, 8\], but degraded .* \[3, 4, 4\]: set degradation"):
        results(Consistency(degradation=BicubicDownscale(2)), arrays(tmp_path, x, image=x), x)
    with pytest.raises(ValueError, match=r"are no multiple of \[3, 3, 8\]: set degradation"):
        results(Consistency(), arrays(tmp_path, x, image=x[:, :, :3]), x)


def test_the_baseline_is_that_of_the_degraded_image(tmp_path: Path) -> None:
    x = levels(0, COUNT, 3, 12, 12)
    data = arrays(tmp_path, x, image=disturbed(x, 3))
    found = results(PeakSignalNoiseRatio(baseline_field="image"), data, disturbed(x, 4))
    assert found["psnr_baseline"] == pytest.approx(results(PeakSignalNoiseRatio(), data, disturbed(x, 3))["psnr"])
    with pytest.raises(ValueError, match=r"baseline_field=blurred of Dice is not a field .*\(available: image\)"):
        results(Dice(baseline_field="blurred"), data, x)
    with pytest.raises(ValueError, match=r"mask_field=hole of Dice is not a field of masks for x \(available: image\)"):
        results(Dice(mask_field="hole"), data, x)


def test_an_item_needs_two_samples_for_their_diversity(tmp_path: Path) -> None:
    x = levels(0, COUNT, 1, 4, 4)
    data = arrays(tmp_path, x)
    with pytest.raises(ValueError, match=r"metric it needs 2 samples of each held-out item, .* evaluation\.per_item=2"):
        results(Diversity(), data, x)
    points = arrays(tmp_path, torch.randn(COUNT, 2))
    pair = torch.cat([torch.zeros(COUNT, 2), torch.full((COUNT, 2), 3.0)])
    assert results(Diversity(), points, pair)["diversity"] == pytest.approx(3)
    with pytest.raises(ValueError, match="PeakSignalNoiseRatio compares images, not data of shape"):
        results(PeakSignalNoiseRatio(), points, pair)


def test_a_perceptual_distance_needs_features_and_its_name_has_theirs() -> None:
    data = Digits([1, 8, 8], 10, 128)
    with pytest.raises(ValueError, match="the perceptual distance needs features: choose an extractor"):
        Evaluation(NoFeatures(), {"it": PerceptualDistance()}).check(data)
    evaluation = Evaluation(Flat(weight=2.0), {"it": PerceptualDistance()})
    x = data.splits["validation"]["x"][torch.arange(350)]
    found = evaluation.measure([x.clamp(max=250) + 5], data)
    expected = 2 * ((x.clamp(max=250) + 5).double() - x.double()).flatten(1).norm(dim=1).mean()
    assert found == {"perceptual_flat_350": pytest.approx(float(expected), rel=1e-6)}
    record = evaluation.protocol(data, {})["metrics"]["perceptual_flat_350"]
    assert record["extractor"] == "flat"
    assert "better" not in record


def test_settings_with_a_degradation_are_plain() -> None:
    settings = Consistency(degradation=Downscale(4)).settings()
    assert json.loads(json.dumps(settings))["degradation"] == "inkdrop.data.degradations.Downscale [('factor', 4)]"
    assert Consistency().settings()["degradation"] is None


@pytest.mark.slow
def test_a_run_is_measured_by_pairs(tmp_path: Path, script: Script) -> None:
    options = ["data=scenes", "data.num_scenes=64", "data.num_held_out=10", "+data.fields.image=small", "logger=none"]
    options += ["+data.fields.hole=unchanged", "conditioner=image", "conditioner.concat_channels=4", "guidance=none"]
    options += ["extractor=thumbnail", "metric=[psnr,ssim,consistency,perceptual,diversity]", "prediction=v"]
    options += ["metric.psnr.baseline_field=image", "metric.psnr.mask_field=hole", "evaluation.per_item=2"]
    options += ["trainer.max_steps=1", "time_grid.num_steps=2", "network.base_channels=8", "network.norm_groups=4"]
    ended = script("train.py", *options, "data.batch_size=8", "callbacks.pictures=null", f"output_dir={tmp_path}/run")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads((tmp_path / "run/result.json").read_text())["metrics"]
    names = {name.split("_20")[0] for name in found if "_20" in name}
    assert names == {
        *("psnr", "psnr_best", "psnr_ensemble", "ssim", "ssim_best", "ssim_ensemble", "consistency", "diversity"),
        *("perceptual_thumbnail", "perceptual_thumbnail_best", "perceptual_thumbnail_ensemble"),
    }
    assert found["psnr_20_baseline"] > found["psnr_20"]
