"""Which items are held out for an evaluation, and which of them the samples belong to."""

from __future__ import annotations

from collections.abc import Mapping

from inkdrop.data.loaders import Split

VALIDATION = "validation"


def require_split(option: str, name: str, splits: Mapping[str, Split]) -> None:
    """Raises `ValueError` if the value of an option of the evaluation is not a split of the data."""
    if name not in splits:
        raise ValueError(
            f"evaluation.{option}={name} is not a split of the data (available: {', '.join(splits)}): set it to one of "
            "these"
        )
