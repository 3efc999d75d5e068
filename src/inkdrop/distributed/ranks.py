"""Operations on the process group, which also work in a single process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from inkdrop.errors import NonFiniteError

T = TypeVar("T")


def place() -> tuple[int, int]:
    """Returns the rank of this process and the number of processes."""
    if not _several():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def share(count: int, batch_size: int) -> list[Tensor]:
    """Returns batches of item numbers below `count` for this process; processes take turns, and one may get none."""
    rank, world_size = place()
    return [items for items in torch.arange(rank, max(rank, count), world_size).split(batch_size) if len(items)]


def from_all_ranks(value: T) -> list[T]:
    """Returns the values of all processes, in the order of ranks."""
    if not _several():
        return [value]
    values: list[T] = [value] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def disband() -> None:
    """Destroys the process group, because threads of gloo that remain can abort the interpreter at its end."""
    if _several():
        torch.distributed.destroy_process_group()


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def raised_together() -> Iterator[None]:
    """Raises a `NonFiniteError` of one process in all processes at the end of the block, so that none waits forever."""
    message: str | None = None
    try:
        yield
    except NonFiniteError as error:
        message = str(error)
    if messages := dict.fromkeys(each for each in from_all_ranks(message) if each is not None):
        raise NonFiniteError("; ".join(messages))
