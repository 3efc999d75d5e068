"""How several processes share the tests: a long test that began last would end alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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
    "test_search_on_ranks.py",
    "test_reproducing.py",
    "test_describing.py",
    "test_rerun.py",
    "test_configuration.py",
    "test_configuration_corpus.py",
    "test_stochastic_samplers.py",
    "test_units.py",
)


def processes(config: Any) -> int:
    """How many processes run the tests; one where none can be forked."""
    asked = config.getoption("--processes")
    if not hasattr(os, "fork") or sys.platform == "darwin":  # whose libraries do not work in a fork
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return processors + 2 if asked == "auto" else int(asked)


def by_file(items: Sequence[Item], file: Callable[[Item], str]) -> list[list[Item]]:
    """The items of each file, which `file` returns for an item; files that take long begin.

    The items of a file stay together, as they may share a fixture.
    """
    of: dict[str, list[Item]] = {name: [] for name in LONG}
    for item in items:
        of.setdefault(file(item), []).append(item)
    return [each for each in of.values() if each]
