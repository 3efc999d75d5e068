"""Counts the network evaluations of a model, and compiles its network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from inkdrop.models import Model


class _Counted(nn.Module):
    """A network that counts the samples it is called for. A hook would be compiled together with the network."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.num_samples = network, 0

    def forward(self, x: Tensor, *args: Tensor, **cond: Tensor) -> Any:
        self.num_samples += len(x)
        return self.network(x, *args, **cond)


@contextmanager
def calls_counted(model: Model) -> Iterator[Callable[[int], int]]:
    """Counts the network evaluations within the block; yields a function from the number of samples to the NFE of each.

    A call with 2 B rows, as in classifier-free guidance, counts as two evaluations for each of B samples.
    """
    holder: Any = getattr(model, "denoiser", model)
    network, counted = holder.network, _Counted(holder.network)
    holder.network = counted
    try:
        yield lambda num_samples: counted.num_samples // max(1, num_samples)
    finally:
        holder.network = network


def compile_network(pipeline: Model, cuda_graphs: bool = False) -> None:
    """Compiles the network in place, which keeps the names of its weights; CUDA graphs replay its kernel launches."""
    pipeline.network.compile(mode="reduce-overhead" if cuda_graphs else None)
