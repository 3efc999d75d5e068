"""Something that happens at a chosen moment of a run, and waiting for it."""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest


def at_call(
    patch: pytest.MonkeyPatch, owner: Any, name: str, number: int, action: Callable[[], Any], again: bool = False
) -> None:
    """The call of a function with this number, from 1, begins with an action, and on wish so do all later ones."""
    original, numbers = getattr(owner, name), itertools.count(1)

    def counted(*arguments: Any, **options: Any) -> Any:
        count = next(numbers)
        if count == number or (again and count > number):
            action()
        return original(*arguments, **options)

    patch.setattr(owner, name, counted)


def full(*_: Any, **__: Any) -> None:
    """The disk is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Returns when something has happened; the limit is for what never does, on a machine that is busy."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {seconds} seconds"
        time.sleep(0.02)
