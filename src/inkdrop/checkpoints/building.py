"""Builds the model of a checkpoint with limited memory, and refuses a checkpoint that contains itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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

MAX_MODELS = 16  # models in one checkpoint
ROOM = 2**29  # bytes allowed for parts without weights in the file, such as tables of a schedule
_FACTOR = 8  # bytes allowed while a model is built, for each byte of its weights
_LEAST = 2**15  # least bytes counted for a tensor: a model of very many small ones takes long


class _TooLargeError(ValueError):
    """The described model takes more memory than allowed."""


class _Room(TorchDispatchMode):
    """A dispatch mode that refuses to allocate tensors of more than `left` bytes in total."""

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
    """Returns the bytes of a function's results, or 0 if they depend on the values of its arguments."""
    args, kwargs = tree_map_only(Tensor, lambda each: each.to("meta"), (args, dict(kwargs)))
    if any(each.name == "device" for each in function._schema.arguments):
        kwargs["device"] = torch.device("meta")
    try:
        made = tree_leaves(function(*args, **kwargs))
    except Exception:  # the shape depends on values
        return 0
    return sum(max(_LEAST, each.numel() * each.element_size()) for each in made if isinstance(each, Tensor))


@dataclass
class _Chain:
    """The checkpoints that are being built inside each other, the memory allowed for each, and their total number."""

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
    """Registers a checkpoint that is built in the block; raises `CheckpointError` for a cycle or too many models."""
    with _chain() as now:
        own, outer = Path(path).resolve(), now.rooms[-1:]
        now.count += 1
        if own in now.paths:
            chain = " -> ".join(harmless(each) for each in [*now.paths[now.paths.index(own) :], own])
            raise CheckpointError(f"{harmless(path)} contains itself: {chain}")
        if now.count > MAX_MODELS:
            raise CheckpointError(f"{harmless(path)} is one of more than {MAX_MODELS} models within one checkpoint")
        now.paths.append(own)
        for room in outer:  # it is another file with its own weights
            room.paused = True
        try:
            yield
        finally:
            now.paths.pop()
            for room in outer:
                room.paused = False


def built(
    path: str | Path,
    node: Any,
    allowed: Iterable[str],
    weights: Mapping[str, Tensor] | None = None,
    complete: Callable[[Any], object] = lambda part: None,
) -> Any:
    """Builds a part of a checkpoint's configuration with these weights, and calls `complete` with it.

    Raises `CheckpointError` if it would take much more memory than its weights, or cannot be built.
    """
    sizes = [value.numel() * value.element_size() for value in (weights or {}).values()]
    with _chain() as now:
        now.rooms.append(_Room(ROOM + _FACTOR * sum(max(_LEAST, size) for size in sizes)))
        try:
            with now.rooms[-1]:
                part = build(node, allowed)
                complete(part)
                return part
        except _TooLargeError:
            fault = "its configuration describes a model larger than its weights, which would take too much memory"
            raise CheckpointError(f"{harmless(path)} is not an inkdrop checkpoint: {fault}") from None
        except ValueError:
            raise
        except Exception as error:  # values that fit by themselves need not fit each other
            fault = harmless(" ".join(str(error).split()) or type(error).__name__)
            raise CheckpointError(f"{harmless(path)}: its configuration cannot be built: {fault}") from error
        finally:
            now.rooms.pop()
