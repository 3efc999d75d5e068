"""Energies of x_0 that guide samples: `energy(x_0 (B, *), raw batch) -> (B)`, low where samples should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def mean_value(x_0: Tensor, batch: Mapping[str, Any], value: float = 0.0, deviation: float = 0.1) -> Tensor:
    """`(mean(x_0) - value)^2 / (2 deviation^2)`: samples whose elements have this mean, such as brighter images."""
    return (x_0.flatten(1).mean(1) - value).square() / (2 * deviation**2)
