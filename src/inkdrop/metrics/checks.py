"""Whether metrics, data and the number of samples of an evaluation fit each other, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Metric

VALIDATION = "validation"


def require_split(option: str, name: str, splits: Mapping[str, Split]) -> None:
    """Raises `ValueError` if the value of an option of the evaluation is not a split of the data."""
    if name not in splits:
        raise ValueError(
            f"evaluation.{option}={name} is not a split of the data (available: {', '.join(splits)}): set it to one of "
            "these"
        )


def covered(count: int, per_item: int, held_out: int) -> int:
    """Returns the number of held-out items to which `count` samples belong: sample i belongs to item i modulo it."""
    return max(1, min(count // per_item, held_out))


def require_whole(metrics: Mapping[str, Metric], count: int, per_item: int, held_out: int) -> None:
    """Raises `ValueError` unless each covered item has equally many samples, as many as `per_item` and metrics need.

    Metrics that compare no pairs may have any number of samples where `per_item` is 1.
    """
    paired = {name: metric for name, metric in metrics.items() if metric.paired}
    unit = held_out if count >= per_item * held_out else per_item
    if count % unit and (paired or per_item > 1):
        lower = count - count % unit
        what = f"the {held_out} held-out items" if unit == held_out else f"evaluation.per_item={per_item}"
        fit = " or ".join(str(each) for each in (lower, lower + unit) if each)
        raise ValueError(f"num_samples={count} is not a multiple of {what}, to which samples belong: set it to {fit}")
    num = count // covered(count, per_item, held_out)
    for name, metric in paired.items():
        if num < metric.samples_per_item:
            raise ValueError(
                f"metric {name} needs {metric.samples_per_item} samples of each held-out item, and there is {num}: set "
                f"evaluation.per_item={metric.samples_per_item}, or more"
            )


def require_own_conditions(metrics: Mapping[str, Metric], balance: str) -> None:
    """Raises `ValueError` if a metric compares samples with items under whose conditions they are not made."""
    for name, metric in metrics.items():
        if metric.paired and balance != "held_out":
            raise ValueError(
                f"evaluation.balance={balance} makes samples under other conditions than those of the held-out items "
                f"with which metric {name} compares them: set evaluation.balance=held_out"
            )


def absent_weights(metrics: Mapping[str, Metric], extractor: Extractor) -> str:
    """Returns what is said of weights of extractors that are not on this machine, or nothing."""
    used = [metric.extractor or extractor for metric in metrics.values()]
    return "; ".join(dict.fromkeys(text for each in used if (text := each.absent())))


def require_features(metrics: Mapping[str, Metric], extractor: Extractor) -> None:
    """Raises `ValueError` if a metric needs features and its extractor has none."""
    for name, metric in metrics.items():
        if metric.needs - {"items"} and not (metric.extractor or extractor).dim:
            raise ValueError(
                f"metric {name} needs features, and extractor=none has none: choose an extractor, such as "
                "extractor=identity, or set metric=none"
            )


def require_fit(
    metrics: Mapping[str, Metric], extractor: Extractor, count: int, held_out: Split, reference: Split
) -> None:
    """Raises `ValueError` if `count` samples are too few for a metric, or if it cannot use the data.

    `extractor` is that of metrics without their own one.
    """
    for name, metric in metrics.items():
        own = metric.extractor or extractor
        if count < (fewest := metric.fewest(own)):
            raise ValueError(
                f"{count} samples are too few for metric {name}, which needs at least {fewest}: "
                f"{metric.remedy(name, min(count, len(held_out['x'])))}"
            )
        metric.check(held_out, reference, own)
