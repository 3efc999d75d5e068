"""train.py and sample.py within the process of the tests, and in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warm import process

ROOT = Path(__file__).parent.parent


@dataclass
class Ended:
    """How a program ended, and what it said."""

    code: Any
    out: str
    err: str


Script = Callable[..., Ended]


def begin(
    *command: str,
    fresh: bool = False,
    cwd: Path = ROOT,
    python: str | Path = sys.executable,
    environment: Mapping[str, str | None] | None = None,
    **options: Any,
) -> subprocess.Popen[str]:
    """A process of `python COMMAND`, with the options of `subprocess.Popen`; null takes a variable away.

    It is forked from a process that has imported the libraries already, unless it is to start afresh: where the start
    itself is tested, or what an interpreter or a library reads of the environment as it begins.
    """
    variables = {**os.environ, **(environment or {})}
    named = {name: value for name, value in variables.items() if value is not None}
    return process([str(python), *command], fresh, cwd=cwd, env=named, text=True, **options)


def completed(
    *command: str,
    fresh: bool = False,
    cwd: Path = ROOT,
    python: str | Path = sys.executable,
    **environment: str | None,
) -> subprocess.CompletedProcess[str]:
    """How `python COMMAND` ended, and what it said."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with begin(*command, fresh=fresh, cwd=cwd, python=python, environment=environment, **streams) as begun:
        out, err = begun.communicate()
    return subprocess.CompletedProcess(begun.args, begun.returncode, out, err)
