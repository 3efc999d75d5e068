"""Energies of x_0 for guidance: `energy(x_0 (B, *), raw batch) -> (B)` is low where samples should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def mean_value(x_0: Tensor, batch: Mapping[str, Any], value: float = 0.0, deviation: float = 0.1) -> Tensor:
    """Returns `(mean(x_0) - value)^2 / (2 deviation^2)`, (B), which guides the mean of the elements to `value`.

    For images this is the brightness. `deviation` is the tolerance of the mean.
    """
    return (x_0.flatten(1).mean(1) - value).square() / (2 * deviation**2)
