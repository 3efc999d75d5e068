"""train.py and sample.py within the process of the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass
class Ended:
    """How a program ended, and what it said."""

    code: Any
    out: str
    err: str


Script = Callable[..., Ended]
