"""What a look at every item of a data set finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inkdrop.data.loaders import Split


@dataclass
class Findings:
    """The splits of what is sound, and what is not, by path; data that are no files have splits only."""

    splits: Mapping[str, Split] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)  # split -> files of its items
    broken: dict[str, str] = field(default_factory=dict)  # path -> reason
    skipped: dict[str, str] = field(default_factory=dict)
    conversions: Counter[str] = field(default_factory=Counter)  # kind -> files
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) -> files
    unused: dict[str, str] = field(default_factory=dict)  # table -> what of it is not used
