"""Where several processes share the tests, each begins with long ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from shares import LONG, long_first


def file_of(item: str) -> str:
    return item.partition(":")[0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_part_begins_with_long_files_and_has_every_item_once(count: int) -> None:
    files = sorted([*LONG, *(f"test_{number}.py" for number in range(100))])
    items = [f"{file}:{number}" for file in files for number in range(5)]
    ordered = long_first(items, file_of, count)
    assert sorted(ordered) == sorted(items)
    for part in range(count):
        own = ordered[len(items) * part // count : len(items) * (part + 1) // count]
        assert (
            list(dict.fromkeys(map(file_of, own)))[: len(LONG) // count] == [*LONG[part::count]][: len(LONG) // count]
        )
    for file in files:
        places = [place for place, item in enumerate(ordered) if file_of(item) == file]
        assert places == [*range(places[0], places[0] + 5)] or file not in LONG


def test_long_files_exist() -> None:
    assert [name for name in LONG if not Path(__file__).with_name(name).is_file()] == []
