"""Metrics of features against independent libraries and closed forms, and through the collector of all ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from fidelity import Images, random_inception
from observed import ALL, Scores, clouds, observed, one_of_two, value
from omegaconf import OmegaConf
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.inception import InceptionScore as TheirInceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from inkdrop.configuration import CHECKPOINT_TARGETS, build, check
from inkdrop.errors import ConfigurationError
from inkdrop.metrics import (
    Classifier,
    DensityCoverage,
    FrechetDistance,
    Identity,
    Inception,
    InceptionScore,
    KernelDistance,
    MaximumMeanDiscrepancy,
    NearestNeighbours,
    PrecisionRecall,
    SlicedWasserstein,
    frechet_distance,
    pairwise,
)
from inkdrop.metrics.inception_score import class_scores
from inkdrop.metrics.kernels import gaussian_mmd, polynomial_mmd
from inkdrop.metrics.metric import Collector, Metric
from inkdrop.metrics.wasserstein import random_directions, sliced_wasserstein, squared_wasserstein

CONF = Path(__file__).parent.parent / "conf" / "metric"
METRICS: list[Metric] = [
    FrechetDistance(),
    KernelDistance(num_subsets=5, subset_size=40),
    MaximumMeanDiscrepancy(bandwidth=3),
    InceptionScore(),
    PrecisionRecall(),
    DensityCoverage(),
    SlicedWasserstein(num_projections=40),
    NearestNeighbours(),
]


def given_features(features: Tensor) -> torch.nn.Module:
    """An extractor for torchmetrics that takes features as they are."""
    network = torch.nn.Flatten()
    network.num_features = features.shape[1]  # type: ignore[assignment]
    return network


# Kernel distances


def test_kernel_distance_equals_torch_fidelitys_to_the_subset() -> None:
    x, y = clouds(300, 200, 24)
    options = {"kid_subsets": 20, "kid_subset_size": 50, "verbose": False}
    theirs = kid_features_to_metric(x.double(), y.double(), **options)
    ours = value(KernelDistance(num_subsets=20, subset_size=50), x, y)
    scale = float(((x.double() @ x.double().T / 24 + 1) ** 3).mean())
    assert abs(ours["kd_scores"] - theirs["kernel_inception_distance_mean"]) < 1e-6 * scale
    assert abs(ours["kd_scores_std"] - theirs["kernel_inception_distance_std"]) < 1e-6 * scale
    other = value(KernelDistance(num_subsets=20, subset_size=50, seed=1), x, y)
    assert abs(ours["kd_scores"] - other["kd_scores"]) > 1e-3 * abs(ours["kd_scores"])


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_polynomial_discrepancy_equals_torchmetrics() -> None:
    x, y = (each[:80].double() for each in clouds(80, 80, 12))
    metric = KernelInceptionDistance(feature=given_features(x), subsets=1, subset_size=80).set_dtype(torch.float64)
    metric.update(y, real=True)
    metric.update(x, real=False)
    assert polynomial_mmd(x, y) == pytest.approx(metric.compute()[0].item(), rel=1e-9)


def test_polynomial_discrepancy_is_unbiased() -> None:
    """Of the means of the three kernels for numbers from N(0, 1) and N(1, 1), by the moments of Gaussians."""
    draws = torch.randn(4000, 2, 5, 1, dtype=torch.float64)
    values = torch.tensor([polynomial_mmd(x, y + 1) for x, y in draws])
    # E(xy + 1)^3 = E x^3 E y^3 + 3 E x^2 E y^2 + 3 E x E y + 1; the moments of N(1, 1) are 1, 2, 4
    exact = (0 + 3 + 0 + 1) + (16 + 12 + 3 + 1) - 2 * (0 + 6 + 0 + 1)
    assert abs(values.mean().item() - exact) < 4 * values.std().item() / len(values) ** 0.5


def test_gaussian_discrepancy_equals_its_definition_and_a_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(70, 50, 6)
    kernels = [np.exp(-cdist(a, b, "sqeuclidean") / (2 * 1.7**2)).mean() for a, b in ((x, x), (y, y), (x, y))]
    direct = kernels[0] + kernels[1] - 2 * kernels[2]
    assert gaussian_mmd(x, y, 1.7) == pytest.approx(direct, rel=1e-9)
    assert value(MaximumMeanDiscrepancy(1.7), x, y)["mmd_scores"] == pytest.approx(1000 * direct, rel=1e-9)
    monkeypatch.setattr(pairwise, "BLOCK", 130)
    assert gaussian_mmd(x, y, 1.7) == pytest.approx(direct, rel=1e-9)
    assert gaussian_mmd(x, x.flip(0), 1.7) == pytest.approx(0, abs=1e-14)
    one, other = torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])
    assert gaussian_mmd(one, other, 10) == pytest.approx(2 - 2 * np.exp(-25 / 200), rel=1e-12)
    far = 1e4 + torch.randn(20, 3).double()
    near = gaussian_mmd(far - 1e4, far - 1e4 + 1, 1)
    assert gaussian_mmd(far, far + 1, 1) == pytest.approx(near, rel=1e-8)


# Inception score


@pytest.mark.parametrize("count", [100, 57])
def test_inception_score_equals_torch_fidelitys(count: int) -> None:
    scores = 3 * torch.randn(count, 12)
    theirs = isc_features_to_metric(scores, splits=10, shuffle=False)
    ours = value(InceptionScore(), scores, scores)
    assert ours["class_score_scores"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours["class_score_scores_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`")
def test_inception_score_equals_torchmetrics() -> None:
    scores = 3 * torch.randn(100, 12)
    metric = TheirInceptionScore(feature=given_features(scores), splits=10)
    metric.update(scores)
    torch.manual_seed(3)
    mean, spread = metric.compute()
    torch.manual_seed(3)
    ours = value(InceptionScore(), scores[torch.randperm(100)], scores)
    assert ours["class_score_scores"] == pytest.approx(mean.item(), rel=1e-6)
    assert ours["class_score_scores_std"] == pytest.approx(spread.item() * 0.9**0.5, rel=1e-5)


def test_inception_score_of_known_classes() -> None:
    """K sure classes in equal parts: K; no idea at all: 1."""
    sure = 1e3 * torch.eye(5).repeat(20, 1)
    assert value(InceptionScore(), sure, sure)["class_score_scores"] == pytest.approx(5)
    assert class_scores(torch.tensor([[2.0, 2.0, -4 * np.log(2), 4]]))[0].item() == pytest.approx(1)


# Sliced Wasserstein distance


def transported(x: Tensor, y: Tensor) -> float:
    """The cheapest transport between numbers of equal weight, by linear programming."""
    n, m = len(x), len(y)
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    bounds = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    costs = (x[:, None] - y[None]).square().flatten()
    return linprog(costs.numpy(), A_eq=np.concatenate([rows, columns]), b_eq=bounds).fun


@pytest.mark.parametrize(("n", "m"), [(9, 9), (8, 12), (7, 10), (1, 5), (6, 1)])
def test_wasserstein_distance_on_a_line_equals_optimal_transport(n: int, m: int) -> None:
    x, y = torch.randn(3, n, dtype=torch.float64), 2 * torch.randn(3, m, dtype=torch.float64) + 1
    for ours, first, second in zip(squared_wasserstein(x, y).tolist(), x, y, strict=True):
        assert ours == pytest.approx(transported(first, second), rel=1e-6)


@pytest.mark.slow
def test_sliced_wasserstein_distance_of_known_clouds() -> None:
    """Shifted by c: |c . w| on each line. Gaussians of spread 1 and s: |1 - s| on each."""
    x, shift = torch.randn(50, 3), torch.tensor([1.0, -2.0, 0.5])
    directions = random_directions(100, 3, seed=0)
    assert torch.allclose(directions.norm(dim=1), torch.ones(100).double())
    exact = (directions @ shift.double()).square().mean().sqrt().item()
    assert sliced_wasserstein(x, x[torch.randperm(50)] + shift, directions) == pytest.approx(exact, rel=1e-6)
    assert exact == pytest.approx((shift.square().sum() / 3).sqrt().item(), rel=0.1)
    a, b = torch.randn(6000, 3), 1.5 * torch.randn(9000, 3)
    assert value(SlicedWasserstein(num_projections=100), a, b)["swd_scores"] == pytest.approx(0.5, abs=0.02)


def test_directions_come_from_a_seed_of_their_own() -> None:
    first = random_directions(5, 3, seed=1)
    torch.manual_seed(9)
    assert torch.equal(random_directions(7, 3, seed=1)[:5], first)
    assert not torch.equal(random_directions(5, 3, seed=2), first)


# What all have in common


def test_frechet_distance_is_that_of_the_statistics_on_enough_samples() -> None:
    x, y = clouds(60, 80, 6)
    results = value(FrechetDistance(), x, y)
    first, second = (observed(each).statistics for each in (x, y))
    assert first is not None
    assert second is not None
    assert results == {"fd_scores": pytest.approx(frechet_distance(first, second), rel=1e-9)}
    assert FrechetDistance().fewest(Identity(64)) == 65
    assert FrechetDistance(min_samples=10).fewest(Identity(64)) == 10
    assert KernelDistance().fewest(Identity(64)) == 1000


def test_results_are_named_after_the_extractor_and_by_the_names_of_the_field() -> None:
    x, y = clouds(60, 80, 6)
    sets = observed(x), observed(y), observed(y)
    names = {"inception": ["fid", "kid", "kid_std", "inception_score", "inception_score_std"], "clip": ["cmmd"]}
    for name, expected in names.items():
        extractor = Scores(6)
        extractor.name = name
        found = {key: result for metric in METRICS for key, result in metric(*sets, extractor).items()}
        assert set(expected) <= set(found)
        assert all(type(result) is float for result in found.values())
    named = {key for metric in METRICS for key in metric(*sets, Scores(6))}
    assert all("scores" in key for key in named)
    assert len(named) == 13


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
def test_order_of_batches_does_not_matter_and_nothing_is_drawn_from_the_global_numbers(metric: Metric) -> None:
    x, y = clouds(60, 80, 6)
    state = torch.get_rng_state()
    ordered = value(metric, x, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert value(metric, x, y, order=torch.randperm(60)) == pytest.approx(ordered, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(
    "metric", [m for m in METRICS if not isinstance(m, InceptionScore)], ids=lambda m: type(m).__name__
)
def test_samples_of_the_law_score_better_than_others(metric: Metric) -> None:
    real, same, held_out = torch.randn(3, 300, 4)
    better, worse = (value(metric, each, real, held_out) for each in (same, same + 3))
    sign = -1 if isinstance(metric, PrecisionRecall | DensityCoverage) else 1
    for name in better:
        if not name.endswith("_std") and not name.startswith("copies"):
            assert sign * better[name] < sign * worse[name], name


@pytest.mark.slow
def test_collector_brings_two_processes_together(tmp_path: Path) -> None:
    torch.save(clouds(61, 80, 6), tmp_path / "features.pt")
    torch.multiprocessing.start_processes(one_of_two, (METRICS, tmp_path), nprocs=2, start_method="fork")
    x, y = torch.load(tmp_path / "features.pt")
    alone = {key: result for metric in METRICS for key, result in value(metric, x, y).items()}
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(alone, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("file", sorted(set(CONF.glob("*.yaml")) - {CONF / "none.yaml"}), ids=lambda file: file.stem)
def test_options_in_yaml_are_the_defaults_and_may_stand_in_checkpoints(file: Path) -> None:
    node: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    check(node, CHECKPOINT_TARGETS)
    ((name, metric),) = build(node, CHECKPOINT_TARGETS).items()
    assert name == file.stem
    default = None if node[name].get("extractor") is None else metric.extractor  # of a run, which has no default
    assert metric == type(metric)(extractor=default)
    assert set(node[name]) - {"_target_", "extractor"} == set(metric.settings()) - {"metric"}


@pytest.mark.parametrize(
    ("metric", "option", "wrong"),
    [
        ("FrechetDistance", "min_samples", 1),
        ("KernelDistance", "subset_size", 1),
        ("KernelDistance", "num_subsets", 2.5),
        ("MaximumMeanDiscrepancy", "bandwidth", 0),
        ("PrecisionRecall", "neighbours", 0),
        ("DensityCoverage", "max_items", 1),
        ("SlicedWasserstein", "seed", -1),
        ("NearestNeighbours", "quantile", 1.0),
        ("ClassificationAccuracyScore", "lr", 0.0),
    ],
)
def test_options_out_of_range_are_refused(metric: str, option: str, wrong: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{option}={wrong}: input should be"):
        check({"_target_": f"inkdrop.metrics.{metric}", option: wrong})


def test_what_is_too_few_or_without_classes_is_refused_in_words() -> None:
    x, y = clouds(60, 30, 6)
    with pytest.raises(ValueError, match=r"subset_size=40 .* the 60 samples or the 30 items of the reference"):
        value(KernelDistance(subset_size=40), x, y)
    with pytest.raises(ValueError, match="extractor raw has no classes"):
        Collector(Identity(6), frozenset({"class_sums"}), 60).update(x, torch.arange(60), "rows", list(range(60)))
    classifier = Classifier("digits", [1, 8, 8], 10, [[4]], 8, False)
    with pytest.raises(ValueError, match="uint8"):
        Collector(classifier, ALL, 60).update(x, torch.arange(60), "rows", list(range(60)))


@pytest.mark.slow
def test_inception_metrics_equal_those_of_torch_fidelity_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights in Inception's layout, as the published ones cannot be shipped."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: None, raising=False)
    weights = tmp_path / "weights.pth"
    torch.save(random_inception(), weights)
    colours = [torch.rand(15, 3, 1, 1) * torch.rand(15, 3, 32, 32) * high for high in (255, 180)]
    images = [each.byte() for each in colours]
    extractor = Inception(str(weights))
    _keep_apart(extractor, torch.cat(images))
    torch.save(extractor.network.state_dict(), weights)
    sets = []
    for each in images:
        collector = Collector(extractor, ALL, 15)
        for part in torch.arange(15).split(6):
            collector.update(each[part], part, "images", part.tolist())
        sets.append(collector.compute({"x": each}))
    metrics = [KernelDistance(num_subsets=5, subset_size=8), InceptionScore(), PrecisionRecall()]
    ours = {key: result for metric in metrics for key, result in metric(*sets, sets[1], extractor).items()}
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(images[0]),
        input2=Images(images[1]),
        isc=True,
        kid=True,
        prc=True,
        kid_subsets=5,
        kid_subset_size=8,
        samples_shuffle=False,
        feature_extractor="inception-v3-compat",
        feature_layer_prc="2048",
        feature_extractor_weights_path=str(weights),
        cuda=False,
        verbose=False,
        save_cpu_ram=True,
        batch_size=6,
    )
    features = sets[0].features
    assert features is not None
    scale = float(((features.double() @ features.double().T / 2048 + 1) ** 3).mean())
    assert abs(ours["kid"] - theirs["kernel_inception_distance_mean"]) < 1e-4 * scale
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert ours["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-4, abs=1e-4)
    assert ours["precision_inception"] == pytest.approx(theirs["precision"], abs=1e-4)
    assert ours["recall_inception"] == pytest.approx(theirs["recall"], abs=1e-4)
    assert 1.1 < ours["inception_score"] < 5
    assert 0.1 < ours["precision_inception"] < 1


def _keep_apart(extractor: Inception, images: Tensor) -> None:
    """Normalises each layer over these images, as random layers would make all of them the same."""
    extractor.ready()
    for layer in extractor.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    extractor.network.train()
    extractor(images)
    extractor.network.fc.weight.data *= 10
    extractor.eval()
