"""What a look at every item of a data set finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from inkdrop.files.showing import harmless

if TYPE_CHECKING:
    from inkdrop.data.loaders import Split

HIDDEN, BESIDE, ABOVE, NO_IMAGE = (
    "hidden",
    "text or metadata beside images",
    "link to a folder above it",
    "no image by its name",
)
_QUIET = {HIDDEN, BESIDE, ABOVE}  # nobody misses what is skipped for these reasons
_NAMED = 8  # kinds of files


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

    @property
    def left_out(self) -> str:
        """How many files somebody may miss, by the ends of their names or the reason; nothing if there are none."""
        counts: Counter[str] = Counter()
        for path, reason in self.skipped.items():
            if reason == NO_IMAGE:
                counts[PurePosixPath(path).suffix.lower() or "without a suffix"] += 1
            elif reason not in _QUIET:
                counts[reason] += 1
        found = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        told = [f"{count} {harmless(kind, 40)}" for kind, count in found[:_NAMED]]
        rest = sum(count for _, count in found[_NAMED:])
        return ", ".join([*told, *([f"{rest} others"] if rest else [])])
