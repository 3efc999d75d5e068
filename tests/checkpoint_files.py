"""Checkpoint files made for tests, and ways to change and damage them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from inkdrop.checkpoints.content import FORMAT


def content(value: float = 1.0, size: int = 1000, **more: Any) -> dict[str, Any]:
    weights = {"pipeline.w": torch.full((size,), value), "pipeline.mask": torch.tensor([-torch.inf])}
    return {"format": FORMAT, "state_dict": weights, "trainable": ["pipeline.w"], "config": {"seed": 0}, **more}


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


FIRST, LAST = "step-00000001.ckpt", "step-00000002.ckpt"


Content = dict[str, Any]


Change = Callable[[Content], Any]


Damage = Callable[[Path], Any]


class Marker:
    """Unpickling it makes a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("marker"),)


def saved(content: Any, file: Path) -> None:
    file.unlink(missing_ok=True)  # it may be a link
    torch.save(content, file)


def changed(*changes: Change) -> Damage:
    """Writes the content of a file anew, as the changes leave or return it."""

    def damage(file: Path) -> None:
        content = torch.load(file, weights_only=True)
        for change in changes:
            content = change(content) or content
        saved(content, file)

    return damage


def at(path: str, change: Callable[[Any], Any]) -> Change:
    """What the change makes of the value at a path in the content."""
    *names, last = path.split("/")

    def change_content(content: Content) -> None:
        node = functools.reduce(lambda node, name: node[name], names, content)
        node[last] = change(node.get(last))

    return change_content


def put(path: str, value: Any) -> Change:
    return at(path, lambda _: value)


def without(*names: str) -> Change:
    return lambda node: {name: value for name, value in node.items() if name not in names}


def registered(file: Path) -> None:
    """The index says that the file is as it was written."""
    index = json.loads((file.parent / "index.json").read_text())
    (entry,) = [each for each in index["files"] if each["name"] == file.name]
    entry |= {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (file.parent / "index.json").write_text(json.dumps(index))


CODEC = "config/pipeline/codec"
