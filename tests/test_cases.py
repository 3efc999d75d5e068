"""A test of many cases checks all of them, and names those that fail."""

from __future__ import annotations

import pytest
import torch
from cases import every


def test_all_cases_are_checked_and_those_that_fail_are_named() -> None:
    seen: list[tuple[int, float]] = []

    @every({"one": 1, "two": 2, "three": 3})
    def check(number: int) -> None:
        seen.append((number, torch.rand(()).item()))
        assert number == 2

    with pytest.raises(ExceptionGroup, match="2 of 3: one, three") as failed:
        check()
    assert [number for number, _ in seen] == [1, 2, 3]
    assert len({drawn for _, drawn in seen}) == 1
    assert [error.__notes__[-1] for error in failed.value.exceptions] == ["case: one", "case: three"]


def test_a_test_of_no_cases_is_none() -> None:
    with pytest.raises(AssertionError):
        every({})
