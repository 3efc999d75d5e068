"""Building what a checkpoint describes, within the memory that its weights tell of, and no checkpoint within itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from inkdrop.configuration import build
from inkdrop.errors import CheckpointError
from inkdrop.files.showing import harmless

MAX_MODELS = 16  # that a checkpoint is made of
ROOM = 2**29  # bytes that parts without weights in the file may take, such as tables of a schedule
_FACTOR = 8  # bytes that a model may take while it is built for each byte of its weights
_LEAST = 2**15  # bytes that each tensor counts for: a model of very many small ones takes long


class _TooLargeError(ValueError):
    """What is described takes more memory than it may."""


class _Room(TorchDispatchMode):
    """Refuses to make tensors of more bytes than `left`, before they are made."""

    def __init__(self, left: int):
        super().__init__()
        self.left, self.paused = left, False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not (self.paused or function._schema.is_mutable or function.is_view):
            self.left -= _num_bytes(function, args, kwargs)
            if self.left < 0:
                raise _TooLargeError
        return function(*args, **kwargs)


def _num_bytes(function: Any, args: Any, kwargs: Any) -> int:
    """Of what a function makes; 0 where that depends on the values it is given."""
    args, kwargs = tree_map_only(Tensor, lambda each: each.to("meta"), (args, dict(kwargs)))
    if any(each.name == "device" for each in function._schema.arguments):
        kwargs["device"] = torch.device("meta")
    try:
        made = tree_leaves(function(*args, **kwargs))
    except Exception:  # of what has no shape without numbers
        return 0
    return sum(max(_LEAST, each.numel() * each.element_size()) for each in made if isinstance(each, Tensor))


@dataclass
class _Chain:
    """Checkpoints that are being built within each other, the memory each may take, and how many there were in all."""

    paths: list[Path] = field(default_factory=list)
    rooms: list[_Room] = field(default_factory=list)
    count: int = 0


_current: ContextVar[_Chain | None] = ContextVar("checkpoints that are being built", default=None)


@contextmanager
def _chain() -> Iterator[_Chain]:
    if (now := _current.get()) is not None:
        yield now
        return
    token = _current.set(now := _Chain())
    try:
        yield now
    finally:
        _current.reset(token)


@contextmanager
def opened(path: str | Path) -> Iterator[None]:
    """A checkpoint is read and built within the block; `CheckpointError` if it is already, or is one of too many."""
    with _chain() as now:
        own, outer = Path(path).resolve(), now.rooms[-1:]
        now.count += 1
        if own in now.paths:
            chain = " -> ".join(harmless(each) for each in [*now.paths[now.paths.index(own) :], own])
            raise CheckpointError(f"{harmless(path)} is made of itself: {chain}")
        if now.count > MAX_MODELS:
            raise CheckpointError(f"{harmless(path)} is one of more than {MAX_MODELS} models that another is made of")
        now.paths.append(own)
        for room in outer:  # it is another file, with weights of its own
            room.paused = True
        try:
            yield
        finally:
            now.paths.pop()
            for room in outer:
                room.paused = False


def built(path: str | Path, node: Any, allowed: Iterable[str], weights: Mapping[str, Tensor] | None = None) -> Any:
    """What a part of a checkpoint's configuration describes, where these are its weights.

    `CheckpointError` for what would take much more memory than they do, or cannot be built at all.
    """
    sizes = [value.numel() * value.element_size() for value in (weights or {}).values()]
    with _chain() as now:
        now.rooms.append(_Room(ROOM + _FACTOR * sum(max(_LEAST, size) for size in sizes)))
        try:
            with now.rooms[-1]:
                return build(node, allowed)
        except _TooLargeError:
            told = "its configuration describes a model larger than its weights, which would take too much memory"
            raise CheckpointError(f"{harmless(path)} is no checkpoint of inkdrop: {told}") from None
        except ValueError:
            raise
        except Exception as error:  # values that fit by themselves need not fit each other
            told = harmless(" ".join(str(error).split()) or type(error).__name__)
            raise CheckpointError(f"{harmless(path)}: its configuration cannot be built: {told}") from error
        finally:
            now.rooms.pop()
