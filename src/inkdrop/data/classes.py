"""Classes by name and by number."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor


def in_order(names: Iterable[str]) -> list[str]:
    """Returns names in the order of their bytes, which does not depend on the locale."""
    return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))


def ordered(names: Iterable[str]) -> list[str]:
    """Returns different names in the order of their classes: as numbers if all are numbers, and else by their bytes."""
    different = in_order(set(names))
    return sorted(different, key=int) if all(re.fullmatch("[0-9]+", name) for name in different) else different


def numbered(labels: Iterable[int], num_classes: int | None) -> list[int]:
    """Returns the labels of the classes in order: 0 to `num_classes` - 1 if these include all labels, or else `labels`.

    Labels from 1 to K, or with gaps, thus become K classes, none of them empty.
    """
    different = sorted(set(labels))
    stated = num_classes is not None and (not different or different[-1] < num_classes)
    return list(range(num_classes or 0)) if stated else different


def renumbered(labels: Tensor, classes: list[int]) -> Tensor:
    """Returns the position (N) of each of the labels (N) in the list of classes, which must include all of them."""
    return labels if classes == list(range(len(classes))) else torch.searchsorted(torch.tensor(classes), labels)
