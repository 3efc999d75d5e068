"""Random mutation of what is read: each case ends in a result or in an error of inkdrop's own."""

from __future__ import annotations

from pathlib import Path

import mutations
import pytest

CASES = 25  # of each kind; `benchmarks/mutations.py --minutes 10` tries more


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, mutations.Kind]:
    return mutations.made(tmp_path_factory.mktemp("sound"))


@pytest.mark.slow
def test_nothing_ends_in_a_traceback_hangs_or_takes_all_memory(kinds: dict[str, mutations.Kind]) -> None:
    ends, faults = mutations.try_all(kinds, lambda name, number: number < CASES)
    for name, counts in ends.items():
        print(f"{name}: {counts.total()} tried, {dict(counts)}")
    assert faults == []
    assert all(counts.total() == CASES for counts in ends.values())
    assert sum(counts["result"] for counts in ends.values()) < CASES * len(kinds) * 0.8


@pytest.mark.parametrize(
    ("use", "ended"),
    [
        (lambda path: {}["x"], "KeyError"),
        (lambda path: int("x"), "ValueError"),
        (lambda path: bytearray(2**29), "memory"),
        (lambda path: mutations.signal.raise_signal(mutations.signal.SIGALRM), "hang"),
    ],
)
def test_what_goes_wrong_is_noticed(use: object, ended: str, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_bytes(b"abc")
    kind = mutations.Kind(mutations.of_bytes(file), use)  # type: ignore[arg-type]
    ends, faults = mutations.try_all({"a": kind}, lambda name, number: number < 1)
    assert ends["a"] == {ended: 1}
    assert len(faults) == 1
