"""One test of many cases: hundreds of items for one formula would take longer to set up than to compute."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Case = TypeVar("Case")


def every(cases: Mapping[str, Case]) -> Callable[[Callable[[Case], None]], Callable[[], None]]:
    """Makes a test of a function that checks one case; it goes on where one fails, and then names all that do.

    Each case begins with the global seed that each test begins with.
    """

    def decorate(check: Callable[[Case], None]) -> Callable[[], None]:
        @functools.wraps(check)
        def test() -> None:
            failed: dict[str, Exception] = {}
            for name, case in cases.items():
                torch.default_generator.manual_seed(0)
                try:
                    check(case)
                except Exception as error:
                    error.add_note(f"case: {name}")
                    failed[name] = error
            if failed:
                raise ExceptionGroup(f"{len(failed)} of {len(cases)}: {', '.join(failed)}", [*failed.values()])

        del test.__wrapped__  # type: ignore[attr-defined]  # else pytest looks for fixtures of the names of its arguments
        return test

    assert cases
    return decorate
