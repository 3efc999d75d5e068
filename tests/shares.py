"""The order of the tests where several processes share them: a long test that began last would end alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

# The files with tests of more than 15 seconds.
LONG = (
    "test_sweeps.py",
    "test_schedulers.py",
    "test_installed.py",
    "test_interruption.py",
    "test_resumption.py",
    "test_end_to_end.py",
    "test_leaving.py",
    "test_warm.py",
    "test_image_folder.py",
    "test_new_parts.py",
    "test_reach.py",
    "test_metric_values.py",
    "test_models.py",
    "test_search.py",
)


def long_first(items: Sequence[Item], file: Callable[[Item], str], count: int) -> list[Item]:
    """The items so that each of `count` equal parts, of which a process gets one, begins with its share of long files.

    Which file an item is of is what `file` returns. The items of a file stay together where they are not at the end of
    a part, as they may share a fixture.
    """
    of = {name: [item for item in items if file(item) == name] for name in LONG}
    others = iter([item for item in items if file(item) not in of])
    ordered: list[Item] = []
    for part in range(count):
        ordered += [item for name in LONG[part::count] for item in of[name]]
        size = len(items) * (part + 1) // count
        ordered += itertools.islice(others, max(0, size - len(ordered)))
    return [*ordered, *others]
