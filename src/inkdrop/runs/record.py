"""The facts of a run besides its configuration on which its result depends."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from inkdrop import __version__
from inkdrop.files.writing import write_text


def facts() -> dict[str, Any]:
    """Returns what bit-identical results depend on: versions, threads, and the git commit or None."""
    import torch  # takes seconds

    packages = ("torch", "lightning", "hydra-core", "torchmetrics", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "versions": {"inkdrop": __version__, "python": platform.python_version(), **versions},
        "threads": torch.get_num_threads(),
        "git_commit": commit(),
    }


def commit() -> str | None:
    """Returns the git commit of the code, or None without git or a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None


def write_json(content: dict[str, Any], path: Path) -> None:
    """Writes an indented JSON file, completely or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")
