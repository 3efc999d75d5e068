"""Where several processes share the tests, long files begin."""

from __future__ import annotations

from pathlib import Path

from shares import LONG, by_file


def test_long_files_begin_and_every_item_is_there_once() -> None:
    files = sorted([*LONG, *(f"test_{number}.py" for number in range(100))])
    items = [f"{file}:{number}" for number in range(5) for file in files]
    units = by_file(items, lambda item: item.partition(":")[0])
    assert sorted(item for unit in units for item in unit) == sorted(items)
    others = [file for file in files if file not in LONG]
    assert units == [[f"{file}:{number}" for number in range(5)] for file in (*LONG, *others)]


def test_long_files_exist() -> None:
    assert [name for name in LONG if not Path(__file__).with_name(name).is_file()] == []
