"""Fréchet distances against independent libraries, and the protocol around them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from fidelity import Images, random_inception
from scipy import linalg
from torch import Tensor
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from inkdrop.data import Digits
from inkdrop.data.toys import Toy, moons
from inkdrop.errors import NonFiniteError
from inkdrop.metrics import (
    Classifier,
    Evaluation,
    FrechetDistance,
    GaussianStatistics,
    Identity,
    Inception,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
    Thumbnail,
    frechet_distance,
)
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Metric
from inkdrop.metrics.moments import Statistics
from inkdrop.metrics.protocol import over_repeats, protocol, short
from inkdrop.metrics.real import extracted, real, trivial_items


def statistics(features: Tensor, parts: int = 1) -> Statistics:
    metric = GaussianStatistics(features.shape[1])
    for part in features.chunk(parts):
        metric.update(part)
    return metric.compute()


def clouds(count: int, dim: int) -> tuple[Tensor, Tensor]:
    """Features as networks make them: correlated, not negative, far from zero mean."""
    mixing = torch.randn(dim, dim) / dim**0.5
    return (torch.randn(count, dim) @ mixing).relu() + 0.3, (1.2 * torch.randn(count, dim) @ mixing).relu() + 0.4


def scale(first: Statistics, second: Statistics) -> float:
    return float(first.covariance.trace() + second.covariance.trace())


@pytest.mark.parametrize("large", [1, 10**9])
@pytest.mark.parametrize(("count", "dim"), [(2000, 32), (500, 65), (40, 64)], ids=["many", "fewer", "singular"])
def test_distance_equals_scipy_and_torch_fidelity(
    count: int, dim: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkdrop.metrics.frechet._LARGE", large)  # from which matrix products take over
    a, b = clouds(count, dim)
    first, second = statistics(a), statistics(b)
    ours = frechet_distance(first, second)
    numbers = [
        {"mu": each.double().mean(0).numpy(), "sigma": np.cov(each.double().numpy(), rowvar=False)} for each in (a, b)
    ]
    root = linalg.sqrtm(numbers[0]["sigma"] @ numbers[1]["sigma"]).real
    gap = numbers[0]["mu"] - numbers[1]["mu"]
    scipys = gap @ gap + np.trace(numbers[0]["sigma"] + numbers[1]["sigma"] - 2 * root)
    fidelitys = fid_statistics_to_metric(*numbers, verbose=False)["frechet_inception_distance"]
    tolerance = 1e-6 * scale(first, second)
    if count > dim:  # sqrtm is not to be trusted where the product is singular
        assert abs(ours - scipys) < tolerance
    assert abs(ours - fidelitys) < tolerance


def test_distance_equals_torchmetrics() -> None:
    class Features(torch.nn.Module):
        num_features = 48

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).float() / 255

    a, b = (torch.randint(0, high, (300, 3, 4, 4), dtype=torch.uint8) for high in (255, 200))
    metric = FrechetInceptionDistance(feature=Features())
    metric.update(a, real=True)
    metric.update(b, real=False)
    first, second = (statistics(Features()(each)) for each in (a, b))
    assert abs(frechet_distance(first, second) - metric.compute().item()) < 1e-6 * scale(first, second)


def test_distance_of_known_gaussians() -> None:
    """Commuting covariances: |m|^2 + sum (sqrt(a) - sqrt(b))^2."""
    first = Statistics(torch.zeros(2).double(), torch.diag(torch.tensor([4.0, 1.0])).double(), 9)
    second = Statistics(torch.tensor([3.0, 0.0]).double(), torch.diag(torch.tensor([1.0, 9.0])).double(), 9)
    assert frechet_distance(first, second) == pytest.approx(9 + 1 + 4)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_streamed_statistics_equal_those_of_all_features_at_once() -> None:
    features = 100 + torch.randn(1000, 8)
    streamed = statistics(features, parts=17)
    assert torch.allclose(streamed.mean, features.double().mean(0), rtol=1e-12)
    assert torch.allclose(streamed.covariance, features.double().T.cov(), atol=1e-9)
    assert streamed.num_samples == 1000


def test_broken_features_and_single_samples_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="the features of rows 0"):
        GaussianStatistics(2).update(torch.tensor([[1.0, float("nan")]]))
    single = GaussianStatistics(2)
    single.update(torch.ones(1, 2))
    with pytest.raises(ValueError, match="at least 2"):
        single.compute()


def digits() -> Digits:
    return Digits([1, 8, 8], 10, 128)


def digits_classifier(weights: str | None = "digits.safetensors") -> Classifier:
    return Classifier("digits", [1, 8, 8], 10, [[32, 32], [64]], 64, False, weights)


def test_the_extractor_knows_digits_it_was_not_fitted_on() -> None:
    extractor, data = digits_classifier(), digits()
    for split in ("train", "validation"):
        labels = data.splits[split]["label"]
        accuracy = (extractor.logits(extractor(data.splits[split]["x"])).argmax(1) == labels).float().mean()
        assert accuracy > 0.97, split


FRECHET = {"frechet": FrechetDistance()}


class Copycat(torch.nn.Module):
    """A pipeline whose samples are given images."""

    names = ("label",)

    def __init__(self, images: Tensor):
        super().__init__()
        self.images, self.anchor = images, torch.nn.Parameter(torch.zeros(1))
        self.denoiser = torch.nn.Module()
        self.denoiser.network = torch.nn.Identity()
        self.labels: list[Tensor] = []

    @property
    def network(self) -> Any:
        return self.denoiser.network

    def forward(self, batch: dict[str, Tensor], seeds: list[int]) -> Tensor:
        assert len(batch["label"]) == len(seeds)
        self.labels.append(batch["label"])
        return self.network(self.images[torch.tensor(seeds) % len(self.images)])


def statistics_of(data: Any, split: str, count: int, batch_size: int, extractor: Extractor) -> Statistics:
    found = real(extractor, data, split, count, frozenset({"statistics"}), batch_size).statistics
    assert found is not None
    return found


def test_evaluation_names_n_and_prints_floor_and_baseline_beside_the_distance() -> None:
    data = digits()
    held_out = data.splits["validation"]["x"]
    evaluation = Evaluation(digits_classifier(), FRECHET, num_samples=300, batch_size=64)
    results = evaluation(Copycat(held_out), data)  # type: ignore[arg-type]
    assert set(results) == {"fd_digits_300", "fd_digits_300_floor", "fd_digits_300_baseline"}
    assert results["fd_digits_300"] == pytest.approx(results["fd_digits_300_floor"], rel=1e-9)
    assert results["fd_digits_300_baseline"] > 20 * results["fd_digits_300"]
    assert evaluation.network_calls == 1
    assert set(evaluation.seconds) == {"sampling", "features", "distance", "likelihood"}
    noise = torch.randint(0, 255, held_out.shape, dtype=torch.uint8)
    worse = Evaluation(digits_classifier(), FRECHET)(Copycat(noise), data)  # type: ignore[arg-type]
    assert worse["fd_digits_350"] > 20 * worse["fd_digits_350_floor"]
    measured = Evaluation(digits_classifier(), FRECHET).measure([noise], data)
    assert measured == pytest.approx(worse, rel=1e-6)


def test_more_samples_than_held_out_items_have_a_floor_that_says_so() -> None:
    data = digits()
    copies = Copycat(data.splits["validation"]["x"])
    results = Evaluation(digits_classifier(), FRECHET, num_samples=1000)(copies, data)  # type: ignore[arg-type]
    assert set(results) == {"fd_digits_1k", "fd_digits_1k_floor_350", "fd_digits_1k_baseline"}
    labels = torch.cat(copies.labels)
    assert torch.equal(labels[350:700], labels[:350])
    Evaluation(digits_classifier(), FRECHET, num_samples=100, balance="classes")(copies, data)  # type: ignore[arg-type]
    assert copies.labels[-1].bincount().tolist() == [10] * 10


def test_too_few_samples_for_a_covariance_are_refused_before_anything() -> None:
    with pytest.raises(ValueError, match="64 samples are too few for metric frechet, which needs at least 65"):
        Evaluation(digits_classifier(), FRECHET, num_samples=64).check(digits())
    Evaluation(digits_classifier(), FRECHET, num_samples=65).check(digits())
    Evaluation(digits_classifier(), {"frechet": FrechetDistance(min_samples=2)}, num_samples=2).check(digits())
    with pytest.raises(ValueError, match="reference=test is not a split"):
        Evaluation(digits_classifier(), FRECHET, reference="test").check(digits())


def test_what_is_told_where_samples_are_too_few_is_enough() -> None:
    def remedy(metric: Metric, name: str, count: int) -> str:
        with pytest.raises(ValueError, match=f"{count} samples are too few for metric {name}, which") as raised:
            Evaluation(digits_classifier(), {name: metric}, num_samples=count).check(digits())
        return str(raised.value).split(": ")[1]

    many = "set metric.kernel.subset_size=70, or take 1000 samples and hold out as many items"
    assert remedy(KernelDistance(), "kernel", 70) == many
    Evaluation(digits_classifier(), {"kernel": KernelDistance(subset_size=70)}, num_samples=70).check(digits())
    assert "subset_size=350," in remedy(KernelDistance(), "kernel", 500)  # of which 350 are held out
    assert "metric=[kernel] metric.kernel.subset_size=64," in remedy(FrechetDistance(), "frechet", 64)
    assert remedy(PrecisionRecall(9), "pr", 8) == "take more samples, or set metric.pr.neighbours=7"
    Evaluation(digits_classifier(), {"pr": PrecisionRecall(7)}, num_samples=8).check(digits())
    assert remedy(InceptionScore(), "inception_score", 9) == "take more samples"


def test_values_outside_of_eight_bits_are_refused() -> None:
    data = digits()
    floats = Copycat(data.splits["validation"]["x"].float() / 127.5 - 1)
    with pytest.raises(ValueError, match="takes uint8 images"):
        Evaluation(digits_classifier(), FRECHET)(floats, data)  # type: ignore[arg-type]


def test_repeats_have_seeds_of_their_own_and_an_interval() -> None:
    data = digits()
    images = torch.cat([data.splits["validation"]["x"], data.splits["train"]["x"][:350]])
    results = Evaluation(digits_classifier(), FRECHET, repeats=2)(Copycat(images), data)  # type: ignore[arg-type]
    each = [
        Evaluation(digits_classifier(), FRECHET, seed=seed)(Copycat(images), data)["fd_digits_350"]  # type: ignore[arg-type]
        for seed in (0, 350)
    ]
    assert results["fd_digits_350"] == pytest.approx(sum(each) / 2)
    assert results["fd_digits_350_min"] == pytest.approx(min(each))
    half = 12.7062 * abs(each[0] - each[1]) / 2  # t of one degree of freedom
    assert results["fd_digits_350_high"] - results["fd_digits_350"] == pytest.approx(half, rel=1e-4)
    assert results["fd_digits_350"] - results["fd_digits_350_low"] == pytest.approx(half, rel=1e-4)
    assert over_repeats([{"a": 3.0}]) == {("a", ""): 3.0}


def test_the_trivial_generator_knows_each_place_and_nothing_else() -> None:
    data = digits()
    x = trivial_items(data, "train", {}, 4000, 256)["x"]
    real_x = data.splits["train"]["x"]
    assert x.dtype == torch.uint8
    centre = (slice(None), 0, 4, 4)
    assert x[centre].double().mean() == pytest.approx(real_x[centre].double().mean().item(), rel=0.1)  # clipped
    assert x[:, 0, 0, 0].max() == real_x[:, 0, 0, 0].max() == 0
    pairs = torch.corrcoef(torch.stack([x[:, 0, 4, 4], x[:, 0, 4, 3]]).double())[0, 1]
    assert abs(pairs) < 0.05 < abs(torch.corrcoef(torch.stack([real_x[:, 0, 4, 4], real_x[:, 0, 4, 3]]).double())[0, 1])


def test_numbers_of_samples_are_short_in_names() -> None:
    assert [short(count) for count in (350, 999, 1000, 1500, 2000, 50_000)] == ["350", "999", "1k", "1500", "2k", "50k"]


@pytest.mark.slow
def test_the_hash_tells_like_protocols_from_unlike_ones() -> None:
    data = digits()
    copies = Copycat(data.splits["validation"]["x"])

    def record(metric: FrechetDistance = FRECHET["frechet"], sampling: Any = None, **options: Any) -> dict[str, Any]:
        evaluation = Evaluation(digits_classifier(), {"frechet": metric}, **options)
        evaluation(copies, data)  # type: ignore[arg-type]
        return evaluation.protocol(data, sampling or {"seed": 0, "weights": "raw"})

    first = record()
    name = "fd_digits_350"
    assert record(sampling={"weights": "raw", "seed": 0}) == first
    assert record(batch_size=7) == first  # no part of the protocol
    resampled = record(sampling={"seed": 1, "weights": "raw"})
    assert resampled["hash"] != first["hash"]
    assert resampled["metrics"] == first["metrics"]  # measured alike
    for options in ({"repeats": 2}, {"balance": "classes"}, {"reference": "validation"}):
        assert record(**options)["metrics"][name]["hash"] != first["metrics"][name]["hash"], options
    assert record(FrechetDistance(min_samples=9))["metrics"][name]["hash"] != first["metrics"][name]["hash"]
    assert "fd_digits_300" in record(num_samples=300)["metrics"]
    measurement = dict(first["measurement"])
    for field, value in measurement.items():
        changed = protocol({**measurement, field: f"{value}?"}, {name: {}}, {})
        assert changed["metrics"][name]["hash"] != protocol(measurement, {name: {}}, {})["metrics"][name]["hash"], field
    backwards = dict(reversed(measurement.items()))
    assert protocol(backwards, {name: {}}, {}) == protocol(measurement, {name: {}}, {})


def test_what_is_taken_of_real_data_is_kept_by_content() -> None:
    data, calls = digits(), []

    class Counting(Identity):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    first = statistics_of(data, "validation", 350, 100, Counting(64))
    again = statistics_of(data, "validation", 350, 100, Counting(64))
    assert calls == [100, 100, 100, 50]
    assert torch.equal(first.covariance, again.covariance)
    statistics_of(data, "validation", 200, 100, Counting(64))
    statistics_of(data, "train", 350, 350, Counting(64))
    other = digits()
    other.splits["validation"]["x"][0, 0, 0, 0] += 1
    statistics_of(other, "validation", 350, 350, Counting(64))
    assert calls[4:] == [100, 100, 350, 350]
    assert digits_classifier().digest() != digits_classifier(None).digest()


def test_what_is_taken_does_not_depend_on_the_precision_of_sampling() -> None:
    extractor, items = digits_classifier(), digits().splits["validation"]
    needs = frozenset({"statistics", "features", "class_sums"})
    plain = extracted(extractor, items, 32, needs, 16, "items")
    with torch.autocast("cpu", torch.bfloat16):
        mixed = extracted(extractor, items, 32, needs, 16, "items")
    for name in ("features", "class_sums"):
        first, second = getattr(plain, name), getattr(mixed, name)
        assert torch.equal(first, second), name


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert statistics_of(Toy(moons, 100, [2], 0, 10), "train", 100, 50, Identity(2)).num_samples == 100


def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(tmp_path))
    data = Toy(moons, 100, [2], 0, 10)
    first = statistics_of(data, "train", 100, 50, Identity(2))
    (file,) = (tmp_path / "extracted").iterdir()
    for damage in (file.read_bytes()[:100], b"", b"<html>"):
        file.write_bytes(damage)
        assert torch.equal(statistics_of(data, "train", 100, 50, Identity(2)).covariance, first.covariance)


def test_inception_without_weights_says_which_file_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(ValueError, match=Inception.FILE) as error:
        Inception().ready()
    assert str(tmp_path) in str(error.value)
    with pytest.raises(ValueError, match=r"missing\.pth"):
        Inception("missing.pth").ready()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Metric `FrechetInceptionDistance`")
def test_fid_equals_those_of_torch_fidelity_and_torchmetrics_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights in Inception's layout, as the published ones cannot be shipped."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: None, raising=False)
    weights = tmp_path / "weights.pth"
    torch.save(random_inception(), weights)
    images = [torch.randint(0, high, (3, 3, 32, 32), dtype=torch.uint8) for high in (255, 180)]
    extractor = Inception(str(weights))
    with torch.no_grad():
        first, second = (statistics(extractor(each), parts=2) for each in images)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(images[0]),
        input2=Images(images[1]),
        fid=True,
        cuda=False,
        feature_extractor_weights_path=str(weights),
        verbose=False,
        save_cpu_ram=True,
        batch_size=2,
    )["frechet_inception_distance"]
    ours = frechet_distance(first, second)
    assert abs(ours - theirs) < 1e-4 * scale(first, second)
    # its default antialias=True is another metric than the published one
    metric = FrechetInceptionDistance(2048, antialias=False, feature_extractor_weights_path=str(weights))
    for each, is_real in zip(images, (True, False), strict=True):
        metric.update(each, real=is_real)
    assert abs(ours - metric.compute().item()) < 1e-4 * scale(first, second)
    with pytest.raises(ValueError, match="uint8"):
        extractor(images[0].float())


def test_thumbnails_are_mean_levels_of_the_parts_of_images_of_any_size() -> None:
    images = torch.zeros(2, 3, 12, 20, dtype=torch.uint8)
    images[0, 0, :6, 10:] = 200
    features = Thumbnail(3, size=2)(images)
    assert features.shape == (2, 12)
    assert features[0].tolist() == [0, 200, 0, 0, *[0] * 8]
    with pytest.raises(ValueError, match="uint8"):
        Thumbnail(3)(torch.zeros(2, 3, 16, 16))
