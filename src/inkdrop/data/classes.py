"""Classes by name and by number."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of their bytes, which no locale changes."""
    return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))


def ordered(names: Iterable[str]) -> list[str]:
    """Different names in the order of their classes: as numbers if all are, and else by their bytes."""
    found = in_order(set(names))
    return sorted(found, key=int) if all(re.fullmatch("[0-9]+", name) for name in found) else found


def numbered(labels: Iterable[int], num_classes: int | None) -> list[int]:
    """The labels of the classes, in their order: 0 to K - 1 if so many are stated and hold all labels, or those found.

    Labels from 1 to K, or with gaps, so become K classes, none of them empty.
    """
    found = sorted(set(labels))
    stated = num_classes is not None and (not found or found[-1] < num_classes)
    return list(range(num_classes or 0)) if stated else found


def renumbered(labels: Tensor, classes: list[int]) -> Tensor:
    """The places (N) of labels (N) among those of the classes, which hold all of them."""
    return labels if classes == list(range(len(classes))) else torch.searchsorted(torch.tensor(classes), labels)
