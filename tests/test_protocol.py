"""What the record of a value holds, and what its hash tells apart."""

from __future__ import annotations

from typing import Any

import pytest
from observed import Flat

from inkdrop.data import Digits
from inkdrop.files.value_names import metric_of
from inkdrop.metrics import CLIP, Classifier, DINOv2, Evaluation, Identity, Inception, KernelDistance
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.protocol import hash_of, is_higher_better, protocol, sampling_facts, summary

SAMPLING = {"pipeline": {"sampler": "a", "guidance": "b"}, "weights": "0.99", "seed": 0, "network_calls": 5}
SAMPLING["precision"] = "32-true"
CHANGES: dict[str, Any] = {"weights": "raw", "seed": 1, "network_calls": 9, "precision": "bf16-mixed"}
CHANGES |= {"sampler": {"sampler": "c", "guidance": "b"}, "guidance": {"sampler": "a", "guidance": "c"}}


@pytest.mark.parametrize("field", CHANGES)
def test_every_fact_of_sampling_changes_the_hash(field: str) -> None:
    other = {**SAMPLING, "pipeline" if field in ("sampler", "guidance") else field: CHANGES[field]}
    first, second = (protocol({}, {}, sampling_facts(**facts)) for facts in (SAMPLING, other))  # type: ignore[arg-type]
    assert first["hash"] != second["hash"]
    assert {name for name, value in first["sampling"].items() if value != second["sampling"][name]} == {field}


def record(extractor: Extractor, subset_size: int = 9) -> dict[str, Any]:
    data, metric = Digits([1, 8, 8], 10, 128), KernelDistance(num_subsets=2, subset_size=subset_size)
    evaluation = Evaluation(extractor, {"kernel": metric})
    evaluation.measure([data.splits["validation"]["x"][:20]], data)
    return next(iter(evaluation.protocol(data, {})["metrics"].values()))


def test_every_fact_of_a_metric_and_its_extractor_changes_the_hash() -> None:
    first = record(Flat())
    assert record(Flat()) == first
    others = [record(Flat("other")), record(Flat(resize="bicubic")), record(Flat(weight=2.0)), record(Flat(), 8)]
    assert len({first["hash"], *(each["hash"] for each in others)}) == 5
    assert others[1] == {**first, "resize": "bicubic", "hash": others[1]["hash"]}


def test_extractors_that_resize_say_how() -> None:
    assert {Identity.resize, Classifier.resize} == {"none"}
    assert Inception.resize == "bilinear of TensorFlow 1"
    assert {CLIP.resize, DINOv2.resize} == {"bicubic, antialiased"}


@pytest.mark.parametrize(
    "name",
    [
        "fd_1k",
        "fd_1k_floor",
        "fd_1k_floor_350",
        "fd_1k_baseline",
        "fd_1k_low",
        "fd_1k_min@raw",
        "fd_1k_max",
        "fd_1k@raw",
    ],
)
def test_what_stands_beside_a_metric_has_its_hash(name: str) -> None:
    values = protocol({}, {"fd_1k": {}}, {})
    assert metric_of(name) == "fd_1k"
    assert hash_of(name, values) == values["metrics"]["fd_1k"]["hash"] == summary({name: 1.0}, values).split()[-1]


def test_what_has_no_protocol_has_no_hash() -> None:
    assert summary({"train/loss": 0.5}, protocol({}, {"fd_1k": {}}, {})) == f"{'train/loss':36} 0.5000"


def test_a_record_says_which_metrics_are_better_when_higher_and_no_hash_depends_on_it() -> None:
    metrics = {"fd_1k": {"metric": "a"}, "recall_1k": {"metric": "b"}}
    plain, told = protocol({}, metrics, {}), protocol({}, metrics, {}, higher=["recall_1k"])
    assert told["metrics"]["recall_1k"].pop("better") == "higher"
    assert told == plain
    told["metrics"]["recall_1k"]["better"] = "higher"
    upwards = [name for name in ("fd_1k", "recall_1k", "recall_1k_max@raw", "loss") if is_higher_better(name, told)]
    assert upwards == ["recall_1k", "recall_1k_max@raw"]
    assert not is_higher_better("recall_1k", {})
