"""Mixtures of data sets: weights, classes, and an order that knows no state."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from inkdrop.data import DataModule, Digits, Mixture, Split, Toy
from inkdrop.data.augmentations import flip
from inkdrop.data.loaders import Order, ShuffledPasses, collect
from inkdrop.data.mixture import ROUND, Joined, Rounds
from inkdrop.data.toys import moons
from inkdrop.errors import DataError

COUNTS = {"a": 30, "b": 10, "c": 60}
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 5.0}


class Numbers(DataModule):
    """Items that are their own number plus `start`, two thirds of class 0, the others of classes 1 and 2."""

    def __init__(self, count: int, start: int, width: int = 1, dtype: torch.dtype = torch.float32, labels: bool = True):
        super().__init__([width], 3, 1)
        self.count, self.start, self.width, self.dtype, self.labels = count, start, width, dtype, labels

    def load(self) -> dict[str, Split]:
        x = (torch.arange(self.count) + self.start)[:, None].expand(-1, self.width).to(self.dtype)
        label = (torch.arange(self.count) % 6 - 3).clamp(0, 2)
        split: Split = {"x": x, "label": label} if self.labels else {"x": x}
        return {"train": split, "validation": {name: column[: self.count // 10] for name, column in split.items()}}


def sources() -> dict[str, DataModule]:
    return {name: Numbers(count, 1000 * i) for i, (name, count) in enumerate(COUNTS.items())}


def mixture(parts: dict[str, DataModule] | None = None, class_balanced: bool = False, **options: Any) -> Mixture:
    return Mixture(parts or sources(), [1], options.pop("num_classes", 3), 10, class_balanced, **options)


def drawn(data: Mixture, count: int, first: int = 0) -> dict[str, torch.Tensor]:
    """The training samples at these positions."""
    return collect(data.splits["train"], data.order()(range(first, first + count)))


@pytest.mark.parametrize(
    ("weights", "expected"), [(WEIGHTS, [0.125, 0.25, 0.625]), (None, [0.3, 0.1, 0.6])], ids=["stated", "by size"]
)
def test_sources_are_drawn_in_proportion_to_their_weights(
    weights: dict[str, float] | None, expected: list[float]
) -> None:
    data = mixture(weights=weights)
    whole = drawn(data, ROUND)["source"].bincount().tolist()
    assert whole == [share * ROUND for share in expected]
    part = drawn(data, 2000, first=4321)["source"].bincount().numpy()
    assert chisquare(part, 2000 * np.array(expected)).pvalue > 1e-3
    assert chisquare(part, 2000 * np.array([1, 1, 1]) / 3).pvalue < 1e-9  # the test can fail


def test_sources_follow_one_another_at_random() -> None:
    source = drawn(mixture(weights=WEIGHTS), ROUND)["source"]
    pairs = (3 * source[:-1] + source[1:]).bincount(minlength=9).numpy()
    share = np.array([0.125, 0.25, 0.625])
    assert chisquare(pairs, (ROUND - 1) * np.outer(share, share).flatten()).pvalue > 1e-3
    rounds = [drawn(mixture(weights=WEIGHTS), 100, first)["source"].tolist() for first in (0, ROUND)]
    assert rounds[0] != rounds[1]


def test_each_source_goes_through_its_items_in_passes() -> None:
    samples = drawn(mixture(weights=WEIGHTS), 2 * ROUND)
    for i, count in enumerate(COUNTS.values()):
        x = samples["x"][samples["source"] == i, 0].long() - 1000 * i
        passes = x[: len(x) // count * count].reshape(-1, count)
        assert (passes.sort(1).values == torch.arange(count)).all()
        assert len(passes.unique(dim=0)) == len(passes)


@pytest.mark.parametrize("class_balanced", [False, True])
def test_sources_of_equal_length_do_not_go_in_step(class_balanced: bool) -> None:
    samples = drawn(mixture({"a": Numbers(60, 0), "b": Numbers(60, 0)}, class_balanced), 400)
    first, second = (samples["x"][samples["source"] == i, 0][:60].tolist() for i in (0, 1))
    assert first != second


def test_the_labels_of_a_sample_stay_with_it() -> None:
    samples = drawn(mixture(weights=WEIGHTS), 500)
    number = samples["x"][:, 0].long()
    assert samples["source"].tolist() == (number // 1000).tolist()
    assert samples["label"].tolist() == (number % 1000 % 6 - 3).clamp(0, 2).tolist()


@pytest.mark.slow
def test_classes_of_a_source_are_drawn_equally_often() -> None:
    samples = drawn(mixture(weights=WEIGHTS, class_balanced=True), ROUND)
    table = torch.stack([samples["label"][samples["source"] == i].bincount(minlength=3) for i in range(3)])
    assert table.sum(1).tolist() == [1250, 2500, 6250]
    assert (table.max(1).values - table.min(1).values <= 1).all()
    unbalanced = drawn(mixture(weights=WEIGHTS), ROUND)["label"].bincount()
    assert unbalanced[0] > 1.9 * unbalanced[1:].sum()
    for label in range(3):  # and each class goes through its items
        x = samples["x"][(samples["source"] == 2) & (samples["label"] == label), 0]
        counts = x.long().unique(return_counts=True)[1]
        assert len(counts) == [40, 10, 10][label]
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("class_balanced", [False, True])
def test_the_order_is_a_function_of_seed_and_position(class_balanced: bool) -> None:
    data = mixture(weights=WEIGHTS, class_balanced=class_balanced)
    near = ROUND - 50
    whole = data.order()(range(near, near + 100)).tolist()
    order = mixture(weights=WEIGHTS, class_balanced=class_balanced).order()
    assert [int(order([p])) for p in reversed(range(near, near + 100))][::-1] == whole
    other = mixture(weights=WEIGHTS, class_balanced=class_balanced, seed=1)
    assert other.order()(range(near, near + 100)).tolist() != whole
    batches = list(itertools.islice(data.train_dataloader(), 5))
    together = torch.cat([batch["x"] for batch in batches])
    torch.testing.assert_close(together, drawn(data, len(together))["x"])


class Backwards(Numbers):
    """A data set with an order of its own."""

    def order(self) -> Order:
        return lambda positions: torch.tensor([self.count - 1 - p % self.count for p in positions])


def test_the_own_order_of_a_source_is_kept() -> None:
    samples = drawn(mixture({"a": Numbers(20, 0), "b": Backwards(50, 1000)}, weights={"a": 1.0, "b": 1.0}), 90)
    x = samples["x"][samples["source"] == 1, 0].long() - 1000
    assert len(x) > 25
    assert x.tolist() == [49 - p % 50 for p in range(len(x))]


def test_validation_is_one_source_after_another() -> None:
    split = collect(mixture().splits["validation"])
    assert split["x"][:, 0].tolist() == [0, 1, 2, 1000, *range(2000, 2006)]
    assert split["source"].tolist() == [0] * 3 + [1] + [2] * 6
    digits = {"digits": Digits([1, 8, 8], 10, 1), "again": Digits([1, 8, 8], 10, 1)}
    assert set(Mixture(digits, [1, 8, 8], None, 10, False).splits) == {"train", "validation", "extractor"}


def test_joined_columns_are_not_copied_and_name_their_content() -> None:
    first, second = torch.arange(6).reshape(3, 2), torch.arange(6, 10).reshape(2, 2)
    joined = Joined([first, second])
    assert (joined.shape, joined.dtype, len(joined)) == ((5, 2), torch.int64, 5)
    assert joined[torch.tensor([4, 0, 2, 3])].tolist() == [[8, 9], [0, 1], [4, 5], [6, 7]]
    before = joined.digest()
    first[0, 0] = 100
    assert joined[torch.tensor([0])].tolist() == [[100, 1]]
    assert joined.digest() != before


def test_the_fingerprint_follows_the_sources() -> None:
    assert mixture().fingerprint == mixture(weights=WEIGHTS).fingerprint
    assert mixture({"a": Numbers(30, 0)}).fingerprint != mixture({"a": Numbers(30, 1)}).fingerprint


def test_orders_with_shares_take_turns_exactly() -> None:
    order = Rounds([ShuffledPasses(2, 0), lambda positions: torch.tensor(positions) + 100], [1, 3], seed=0)
    items = order(range(12)).reshape(3, 4)
    assert (items < 2).sum(1).tolist() == [1, 1, 1]
    assert items[items >= 100].tolist() == list(range(100, 109))


def test_classes_are_as_many_as_any_source_has() -> None:
    assert mixture(num_classes=None).num_classes == 3


WRONG: dict[str, tuple[dict[str, DataModule], str]] = {
    "shapes": ({"a": Numbers(90, 0), "b": Numbers(90, 0, width=2)}, r"sources.b has x of torch.float32 \[2\]"),
    "types": ({"a": Numbers(90, 0), "b": Numbers(90, 0, dtype=torch.int16)}, "sources.b has x of torch.int16"),
    "fields": (
        {"a": Numbers(90, 0), "b": Numbers(90, 0, labels=False)},
        "sources.b has the fields x, but the first source has x, label",
    ),
    "all shapes": ({"a": Numbers(90, 0, width=3)}, r"data.shape=\[1\], but the samples of train have the shape \[3\]"),
}


@pytest.mark.parametrize(("parts", "message"), WRONG.values(), ids=WRONG.keys())
def test_sources_that_do_not_agree_are_refused(parts: dict[str, DataModule], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _ = mixture(parts).splits


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights names a, d, but the sources are a, b, c"):
        mixture(weights={"a": 1.0, "d": 1.0})
    with pytest.raises(ValueError, match="c would contribute less than one of 10000 samples"):
        mixture(weights={"a": 1.0, "b": 1.0, "c": 1e-6}).order()
    with pytest.raises(ValueError, match="sources is empty"):
        Mixture({}, [1], 3, 10, False)
    with pytest.raises(DataError, match=r"class_balanced=true needs labels, and data.sources.moons has none"):
        mixture({"moons": Toy(moons, 10, [2], 0, 1)}, class_balanced=True).order()
    digits = Digits([1, 8, 8], 10, 1, augment=flip)
    with pytest.raises(ValueError, match=r"data.sources.d.augment is not used: set data.augment"):
        mixture({"d": digits})
