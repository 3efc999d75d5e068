"""The surroundings of a run of Weights & Biases: its agents, the command line that it stores, and its own files."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inkdrop.configuration.secrets import masked_override

_AGENT = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


def last_step(folder: Path, run_id: str, kind: str = "*") -> int:
    """Returns the last step of a run in W&B's files in a folder, or 0 without one.

    A killed process leaves a file without its latest rows, because W&B writes them in blocks. Raises `OSError` or
    `ValueError` if W&B cannot read its files.
    """
    last = 0
    name = glob.escape(run_id)
    for file in folder.glob(f"wandb/{kind}run-*-{name}/run-{name}.wandb"):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise ValueError(f"{file} cannot be read: {done.stderr.strip()}")
        for line in done.stdout.splitlines():
            record = json.loads(line)
            if record.get("type") == "history":
                last = max(last, int(record["history"]["item"].get("_step", 0)))
    return last


def agent_run_id() -> str | None:
    """Returns the identity that an agent of W&B's own sweeps has given to the run of this process, or None."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


@contextmanager
def agent_only_of(run_id: str | None) -> Iterator[None]:
    """Hides the variables of an agent, or inherited ones, within the block from a run with another identity.

    With a sweep in the environment, W&B would ignore the identity and the project of the run.
    """
    if run_id is not None and agent_run_id() == run_id:
        yield
        return
    hidden = {name: os.environ.pop(name) for name in _AGENT if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def masked_command() -> Iterator[None]:
    """Masks secrets in the command line within the block, because W&B stores it."""
    command = sys.argv
    sys.argv = [*map(masked_override, command)]
    try:
        yield
    finally:
        sys.argv = command
