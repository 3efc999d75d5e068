"""train.py and sample.py within the process of the tests, and in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
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


def script(name: str, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """train.py or sample.py in a process of its own; of the environment, null leaves a variable out."""
    return subprocess.run(
        [sys.executable, name, *arguments],
        cwd=ROOT,
        env={key: value for key, value in {**os.environ, **environment}.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
