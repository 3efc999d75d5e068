"""The classification accuracy score on the digits."""

import pytest
import torch
from torch import Tensor

from inkdrop.data import Digits
from inkdrop.data.loaders import Split, collect
from inkdrop.metrics import ClassificationAccuracyScore, Classifier, Evaluation, Identity
from inkdrop.metrics.metric import Extracted

METRIC = ClassificationAccuracyScore(num_steps=120, batch_size=64, max_shift=0)


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    return Digits([1, 8, 8], 10, 128).splits


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier("digits", [1, 8, 8], 10, [[32, 32], [64]], 64, False, "digits.safetensors")


def score(
    samples: Split,
    splits: dict[str, Split],
    classifier: Classifier,
    count: int | None = None,
    metric: ClassificationAccuracyScore = METRIC,
) -> float:
    held_out = Extracted(5, splits["validation"])  # all held-out items are recognised, however few are compared
    reference = Extracted(len(splits["train"]["x"]), splits["train"])
    observed = Extracted(len(samples["x"]) if count is None else count, samples)
    (value,) = metric(observed, reference, held_out, classifier).values()
    return value


@pytest.mark.slow
def test_score_is_high_for_digits_and_chance_for_wrong_labels(splits: dict[str, Split], classifier: Classifier) -> None:
    real = collect(splits["train"])
    first = score(real, splits, classifier)
    assert first > 0.9
    mixed = {**real, "label": real["label"][torch.randperm(len(real["label"]))]}
    assert score(mixed, splits, classifier) < 0.3


@pytest.mark.slow
def test_score_reads_the_first_samples_only_and_draws_from_a_seed_of_its_own(
    splits: dict[str, Split], classifier: Classifier
) -> None:
    real, few = collect(splits["train"]), ClassificationAccuracyScore(num_steps=60, batch_size=64, max_shift=0)
    state = torch.get_rng_state()
    first = score({name: column[:200] for name, column in real.items()}, splits, classifier, metric=few)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    with torch.inference_mode():
        assert score(real, splits, classifier, count=200, metric=few) == first
    assert torch.is_grad_enabled()


def test_a_classifier_is_fitted_afresh(splits: dict[str, Split], classifier: Classifier) -> None:
    before = classifier.digest()
    fresh = classifier.untrained()
    assert fresh.digest() != before
    assert {name: value.shape for name, value in fresh.state_dict().items()} == {
        name: value.shape for name, value in classifier.state_dict().items()
    }
    held_out = Extracted(350, splits["validation"])
    one_step = ClassificationAccuracyScore(num_steps=1, batch_size=8)
    (value,) = one_step(held_out, held_out, held_out, classifier).values()
    assert value < 0.5
    assert classifier.digest() == before


def test_data_without_labels_are_refused_before_anything_is_sampled(classifier: Classifier) -> None:
    data = Digits([1, 8, 8], 10, 128)
    evaluation = Evaluation(classifier, {"accuracy_score": METRIC})
    evaluation.check(data)
    with pytest.raises(ValueError, match="extractor raw is not a classifier that can be fitted"):
        Evaluation(Identity(64), {"accuracy_score": METRIC}).check(data)
    for name in ("validation", "train"):
        data.splits[name] = {"x": data.splits[name]["x"]}
        with pytest.raises(ValueError, match="no labels: remove accuracy_score from metric"):
            evaluation.check(data)


def test_data_without_labels_and_other_extractors_are_refused_in_words(
    splits: dict[str, Split], classifier: Classifier
) -> None:
    labelled = Extracted(9, splits["validation"])
    bare: dict[str, Tensor] = {"x": collect(splits["validation"])["x"]}
    with pytest.raises(ValueError, match="no labels"):
        METRIC(Extracted(9, bare), labelled, labelled, classifier)
    with pytest.raises(ValueError, match="extractor raw is not a classifier that can be fitted"):
        METRIC(labelled, labelled, labelled, Identity(64))
