"""Several processes that work on the same thing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from inkdrop.errors import NonFiniteError

T = TypeVar("T")


def place() -> tuple[int, int]:
    """Rank of this process, and how many there are."""
    if not _several():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def share(count: int, batch_size: int) -> list[Tensor]:
    """Batches of the items, of so many, that are this process's to do: processes take turns; one may have none."""
    rank, world_size = place()
    return [items for items in torch.arange(rank, max(rank, count), world_size).split(batch_size) if len(items)]


def from_all_ranks(value: T) -> list[T]:
    """What each process says, in the order of ranks."""
    if not _several():
        return [value]
    values: list[T] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def disband() -> None:
    """Ends the work with the others; the threads of gloo, left to the end of the interpreter, can abort it."""
    if _several():
        torch.distributed.destroy_process_group()


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def raised_together() -> Iterator[None]:
    """What one process finds not finite within the block, all processes raise at its end: none waits for the others."""
    found: str | None = None
    try:
        yield
    except NonFiniteError as error:
        found = str(error)
    if messages := dict.fromkeys(message for message in from_all_ranks(found) if message is not None):
        raise NonFiniteError("; ".join(messages))
