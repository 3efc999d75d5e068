"""What was found in a data set when every item was read."""

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
    "text or metadata next to images",
    "link to a folder above it",
    "not an image by its name",
)
_QUIET = {HIDDEN, BESIDE, ABOVE}  # files that are skipped for these reasons need no warning
_NAMED = 8  # kinds of files that are named


@dataclass
class Findings:
    """The splits of the valid items, and by path what is invalid or skipped; data without files have only splits."""

    splits: Mapping[str, Split] = field(default_factory=dict)
    paths: dict[str, list[str]] = field(default_factory=dict)  # split -> files of its items
    broken: dict[str, str] = field(default_factory=dict)  # path -> reason
    skipped: dict[str, str] = field(default_factory=dict)
    conversions: Counter[str] = field(default_factory=Counter)  # kind -> files
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height) -> files
    unused: dict[str, str] = field(default_factory=dict)  # table -> columns and captions that are not used

    @property
    def left_out(self) -> str:
        """The numbers of skipped files that a user may miss, by suffix or reason; empty if there are none."""
        counts: Counter[str] = Counter()
        for path, reason in self.skipped.items():
            if reason == NO_IMAGE:
                counts[PurePosixPath(path).suffix.lower() or "without a suffix"] += 1
            elif reason not in _QUIET:
                counts[reason] += 1
        kinds = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        named = [f"{count} {harmless(kind, 40)}" for kind, count in kinds[:_NAMED]]
        rest = sum(count for _, count in kinds[_NAMED:])
        return ", ".join([*named, *([f"{rest} others"] if rest else [])])
