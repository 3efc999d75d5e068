"""What W&B has written of runs, read by W&B's own command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from entry_scripts import completed

Records = list[tuple[str, Any]]


def segments(folder: Path) -> list[Records]:
    """The records (type, content) of each process of the run in a folder, in the order of their starts."""
    files = sorted(folder.glob("wandb/*run-*/run-*.wandb"), key=lambda file: file.parent.name)
    return [records(file) for file in files]


def records(file: Path) -> Records:
    done = completed("-m", "wandb", "leet", "inspect", "--json", str(file))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(line["type"], line[line["type"]]) for line in lines]


def each(kind: str, record: Records) -> list[Any]:
    return [content for name, content in record if name == kind]


def options(record: Records) -> dict[str, Any]:
    """The configuration, without W&B's own part."""
    merged: dict[str, Any] = {}
    for content in each("config", record):
        merged |= content["update"]
    return {name: value for name, value in merged.items() if not name.startswith("_wandb")}


def summary(record: Records) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for content in each("summary", record):
        merged |= content["update"]
    return merged


def history(record: Records) -> list[dict[str, Any]]:
    return [content["item"] for content in each("history", record)]
